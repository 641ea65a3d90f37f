"""A bundle in the form of the Android app: the same model, tokens and goldens, and nothing it cannot run."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stillroom.artifact import Artifact
from stillroom.cli import main
from stillroom.errors import UsageError
from stillroom.export.android.bundle import ASSETS, read_assets, write_android_bundle
from stillroom.export.bundle import load_bundle, replay_goldens, write_bundle
from stillroom.export.targets import export
from stillroom.files import sha256_folder


@pytest.fixture(scope="module")
def run(
    exported: Callable[..., Artifact],
    model_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder as a run leaves it."""
    folder = tmp_path_factory.mktemp("run") / "demo"
    shutil.copytree(model_folder("bert"), folder / "student")
    for scheme in ("int8-dynamic", "fp32"):
        shutil.copytree(exported("bert", scheme).folder, folder / "artifacts" / f"onnx-{scheme}")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What is looked at to know the Android project."""
    (tmp_path / "app/app/src/main").mkdir(parents=True)
    (tmp_path / "app/app/src/main/AndroidManifest.xml").write_text("<manifest/>")
    return tmp_path / "app"


def test_the_command_puts_it_into_the_project(
    run: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", str(run), "--for", "android", "--into", str(project)]) == 0
    assert "32 golden vectors replayed" in capsys.readouterr().out
    manifest = read_assets(project)
    names = {path.name for path in (project / ASSETS).iterdir()}
    assert names == {"manifest.json", "model.onnx", "vocab.txt", "labels.txt", "golden.json"}
    assert {entry["file"] for entry in manifest["files"]} == names - {"manifest.json"}
    assert manifest["tokenizer"]["wordpiece"]["lowercase"] is True
    bundle = load_bundle(project / ASSETS)  # tokenized by vocab.txt and the settings
    assert replay_goldens(bundle) == 0
    before = sha256_folder(project / ASSETS)
    assert main(["bundle", str(run), "--for", "android", "--into", str(project)]) == 0
    assert sha256_folder(project / ASSETS) == before
    assert list((project / ASSETS).parent.iterdir()) == [project / ASSETS]


def test_a_zip_for_the_document_picker_holds_the_same_files(run: Path, tmp_path: Path) -> None:
    arguments = ["bundle", str(run), "--for", "android", "--artifact", "onnx-fp32", "--out"]
    assert main([*arguments, str(tmp_path / "mine.zip")]) == 0
    assert main([*arguments, str(tmp_path / "mine")]) == 0
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        assert archive.getinfo("model.onnx").compress_type == zipfile.ZIP_STORED
        archive.extractall(tmp_path / "read")
    assert sha256_folder(tmp_path / "read") == sha256_folder(tmp_path / "mine")


def test_a_tokenizer_that_the_app_has_not_is_refused_here_and_nothing_is_touched(
    exported: Callable[..., Artifact], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    write_bundle(
        "unigram",
        exported("xlm-roberta", "int8-dynamic").folder,
        model_folder("xlm-roberta"),
        tmp_path / "whole",
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="its model is Unigram, the app has WordPiece only"):
        write_android_bundle(tmp_path / "whole", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "out"} and not list(
        (tmp_path / "out").iterdir()
    )


def test_a_file_that_the_app_has_no_runtime_for_is_refused(
    model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    artifact = export(model_folder("bert"), "torchscript", "fp32", tmp_path / "torchscript-fp32")
    write_bundle("torch", artifact.folder, model_folder("bert"), tmp_path / "bundle")
    with pytest.raises(UsageError, match="runs files of onnx, ort, executorch, not of torchscript"):
        write_android_bundle(tmp_path / "bundle", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--for", "android"], "give either --out FOLDER or, with --for android, --into PROJECT"),
        (["--out", "a", "--into", "b"], "give either --out FOLDER"),
        (["--into", "b"], "--into b needs --for android"),
        (["--for", "android", "--into", "nowhere"], "nowhere is not the Android project"),
        (["--artifact", "coreml", "--out", "a"], "has no artifact coreml: there are onnx-fp32"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    run: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_assets_that_are_none_name_the_next_command(project: Path, run: Path) -> None:
    command = f"stillroom bundle RUN --for android --into {project}"
    with pytest.raises(UsageError, match="has no bundle") as caught:
        read_assets(project)
    assert command in str(caught.value)
    artifact, student = run / "artifacts/onnx-fp32", run / "student"
    write_bundle("desktop", artifact, student, project / ASSETS)
    with pytest.raises(UsageError, match="is not in the app's form") as caught:
        read_assets(project)
    assert command in str(caught.value)
    manifest = json.loads((project / ASSETS / "manifest.json").read_text("utf-8"))
    manifest["tokenizer"] = {"file": "vocab.txt", "kind": "WordPiece"}  # without the settings
    (project / ASSETS / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="'wordpiece' is a required property"):
        read_assets(project)
