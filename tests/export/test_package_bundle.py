"""A bundle whose model is a folder, a Core ML package: every file of it is listed, and none that is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stillroom.errors import StillroomError
from stillroom.export import export
from stillroom.export.bundle import check_bundle, load_bundle, replay_goldens, write_bundle
from stillroom.export.options import ExportOptions
from stillroom.export.targets import TARGETS
from stillroom.step_verify import verify_bundle


@pytest.fixture(scope="module")
def whole(model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coreml")
    artifact = export(
        model_folder("bert"), "coreml", "int8-weights", folder / "artifact", ExportOptions((24, 80))
    )
    write_bundle("test", artifact.folder, model_folder("bert"), folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def package_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "model.mlpackage").rglob("*") if path.is_file())


def test_it_opens_answers_and_says_how_it_was_proved(whole: Path) -> None:
    manifest = check_bundle(whole)
    listed = {entry["file"] for entry in manifest["files"]}
    assert {path.relative_to(whole).as_posix() for path in package_files(whole)} <= listed
    assert "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin" in listed
    (artifact,) = manifest["artifacts"]
    assert artifact["proof"] == TARGETS["coreml"].proof and artifact["lengths"] == [24, 80]
    opened = load_bundle(whole)
    assert opened("the crew was wonderful").label in opened.task.labels
    assert replay_goldens(opened) == 0.0
    table, facts = verify_bundle(whole)
    cases = [case["name"] for case in facts["coreml-int8-weights"]["cases"]]
    assert cases == ["sample, unpadded", "cut or padded to 80 tokens", "with token_type_ids",
                     "padded against unpadded"]  # fmt: skip
    assert all(case["passed"] for case in facts["coreml-int8-weights"]["cases"])
    assert "interpreted on Linux, not run on Apple hardware" in table


@pytest.mark.parametrize("part", range(3))
def test_a_changed_file_of_the_package_is_refused(bundle: Path, part: int) -> None:
    path = package_files(bundle)[part]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StillroomError, match="it was changed"):
        load_bundle(bundle)


def test_a_file_too_many_or_too_few_is_refused(bundle: Path) -> None:
    extra = bundle / "model.mlpackage" / "Data" / "more.bin"
    extra.write_bytes(b"more")
    with pytest.raises(StillroomError, match=r"does not list model.mlpackage/Data/more.bin"):
        load_bundle(bundle)
    extra.unlink()
    assert check_bundle(bundle)
    package_files(bundle)[0].unlink()
    with pytest.raises(StillroomError, match="is missing"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "name", ["model.mlpackage/../../escape", "model.mlpackage//x", "/etc/passwd", "model.mlpackage/.hidden"]
)
def test_a_path_that_leads_elsewhere_is_refused(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["files"][-1]["file"] = name
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(StillroomError, match=r"manifest\.json is not valid at"):
        load_bundle(bundle)


def test_a_link_in_the_package_is_refused(bundle: Path, tmp_path: Path) -> None:
    weights = next(path for path in package_files(bundle) if path.name == "weight.bin")
    weights.rename(tmp_path / "elsewhere.bin")
    weights.symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(StillroomError):
        load_bundle(bundle)
