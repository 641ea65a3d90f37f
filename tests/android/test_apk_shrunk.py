"""The code as R8 makes it for the APK, by the app's own rules: shortened, renamed, and still right.

The APK's dex files have no way in for a test, so the same code is put through R8 with one more, and its dex
files turned back into class files. The screens, which need Android, are not among it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jvm import class_files_of

from stillroom.export.android.app_project import read_project
from stillroom.export.android.shrink import shrink
from stillroom.export.android.toolchain import Toolchain

ROOT = Path(__file__).parents[2]
WAY_IN = """
-keep class dev.stillroom.model.JvmMain { public static void main(java.lang.String[]); }
-dontwarn org.junit.**
"""


@pytest.fixture(scope="module")
def shrunk(tools: Toolchain, app: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The app (jvm.App) of R8's dex files."""
    out = tmp_path_factory.mktemp("shrunk")
    (out / "way_in.pro").write_text(WAY_IN, "utf-8")
    rules = [read_project(ROOT / "android_demo").rules, out / "way_in.pro"]
    (dex,) = shrink(tools, app.classes, rules, out, libraries=[tools.onnxruntime_jar])
    class_files_of(tools, dex, out / "classes.jar")
    return replace(app, classes=(out / "classes.jar",))


def test_it_answers_as_before(app: Any, shrunk: Any, app_bundles: dict[str, Path]) -> None:
    folders = list(app_bundles.values())
    before, after = app.answers("mapped", folders), shrunk.answers("mapped", folders)
    assert before == after
    assert len(after) == len(app_bundles) >= 3
    assert all(report["difference"] is None and report["answers"] for report in after)


def test_names_were_made_short(shrunk: Any) -> None:
    content = (shrunk.classes[0].with_name("classes.dex")).read_bytes()
    assert b"Ldev/stillroom/model/JvmMain;" in content
    assert b"Ldev/stillroom/tokenization/WordPiece;" not in content
