"""The tools that build the app, fetched once, and a small bundle in the app's form."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.export import export
from stillroom.export.android.bundle import ASSETS, write_android_bundle
from stillroom.export.android.toolchain import Toolchain, fetch_toolchain
from stillroom.export.bundle import write_bundle

# Modules of this folder, each before those that import it: pytest's import mode knows no folders.
for _name in ("android_library", "jvm", "app_bundles", "bundle_opener", "preview"):
    _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    assert _spec is not None and _spec.loader is not None
    sys.modules[_name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_name])
jvm: Any = sys.modules["jvm"]
bundles_of_the_app: Any = sys.modules["app_bundles"]

ROOT = Path(__file__).parents[2]
LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="session")
def tools() -> Toolchain:
    """Fetched into build/android the first time; the same tools the command line uses."""
    return fetch_toolchain(ROOT / "build" / "android")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_model_folder: Callable[..., Path]) -> Path:
    """A tiny BERT of three labels as the Android app takes it, in int8."""
    folder = tmp_path_factory.mktemp("bundle")
    model = make_model_folder(folder / "model", head_labels=LABELS)
    export(model, "onnx", "int8-dynamic", folder / "artifact")
    write_bundle("tiny", folder / "artifact", model, folder / "whole")
    write_android_bundle(folder / "whole", folder / "android")
    return folder / "android"


@pytest.fixture(scope="session")
def build_words(tools: Toolchain) -> Callable[..., list[str]]:
    """The command line that builds a project's APK, with these tools or those of another folder."""

    def words(project: Path, out: Path, folder: Path = tools.folder.parent) -> list[str]:
        options = {"--project": project, "--out": out, "--tools": folder}
        return ["android", "build", *(str(word) for option in options.items() for word in option)]

    return words


@pytest.fixture(scope="session")
def copy_of_demo(bundle: Path) -> Callable[[Path], Path]:
    """Copies the project, as it is committed, with the bundle in it to a folder, and returns that."""
    demo = ROOT / "android_demo"
    made_there = {demo / name for name in ("build", ".gradle", ".kotlin", "app/build", ASSETS)}

    def copy(folder: Path) -> Path:
        shutil.copytree(
            demo, folder, ignore=lambda at, names: {n for n in names if Path(at, n) in made_there}
        )
        shutil.copytree(bundle, folder / ASSETS)
        return folder

    return copy


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, copy_of_demo: Callable[[Path], Path]) -> Path:
    """The project with the bundle. Tests do not change it."""
    return copy_of_demo(tmp_path_factory.mktemp("demo") / "android_demo")


@pytest.fixture(scope="session")
def app(tools: Toolchain) -> Any:
    """The app's plain Kotlin, compiled, with its tests and the runtime for this machine's JVM (jvm.App)."""
    return jvm.build_app(tools)


@pytest.fixture(scope="session")
def app_bundles(
    tmp_path_factory: pytest.TempPathFactory, make_model_folder: Callable[..., Path]
) -> dict[str, Path]:
    """A tiny bundle of each kind of task and of model file. Tests copy one before changing it."""
    found: dict[str, Path] = bundles_of_the_app.write_bundles(
        tmp_path_factory.mktemp("app-bundles"), make_model_folder
    )
    return found
