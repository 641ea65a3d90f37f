"""Peaks are measured, arithmetic is counted, and a file's share of the limit follows from both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stillroom.benchmarks.limits import beside_limit, machine_peaks, product
from stillroom.benchmarks.profile import profile_file, summary
from stillroom.errors import UsageError


def event(name: str, dur: float, read: list[dict[str, list[int]]], written: dict[str, list[int]]) -> dict:
    args = {"op_name": name, "input_type_shape": read, "output_type_shape": [written]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": args}


def test_arithmetic_and_traffic_by_hand() -> None:
    events = [
        event("MatMul", 30, [{"float": [1, 8, 4]}, {"float": [4, 6]}], {"float": [1, 8, 6]}),
        event("DynamicQuantizeMatMul", 60, [{"float": [1, 8, 4]}, {"int8": [4, 2]}], {"float": [1, 8, 2]}),
        event("Attention", 10, [{"float": [1, 8, 4]}, {"float": [4, 12]}], {"float": [1, 8, 4]}),
        event("Gather", 5, [{"float": [1000, 4]}, {"int64": [1, 8]}], {"float": [1, 8, 4]}),
    ] * 2
    found = summary(events, calls=2)
    assert found["int8_operations"] == 2 * 8 * 2 * 4
    assert found["fp32_operations"] == 2 * 8 * 6 * 4 + (2 * 8 * 4 * 12 + 4 * 8 * 8 * 4)
    gather = 2 * 4 * 32
    assert found["traffic_bytes"] == 4 * (32 + 24 + 48) + (4 * 32 + 8 + 4 * 16) + 4 * (32 + 48 + 32) + gather
    assert found["operators_ms"] == pytest.approx(0.105)
    assert found["top"][0]["operator"] == "DynamicQuantizeMatMul"
    assert sum(row["share"] for row in found["top"]) == pytest.approx(1)


def test_a_real_product_counts_its_own_operations(tmp_path: Path) -> None:
    product((16, 32, 64), "fp32", 1, tmp_path)
    found = profile_file(tmp_path / "fp32-16-32-64.onnx", [np.ones((16, 32), np.float32)], 1)
    assert (found["fp32_operations"], found["int8_operations"]) == (2 * 16 * 32 * 64, 0)
    product((16, 32, 64), "int8", 1, tmp_path)
    found = profile_file(tmp_path / "int8-16-32-64.onnx", [np.ones((16, 32), np.uint8)], 1)
    assert (found["fp32_operations"], found["int8_operations"]) == (0, 2 * 16 * 32 * 64)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(UsageError, match="could not be opened"):
        profile_file(tmp_path / "model.onnx", [], 1)


def test_both_products_are_right(tmp_path: Path) -> None:
    (found,) = product((3, 4, 5), "int8", 1, tmp_path)()
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (4, 5))
    given = random.integers(0, 256, (3, 4))
    assert np.allclose(found, (given - 128) @ weights * 0.02 * 0.01, atol=1e-4)


def test_the_larger_limit_bounds_and_shares_follow() -> None:
    profile = {"fp32_operations": 100, "int8_operations": 400, "traffic_bytes": 50}
    peaks = {"threads": 1, "fp32_operations_per_s": [1e5], "int8_operations_per_s": [4e5, 4e5, 9e9],
             "bandwidth_bytes_per_s": [1e5]}  # fmt: skip
    found = beside_limit(4.0, profile, peaks)
    assert found["compute_limit_ms"] == pytest.approx(2.0) and found["memory_limit_ms"] == pytest.approx(0.5)
    assert found["reached"] == pytest.approx(0.5)
    assert found["peak_int8_fraction"] == found["peak_fp32_fraction"] == pytest.approx(0.25)
    assert found["bandwidth_fraction"] == pytest.approx(0.125)


def test_peaks_have_samples_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.benchmarks.limits.SHAPES", ((8, 8, 8),))
    monkeypatch.setattr("stillroom.benchmarks.limits.COPIED_BYTES", 2**16)
    found = machine_peaks(2)
    assert found.pop("threads") == 2
    assert {len(samples) for samples in found.values()} == {7}
    assert all(value > 0 for samples in found.values() for value in samples)
