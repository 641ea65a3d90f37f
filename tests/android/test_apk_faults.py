"""Builds of the APK that must fail: one line that says what to do, and the APK of before is still there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stillroom.cli import main
from stillroom.export.android.bundle import ASSETS
from stillroom.export.android.toolchain import Toolchain

Refused = Callable[..., str]
BuildWords = Callable[..., list[str]]
CopyOfDemo = Callable[[Path], Path]


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], tools: Toolchain, build_words: BuildWords, tmp_path: Path
) -> Refused:
    """Build what must fail, over an APK that is there already; return its one line of error."""

    def run(project: Path, *more: str, code: int, folder: Path = tools.folder.parent) -> str:
        out = tmp_path / "app.apk"
        out.write_bytes(b"the old one")
        assert main([*build_words(project, out, folder), *more]) == code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stillroom: ")]
        assert len(lines) == 1
        assert out.read_bytes() == b"the old one"
        assert [path.name for path in tmp_path.glob("*.apk*")] == ["app.apk"]
        return lines[0]

    return run


def test_a_project_without_a_bundle_says_how_to_make_one(
    refused: Refused, tmp_path: Path, copy_of_demo: CopyOfDemo
) -> None:
    project = copy_of_demo(tmp_path / "demo")
    shutil.rmtree(project / ASSETS)
    assert f"stillroom bundle RUN --for android --into {project}" in refused(project, code=2)


def test_a_bundle_for_another_runtime_is_refused(
    refused: Refused, tmp_path: Path, copy_of_demo: CopyOfDemo
) -> None:
    project = copy_of_demo(tmp_path / "demo")
    manifest = json.loads((project / ASSETS / "manifest.json").read_text("utf-8"))
    (artifact,) = manifest["artifacts"]
    listed = next(entry for entry in manifest["files"] if entry["file"] == artifact["file"])
    (project / ASSETS / "model.onnx").rename(project / ASSETS / "model.pte")
    artifact |= {
        "file": "model.pte",
        "target": "executorch",
        "runtime": {"name": "executorch", "version": "1.4.1"},
    }
    listed["file"] = "model.pte"
    (project / ASSETS / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    line = refused(project, code=2)
    assert (
        "flavour onnxruntime opens onnx or ort" in line and "for executorch: use flavour executorch" in line
    )


def test_the_executorch_flavour_says_that_gradle_builds_it(refused: Refused, project: Path) -> None:
    line = refused(project, "--flavour", "executorch", code=1)
    assert "not built here" in line and "gradle assembleExecutorchRelease" in line
    assert "did you mean 'executorch'" in refused(project, "--flavour", "executorh", code=2)


def test_a_mistake_in_kotlin_is_one_line_with_its_place(
    refused: Refused, tmp_path: Path, copy_of_demo: CopyOfDemo
) -> None:
    project = copy_of_demo(tmp_path / "demo")
    source = project / "app/src/main/kotlin/dev/stillroom/Wrong.kt"
    source.write_text('package dev.stillroom\n\nval wrong: Int = "text"\n', "utf-8")
    line = refused(project, code=1)
    assert f"{source}:3: " in line and "'String'" in line and "'Int'" in line


def test_a_mistake_in_resources_names_its_file(
    refused: Refused, tmp_path: Path, copy_of_demo: CopyOfDemo
) -> None:
    project = copy_of_demo(tmp_path / "demo")
    (project / "app/src/main/res/values/wrong.xml").write_text("<resources><string/></resources>", "utf-8")
    assert re.search(r"aapt2: .*res/values/wrong\.xml:1: error: ", refused(project, code=1))


@pytest.mark.parametrize("what", ["missing", "changed", "never fetched"])
def test_tools_that_are_not_the_pinned_ones_say_how_to_fetch_them(
    refused: Refused, project: Path, tools: Toolchain, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "tools"
    folder.mkdir()
    if what != "never fetched":
        there = folder / tools.folder.name
        shutil.copytree(tools.folder, there, copy_function=lambda source, to: Path(to).symlink_to(source))
        (there / "d8.jar").unlink()
        if what == "changed":
            (there / "d8.jar").write_bytes(tools.d8_jar.read_bytes()[:-1])
    line = refused(project, code=2, folder=folder)
    assert "stillroom android build --fetch" in line
    assert {"missing": "d8.jar is missing", "changed": "d8.jar was changed"}.get(what, str(folder)) in line


def test_without_a_jdk_it_says_what_to_install(
    refused: Refused, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refused(project, code=2)
    assert "there is no java: install a JDK" in line


def test_killed_half_way_it_leaves_the_old_apk(
    build_words: BuildWords, project: Path, tmp_path: Path
) -> None:
    out = tmp_path / "app.apk"
    out.write_bytes(b"the old one")
    process = subprocess.Popen(
        [sys.executable, "-m", "stillroom", *build_words(project, out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    while not any(tmp_path.glob("*/r_classes/**/*.class")):  # then Kotlin is compiled, for many seconds
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert out.read_bytes() == b"the old one"
    assert [path.name for path in tmp_path.glob("*.apk*")] == ["app.apk"]
