"""The interpreter of saved Core ML packages: what it must find, and what it must refuse by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.proto import Model_pb2

from stillroom.errors import CheckFailed, UsageError
from stillroom.export import export
from stillroom.export.coreml_package import load
from stillroom.export.mil_interpreter import interpreter_of, read_program
from stillroom.files import sha256_folder

IDS = np.array([[2, 300, 301, 302, 303, 3]])
MASK = np.array([[1, 1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def packages(model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """scheme -> folder of an artifact."""
    found = {}
    for scheme in ("fp16", "int8-weights"):
        found[scheme] = tmp_path_factory.mktemp("package") / scheme
        export(model_folder("bert"), "coreml", scheme, found[scheme])
    return found


def changed(folder: Path, out: Path, change: Callable[[Any], None]) -> Path:
    """A copy of an artifact folder whose program was changed."""
    copy = Path(shutil.copytree(folder, out))
    path = copy / "model.mlpackage" / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = Model_pb2.Model()
    spec.ParseFromString(path.read_bytes())
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    change(block.operations)
    path.write_bytes(spec.SerializeToString())
    return copy


def weights_of(folder: Path) -> Path:
    return folder / "model.mlpackage" / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def test_one_weight_shows(packages: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(packages["fp16"], tmp_path / "copy"))
    weight = next(  # of the first layer: [64, 64]
        np.asarray(operation.weight.val, np.float16)
        for operation in read_program(copy / "model.mlpackage").operations
        if operation.op_type == "linear"
    )
    other = weight.copy()
    other[0, 0] += 8  # one number of one weight
    content = weights_of(copy).read_bytes()
    assert content.count(weight.tobytes()) == 1
    weights_of(copy).write_bytes(content.replace(weight.tobytes(), other.tobytes()))
    before = load(packages["fp16"], 1)(IDS, MASK)
    assert np.abs(load(copy, 1)(IDS, MASK) - before).max() > 5e-3


def test_a_swapped_input_shows(packages: dict[str, Path], tmp_path: Path) -> None:
    def swap(operations: Any) -> None:
        (one,) = [op for op in operations if op.type == "sub"]  # 1 - mask
        x, y = (one.inputs[name].arguments[0].name for name in ("x", "y"))
        one.inputs["x"].arguments[0].name, one.inputs["y"].arguments[0].name = y, x

    copy = changed(packages["fp16"], tmp_path / "copy", swap)
    before = load(packages["fp16"], 1)(IDS, MASK)
    assert np.abs(load(copy, 1)(IDS, MASK) - before).max() > 5e-3


def test_a_wrong_scale_shows(packages: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(packages["int8-weights"], tmp_path / "copy"))
    scales = next(
        np.asarray(operation.scale.val, np.float16)
        for operation in read_program(copy / "model.mlpackage").operations
        if operation.op_type.startswith("constexpr_") and np.size(operation.scale.val) > 16
    )
    content = weights_of(copy).read_bytes()
    assert content.count(scales.tobytes()) == 1
    weights_of(copy).write_bytes(content.replace(scales.tobytes(), (scales * 2).astype(np.float16).tobytes()))
    before = load(packages["int8-weights"], 1)(IDS, MASK)
    assert np.abs(load(copy, 1)(IDS, MASK) - before).max() > 5e-3


def test_an_unknown_operation_is_refused_by_name(packages: dict[str, Path], tmp_path: Path) -> None:
    def rename(operations: Any) -> None:
        next(op for op in operations if op.type == "tanh").type = "sin"

    copy = changed(packages["fp16"], tmp_path / "copy", rename)
    with pytest.raises(CheckFailed, match=r"operation 'sin' .* is unknown to the interpreter"):
        interpreter_of(copy / "model.mlpackage")


def test_what_is_no_package(tmp_path: Path, packages: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="could not be read as a Core ML program"):
        interpreter_of(tmp_path / "nowhere.mlpackage")
    copy = Path(shutil.copytree(packages["fp16"], tmp_path / "copy"))
    weights_of(copy).unlink()
    with pytest.raises(UsageError, match="could not be read as a Core ML program"):
        interpreter_of(copy / "model.mlpackage")


def test_reading_leaves_the_package_as_it_was(packages: dict[str, Path]) -> None:
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in packages["fp16"].rglob("*") if path.is_file()}

    before = content()
    load(packages["fp16"], 1)(IDS, MASK)
    assert content() == before


def test_the_same_student_gives_the_same_bytes(
    packages: dict[str, Path], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    again = export(model_folder("bert"), "coreml", "int8-weights", tmp_path / "again")
    assert sha256_folder(again.path) == sha256_folder(packages["int8-weights"] / "model.mlpackage")
