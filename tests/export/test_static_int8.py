"""Static int8: integers by hand, torch's simulation against onnxruntime's, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillroom.errors import UsageError
from stillroom.export.calibration import measured_ranges
from stillroom.export.encoder import ExportModel
from stillroom.export.int8_embedding import Int8Embedding
from stillroom.export.options import ExportOptions
from stillroom.export.static_int8 import (
    Numerics,
    StaticLinear,
    in_static_int8,
    scale_and_zero,
    use_static_int8,
)
from stillroom.export.targets import export, load_predictor
from stillroom.observe import calibration_of, linear_maps, ranges_by, seen_values
from stillroom.ranges import LinearRanges, ranges_to_dict
from stillroom.step_data import encode_for
from stillroom.student import load_model, load_student, save_student
from stillroom.text import Row
from stillroom.tokens import Tokens, padded_inputs

RANGES = LinearRanges((-1.5, 3.0), (-4.0, 4.0))
NUMERICS = [
    Numerics(),
    Numerics(flat=True),
    Numerics(signed=True, outputs=True),
    Numerics(weight_steps=63, flat=True),
]


def linear(inputs: int = 16, outputs: int = 8) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs)


def by_hand(map_: nn.Linear, states: np.ndarray, numerics: Numerics) -> np.ndarray:
    """The same in plain integers: products of integers, summed exactly, scaled once at the end."""
    weight, bias = map_.weight.detach().numpy().astype(np.float64), map_.bias.detach().numpy()
    scales = np.abs(weight).max(axis=1).astype(np.float32).astype(np.float64) / numerics.weight_steps
    rows = np.round(weight / scales[:, None])
    low, high = (-128, 127) if numerics.signed else (0, 255)

    def steps(values: np.ndarray, ends: tuple[float, float]) -> tuple[np.ndarray, float, int]:
        scale, zero = scale_and_zero(ends, numerics.signed)
        return np.clip(np.round(values / scale) + zero, low, high) - zero, scale, zero

    inputs, scale, _ = steps(states, RANGES.input)
    if numerics.flat:
        bias = np.round(bias / (scales * scale)) * (scales * scale)
    found = inputs @ rows.T * scales * scale + bias
    if numerics.outputs:
        rounded, output_scale, _ = steps(found, RANGES.output)
        found = rounded * output_scale
    return np.asarray(found)


@pytest.mark.parametrize("numerics", NUMERICS, ids=str)
def test_integers_by_hand(numerics: Numerics) -> None:
    states = np.random.default_rng(0).normal(0, 1.5, (2, 5, 16)).astype(np.float32)
    with torch.no_grad():
        found = StaticLinear(linear(), RANGES, numerics)(torch.from_numpy(states)).numpy()
    wanted = by_hand(linear(), states, numerics)
    # One step of an output, where fp32 and float64 fall on different sides of a half.
    step = scale_and_zero(RANGES.output, signed=True)[0] if numerics.outputs else 0.0
    difference = np.abs(found - wanted)
    assert found.shape == (2, 5, 8) and difference.max() < 1.01 * step + 1e-4
    assert (difference > 1e-4).mean() < 0.03


@given(st.floats(-100, 100), st.floats(-100, 100), st.booleans())
def test_zero_is_one_of_the_steps(one: float, other: float, signed: bool) -> None:
    scale, zero = scale_and_zero((min(one, other), max(one, other)), signed)
    least = -128 if signed else 0
    assert scale > 0 and least <= zero <= least + 255


def test_weights_use_all_steps_and_no_more() -> None:
    for steps in (127, 63):
        rows = StaticLinear(linear(), RANGES, Numerics(weight_steps=steps)).rows
        assert rows.abs().amax(dim=1).tolist() == [steps] * 8


def test_a_bias_beside_tiny_weights_fits_its_32_bits() -> None:
    map_ = linear()
    with torch.no_grad():
        map_.weight[3] = 1e-9
        map_.weight[4] = 0.0
        map_.bias[3:5] = 5.0
    found = StaticLinear(map_, RANGES, Numerics(flat=True))
    with torch.no_grad():
        answers = found(torch.zeros(1, 16))[0]
    assert answers[3:5].tolist() == pytest.approx([5.0, 5.0], abs=1e-4)
    assert int(found.bias.abs().max()) < 2**31 - 1


def rows_of(texts: tuple[str, ...]) -> list[Row]:
    return [Row(text, None, "", 1.0, str(at)) for at, text in enumerate(texts)]


def wrapped_of(folder: Path) -> ExportModel:
    task = load_student(folder).task
    return ExportModel(load_model(folder), task.inputs, task.max_length)


def tokens_of(folder: Path, texts: tuple[str, ...]) -> Tokens:
    return encode_for(folder, load_student(folder).task, rows_of(texts))


def static_graph(folder: Path, texts: tuple[str, ...], out: Path) -> Any:
    """The ONNX graph of a folder in int8-static, its ranges those of the texts."""
    calibration = calibration_of(tokens_of(folder, texts), load_student(folder).task.inputs)
    made = export(folder, "onnx", "int8-static", out, ExportOptions(calibration=calibration))
    return onnx.load(made.path).graph


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_the_simulation_is_what_onnxruntime_computes(
    family: str, model_folder: Callable[..., Path], texts: tuple[str, ...], tmp_path: Path
) -> None:
    folder = model_folder(family)
    tokens, task = tokens_of(folder, texts), load_student(folder).task
    batches = calibration_of(tokens, task.inputs)
    options = ExportOptions(calibration=batches, ranges="minmax")
    export(folder, "onnx", "int8-static", tmp_path / "made", options)
    predict, wrapped = load_predictor("onnx", tmp_path / "made", 1), wrapped_of(folder)
    numerics = Numerics(flat=True)
    use_static_int8(wrapped, measured_ranges(wrapped, options, numerics), numerics)
    wrapped.words = Int8Embedding(wrapped.words.weight)
    simulated, run, source = [], [], []
    plain = wrapped_of(folder)
    for row in range(len(texts)):
        inputs = list(padded_inputs(tokens, [row], task.inputs).values())
        run.append(predict(*inputs))
        with torch.no_grad():
            given_ = [torch.from_numpy(array) for array in inputs]
            simulated.append(wrapped(*given_).numpy())
            source.append(plain(*given_).numpy())
    moved = (np.concatenate(simulated) - np.concatenate(source)).ravel()
    of_file = (np.concatenate(run) - np.concatenate(source)).ravel()
    assert np.abs(moved).max() > 1e-3, "rounding to 8 bits changes something"
    # Not the same to the last digit: a value halfway between two steps goes either way in other precision.
    assert np.corrcoef(moved, of_file)[0, 1] > 0.9, "and the file changes it alike"


def test_onnx_holds_integers_and_no_fp32_weight(
    model_folder: Callable[..., Path], texts: tuple[str, ...], tmp_path: Path
) -> None:
    graph = static_graph(model_folder("bert"), texts, tmp_path / "made")
    by_name = {value.name: value for value in graph.initializer}
    maps = [node for node in graph.node if node.op_type == "Gemm"]
    producers = {name: node for node in graph.node for name in node.output}
    assert (
        len(maps) == len(linear_maps(wrapped_of(model_folder("bert"))))
        and not producers.keys() & by_name.keys()
    )
    for node in maps:
        activation, weight, bias = (producers[name] for name in node.input)
        assert {activation.op_type, weight.op_type, bias.op_type} == {"DequantizeLinear"}
        assert by_name[weight.input[0]].data_type == onnx.TensorProto.INT8
        assert by_name[bias.input[0]].data_type == onnx.TensorProto.INT32
        rounded = producers[activation.input[0]]
        assert rounded.op_type == "QuantizeLinear"
        assert by_name[rounded.input[2]].data_type == onnx.TensorProto.UINT8
    assert not any(node.op_type == "MatMul" for node in graph.node)


def test_the_residual_stream_is_not_rounded(
    model_folder: Callable[..., Path], texts: tuple[str, ...], tmp_path: Path
) -> None:
    """onnxruntime's own tool rounds every use of a tensor, also where it is only added on."""
    graph = static_graph(model_folder("bert"), texts, tmp_path / "made")
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    sums = [node for node in graph.node if node.op_type == "Sum"]
    assert len(sums) >= 5 and not any(name in rounded for node in sums for name in node.input)


def test_what_a_context_rounds_it_restores(model_folder: Callable[..., Path], texts: tuple[str, ...]) -> None:
    folder = model_folder("bert")
    wrapped, tokens = wrapped_of(folder), tokens_of(folder, texts)
    before = linear_maps(wrapped)
    ranges = ranges_by(
        seen_values(wrapped, calibration_of(tokens, ("input_ids", "attention_mask"))), "mse", "mse"
    )
    some = {name: ranges[name] for name in ("layers.0.up", "layers.1.down")}
    with pytest.raises(ZeroDivisionError), in_static_int8(wrapped, some, Numerics()):
        changed = {name for name, map_ in before.items() if wrapped.get_submodule(name) is not map_}
        assert changed == set(some)
        raise ZeroDivisionError
    assert linear_maps(wrapped) == before


def test_the_best_rule_is_the_best(model_folder: Callable[..., Path], texts: tuple[str, ...]) -> None:
    folder = model_folder("bert")
    wrapped, tokens = wrapped_of(folder), tokens_of(folder, texts)
    batches = calibration_of(tokens, ("input_ids", "attention_mask"))
    inputs = [[torch.from_numpy(array) for array in batch] for batch in batches]

    def error(rule: str) -> float:
        numerics = Numerics()
        ranges = measured_ranges(wrapped, ExportOptions(calibration=batches, ranges=rule), numerics)
        with torch.no_grad():
            wanted = [wrapped(*batch) for batch in inputs]
            with in_static_int8(wrapped, ranges, numerics):
                found = [wrapped(*batch) for batch in inputs]
        return float(sum(((a - b) ** 2).sum() for a, b in zip(wanted, found, strict=True)))

    errors = {rule: error(rule) for rule in ("minmax", "moving-average", "percentile", "entropy", "mse")}
    assert error("best") <= 1.0001 * min(errors.values())  # of these rules, or better still: equalise.py
    assert max(errors.values()) > 1.2 * min(errors.values()), "the rules differ on this model"


def with_lineage(folder: Path, out: Path, lineage: dict[str, Any]) -> Path:
    source = load_student(folder)
    out.mkdir()
    tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
    save_student(out, load_model(folder), tokenizer_json, source.task, lineage)
    return out


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_ranges_learned_in_training_are_used(
    family: str, model_folder: Callable[..., Path], texts: tuple[str, ...], tmp_path: Path
) -> None:
    folder, options = model_folder(family), ExportOptions(ranges="mse")
    model, tokens = load_model(folder), tokens_of(folder, texts)
    seen = seen_values(model, calibration_of(tokens, ("input_ids", "attention_mask")))
    learned = {name: LinearRanges((-0.125, 0.5), (-1.0, 1.0)) for name in seen}
    source = with_lineage(folder, tmp_path / "model", {"ranges": ranges_to_dict(learned)})
    made = export(source, "onnx", "int8-static", tmp_path / "made", options)
    graph = onnx.load(made.path).graph
    by_name = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    scales = {float(by_name[node.input[1]]) for node in graph.node if node.op_type == "QuantizeLinear"}
    assert [*scales] == pytest.approx([0.625 / 255])
    own = ExportOptions(calibration=calibration_of(tokens, ("input_ids", "attention_mask")))
    measured = export(source, "onnx", "int8-static", tmp_path / "own", own)
    assert measured.sha256 != made.sha256, "calibration text that is given goes before what was learned"


def test_learned_ranges_of_another_model(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    learned = {"bert.encoder.layer.0.attention.self.query": LinearRanges((0.0, 1.0), (0.0, 1.0))}
    source = with_lineage(model_folder("bert"), tmp_path / "model", {"ranges": ranges_to_dict(learned)})
    with pytest.raises(UsageError, match="has learned no range for"):
        export(source, "onnx", "int8-static", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_no_calibration_text(model_folder: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="--calibration FILE"):
        measured_ranges(wrapped_of(model_folder("bert")), ExportOptions(), Numerics())


@pytest.mark.parametrize("scheme", ["int8-static", "int8-dynamic"])
def test_portable_weights_have_seven_bits(
    scheme: str, model_folder: Callable[..., Path], texts: tuple[str, ...], tmp_path: Path
) -> None:
    folder = model_folder("bert")
    calibration = calibration_of(tokens_of(folder, texts), load_student(folder).task.inputs)
    largest = {}
    for portable in (False, True):
        options = ExportOptions(calibration=calibration, ranges="minmax", portable=portable)
        made = export(folder, "onnx", scheme, tmp_path / str(portable), options)
        found = [onnx.numpy_helper.to_array(value) for value in onnx.load(made.path).graph.initializer]
        maps = [array for array in found if array.dtype == np.int8 and array.ndim == 2 and len(array) < 1000]
        largest[portable] = max(int(np.abs(array.astype(int)).max()) for array in maps)
    assert largest[False] in (127, 128) and largest[True] <= 64
