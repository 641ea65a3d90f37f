"""What changed between two documents, and what is only noise."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from stillroom.benchmarks.against import Change, changes, not_alike, regressions


def of(found: list[Change], name: str, figure: str) -> Change:
    (one,) = [change for change in found if (change.name, change.figure) == (name, figure)]
    return one


def slower(row: dict[str, Any], factor: float) -> None:
    for entry in row["by_length"]:
        entry["samples_ms"] = [factor * ms for ms in entry["samples_ms"]]


@pytest.fixture
def other(sample_results: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(sample_results)


def test_a_document_beside_itself_has_no_difference(sample_results: dict[str, Any]) -> None:
    found = changes(sample_results, sample_results)
    assert {one.verdict for one in found} == {"no difference"} and regressions(found) == []


def test_a_slower_file_is_worse_and_a_quicker_one_better(
    sample_results: dict[str, Any], other: dict[str, Any]
) -> None:
    slower(sample_results["artifacts"][2], 1.5)
    found = changes(sample_results, other)
    assert of(found, "onnx-int8-dynamic", "p50 at 128, ms").verdict == "worse"
    assert len(regressions(found)) == 3  # one for each length
    assert of(changes(other, sample_results), "onnx-int8-dynamic", "p50 at 128, ms").verdict == "better"


def test_a_difference_within_the_noise_floor_is_none(
    sample_results: dict[str, Any], other: dict[str, Any]
) -> None:
    slower(sample_results["artifacts"][2], 1.5)
    for entry in other["noise"]["by_length"]:
        entry["floor"] = 0.6
    assert regressions(changes(sample_results, other)) == []


def test_size_memory_and_scores_have_their_own_bounds(
    sample_results: dict[str, Any], other: dict[str, Any]
) -> None:
    row = sample_results["artifacts"][2]
    row["size_bytes"] = int(row["size_bytes"] * 1.002)
    row["peak_rss_bytes"] = int(row["peak_rss_bytes"] * 1.02)
    row["scores"]["accuracy"] -= 0.002
    row["flip_rate"] = 0.05
    found = changes(sample_results, other)
    assert of(found, row["name"], "size, MB").verdict == "worse"
    assert of(found, row["name"], "peak RSS, MB").verdict == "no difference"
    assert of(found, row["name"], "accuracy, %").verdict == "no difference"
    assert of(found, row["name"], "flips, %").verdict == "worse"
    row["scores"]["accuracy"] -= 0.05
    assert of(changes(sample_results, other), row["name"], "accuracy, %").verdict == "worse"
    assert of(changes(other, sample_results), row["name"], "accuracy, %").verdict == "better"


def test_other_machines_are_not_compared_in_time(
    sample_results: dict[str, Any], other: dict[str, Any]
) -> None:
    slower(sample_results["artifacts"][2], 9)
    other["machine"]["cpu"] = "another"
    found = changes(sample_results, other)
    assert of(found, "onnx-int8-dynamic", "p50 at 128, ms").verdict == "not compared: other cpu"
    assert regressions(found) == []


def test_a_machine_that_was_slower_itself_is_noticed(
    sample_results: dict[str, Any], other: dict[str, Any]
) -> None:
    assert not_alike(sample_results, other) == ""
    other["limits"]["peaks"]["fp32_operations_per_s"] = [1.5e11]
    assert "peak was 310 GOP/s in A and 150 in B" in not_alike(sample_results, other)


def test_another_version_is_said_and_compared(sample_results: dict[str, Any], other: dict[str, Any]) -> None:
    other["machine"]["versions"]["onnxruntime"] = "0.1"
    found = changes(sample_results, other)
    assert of(found, "onnxruntime", "version").verdict == "other"
    assert of(found, "onnx-fp32", "p50 at 128, ms").verdict == "no difference"


def test_rows_of_one_alone_are_named(sample_results: dict[str, Any], other: dict[str, Any]) -> None:
    del sample_results["artifacts"][2]
    found = changes(sample_results, other)
    assert [one.name for one in regressions(found)] == ["onnx-int8-dynamic"]
    (one,) = [one for one in changes(other, sample_results) if one.verdict == "only in A"]
    assert one.name == "onnx-int8-dynamic"
