"""Weights rounded by our own hand: on their grid, and in every file exactly as they were chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillroom.distill.fake_quantization import fake_int4, rounded_blocks
from stillroom.errors import UsageError
from stillroom.export import export, rounding
from stillroom.export.encoder import ExportModel
from stillroom.export.onnx_int4 import pack
from stillroom.export.options import ExportOptions
from stillroom.export.rounding import (
    WORDS,
    block_grid,
    groups_of,
    palette_grid,
    palette_of,
    round_to_blocks,
    round_to_palettes,
)
from stillroom.int4 import best_scales
from stillroom.observe import calibration_of, linear_maps
from stillroom.scheme import INT4_BLOCK
from stillroom.step_data import encode_for
from stillroom.student import load_model, load_student
from stillroom.text import Row

weights = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.sampled_from([32, 96])), elements=st.floats(-2, 2, width=32)
)


@pytest.fixture(scope="module")
def folder(model_folder: Callable[..., Path]) -> Path:
    return model_folder("bert", labels=("a", "b", "c"))


@pytest.fixture(scope="module")
def options(folder: Path, texts: tuple[str, ...]) -> ExportOptions:
    task = load_student(folder).task
    tokens = encode_for(folder, task, [Row(text, None, "") for text in texts])
    return ExportOptions(calibration=calibration_of(tokens, task.inputs))


def opened(folder: Path) -> ExportModel:
    task = load_student(folder).task
    return ExportModel(load_model(folder), task.inputs, task.max_length)


@given(hnp.arrays(np.int8, (3, 8), elements=st.integers(-8, 7)), st.sampled_from([0, 8]))
def test_two_steps_a_byte(steps: np.ndarray, zero: int) -> None:
    packed = pack(steps, zero)
    found = np.empty_like(steps)
    for row in range(3):
        for column in range(8):
            bits = packed[row, column // 2] >> 4 * (column % 2) & 0xF
            found[row, column] = int(bits) - 8 if zero else (int(bits) ^ 8) - 8
    assert np.array_equal(found, steps)


@settings(deadline=None)
@given(weights)
def test_palettes_hold_the_nearest_of_their_values(weight: np.ndarray) -> None:
    palette = palette_of(torch.from_numpy(weight), 16, torch.ones(weight.shape))
    assert torch.equal(palette, palette.half().float()) and (palette.diff() >= 0).all()
    near = palette_grid(palette)(torch.arange(1))(torch.from_numpy(weight), 0).numpy()
    distances = np.abs(weight[..., None] - palette.numpy()).min(axis=-1)
    assert np.allclose(np.abs(near - weight), distances, atol=1e-6)
    assert weight.min() - 1e-2 <= palette.min() and palette.max() <= weight.max() + 1e-2


def test_blocks_are_rounded_in_place_to_what_is_returned(folder: Path, options: ExportOptions) -> None:
    before, wrapped = opened(folder), opened(folder)
    names = [WORDS, *linear_maps(wrapped)]
    found = round_to_blocks(wrapped, options, names, signed=False)
    assert set(found) == set(names)
    for name, one in found.items():
        weight, source = (model.get_submodule(name).weight for model in (wrapped, before))
        assert one.steps.dtype == torch.int8 and -8 <= int(one.steps.min()) <= int(one.steps.max()) <= 7
        wanted = one.steps.numpy().reshape(len(weight), -1, INT4_BLOCK) * one.scales.numpy()[..., None]
        assert np.array_equal(weight.numpy(), wanted.reshape(weight.shape))
        # a weight moves to make up for others, and stays near what it was
        assert 0.9 < np.corrcoef(weight.numpy().ravel(), source.detach().numpy().ravel())[0, 1] < 1


def test_what_was_trained_in_4_bits_stays_as_it_is(folder: Path, options: ExportOptions) -> None:
    wrapped = opened(folder)
    names = [WORDS, *linear_maps(wrapped)]
    with fake_int4(wrapped.get_submodule("layers")):
        pass
    words = wrapped.words.weight
    with torch.no_grad():
        words.copy_(rounded_blocks(words, best_scales(words, signed=False)))
    before = {name: value.clone() for name, value in wrapped.state_dict().items()}
    names = [name for name in names if "layers" in name or name == WORDS]
    found = round_to_blocks(wrapped, options, names, signed=True)
    assert len(found) > 6
    assert all(torch.equal(value, before[name]) for name, value in wrapped.state_dict().items())


def test_memory_is_bounded_by_groups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = opened(folder)
    names = [WORDS, *linear_maps(wrapped)]
    assert groups_of(wrapped, names) == [names]
    monkeypatch.setattr(rounding, "CURVATURE_BYTES", 1)
    assert groups_of(wrapped, names) == [[name] for name in names]


def rounded_as_in(folder: Path, options: ExportOptions, names: list[str], signed: bool) -> Any:
    return round_to_blocks(opened(folder), options, names, signed)


def test_onnx_stores_them_exactly(folder: Path, options: ExportOptions, tmp_path: Path) -> None:
    """The file's tensors taken apart by plain numpy, against what was chosen."""
    made = export(folder, "onnx", "int4", tmp_path / "int4", options)
    names = [WORDS, *(name for name in linear_maps(opened(folder)) if name.startswith("layers."))]
    wanted = {name: one.values().numpy() for name, one in rounded_as_in(folder, options, names, True).items()}
    graph = onnx.load(made.path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            packed, scales = (onnx.numpy_helper.to_array(tensors[node.input[at]]) for at in (1, 2))
            steps = np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(*packed.shape[:2], INT4_BLOCK)
            values = (steps.astype(np.float32) - 8) * scales.reshape(len(packed), -1, 1)
        elif node.op_type == "GatherBlockQuantized":
            table, scales = (onnx.numpy_helper.to_array(tensors[node.input[at]]) for at in (0, 2))
            values = table.astype(np.float32).reshape(len(table), -1, INT4_BLOCK) * scales[..., None]
        else:
            continue
        found.append(values.reshape(len(values), -1))
    assert len(found) == len(names)
    for name, values in wanted.items():
        assert any(other.shape == values.shape and np.array_equal(other, values) for other in found), name


@pytest.mark.parametrize("scheme", ["int4", "palette4"])
def test_core_ml_stores_them_exactly(
    scheme: str, folder: Path, options: ExportOptions, tmp_path: Path
) -> None:
    """coremltools' own decompression of the saved package, against what was chosen, in fp16."""
    from stillroom.export.mil_interpreter import read_program

    made = export(folder, "coreml", scheme, tmp_path / scheme, options)
    wrapped = opened(folder)
    names = [WORDS, *linear_maps(wrapped)]
    plain = export(folder, "coreml", scheme, tmp_path / "plain", ExportOptions(rounding="nearest"))
    assert made.size_bytes < 1.1 * plain.size_bytes  # no table is longer than it was
    if scheme == "int4":
        round_to_blocks(wrapped, options, names, signed=False)
    else:
        round_to_palettes(wrapped, options, names, 16)
    found = [
        np.asarray(operation.materialized_val_inference())
        for operation in read_program(made.path).operations
        if operation.op_type.startswith("constexpr_")
    ]
    for name in names:
        values = wrapped.get_submodule(name).weight.detach().numpy()
        if values.size < 512:
            continue
        alike = [other for other in found if other.shape == values.shape]
        assert any(np.array_equal(other.astype(np.float16), values.astype(np.float16)) for other in alike), (
            name
        )


def test_executorch_stores_them_exactly(folder: Path, options: ExportOptions, tmp_path: Path) -> None:
    """What the program answers, against torch with the weights that were chosen and activations in 8 bits.

    Its packed weights cannot be read back; a weight of one layer rounded otherwise is seen in the answers.
    """
    from stillroom.export.int8_embedding import Int8Embedding
    from stillroom.export.targets import open_artifact

    made = export(folder, "executorch", "int4", tmp_path / "int4", options)
    wrapped = opened(folder)
    round_to_blocks(wrapped, options, list(linear_maps(wrapped)), signed=False)
    wrapped.words = Int8Embedding(wrapped.words.weight)  # type: ignore[assignment]
    nearest = export(folder, "executorch", "int4", tmp_path / "nearest", ExportOptions(rounding="nearest"))

    def in_8_bits(module: Any, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
        low = given[0].amin(dim=-1, keepdim=True).clamp(max=0)
        scale = ((given[0].amax(dim=-1, keepdim=True).clamp(min=0) - low) / 255).clamp(min=1e-12)
        zero = torch.round(-low / scale)
        return (torch.clamp(torch.round(given[0] / scale) + zero, 0, 255) - zero) * scale

    for module in linear_maps(wrapped).values():
        module.register_forward_pre_hook(in_8_bits)
    errors = []
    with torch.inference_mode():
        for artifact in (made, nearest):
            predict = open_artifact(artifact, 1)
            pairs = [
                (predict(*(array[:1] for array in batch)), wrapped(*(torch.from_numpy(a[:1]) for a in batch)))
                for batch in options.calibration
            ]
            errors.append(np.mean([np.square(got - wanted.numpy()).mean() for got, wanted in pairs]))
    assert errors[0] < errors[1] / 8


def test_what_cannot_be_done_is_said(folder: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(UsageError, match="--calibration FILE"):
        export(folder, "onnx", "int4", tmp_path / "a", ExportOptions(rounding="gptq"))
    export(folder, "onnx", "int4", tmp_path / "b")
    assert "rounded to nearest" in capsys.readouterr().err


def test_nearest_is_nearest_whatever_text_there_is(
    folder: Path, options: ExportOptions, tmp_path: Path
) -> None:
    from dataclasses import replace

    plain = export(folder, "onnx", "int4", tmp_path / "plain", ExportOptions(rounding="nearest"))
    asked = export(folder, "onnx", "int4", tmp_path / "asked", replace(options, rounding="nearest"))
    better = export(folder, "onnx", "int4", tmp_path / "better", options)
    again = export(folder, "onnx", "int4", tmp_path / "again", options)
    assert plain.sha256 == asked.sha256 != better.sha256 == again.sha256
    assert better.size_bytes == pytest.approx(plain.size_bytes, rel=1e-3)


def test_a_grid_rounds_to_its_own_block() -> None:
    scales = torch.tensor([[0.5, -1.0], [2.0, 4.0]])
    to_grid = block_grid(scales)(torch.tensor([1, 0]))
    assert to_grid(torch.tensor([3.2, 3.2]), 0).tolist() == [4.0, 3.0]
    assert to_grid(torch.tensor([100.0, 100.0]), INT4_BLOCK).tolist() == [28.0, 8.0]
