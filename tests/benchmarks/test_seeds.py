"""Runs of one task as one table."""

from __future__ import annotations

import copy
import statistics
from typing import Any

import pytest

from stillroom.benchmarks.seeds import compare_runs, figure, mean_and_spread
from stillroom.errors import UsageError


def test_several_runs_give_mean_and_sample_deviation(sample_results: dict[str, Any]) -> None:
    runs = [copy.deepcopy(sample_results) for _ in range(3)]
    accuracies = [0.90, 0.92, 0.93]
    for run, accuracy in zip(runs, accuracies, strict=True):
        run["models"][2]["scores"]["accuracy"] = accuracy
    del runs[0]["artifacts"][2]
    lines = {line.split(" | ")[0].strip("| "): line for line in compare_runs(runs).splitlines()}
    deviation = statistics.stdev(100 * accuracy for accuracy in accuracies)
    assert f"| {statistics.mean(accuracies) * 100:.2f} ± {deviation:.2f} (3) |" in lines["student"]
    assert "17.5 ± 0.0 (2)" in lines["onnx-int8-dynamic"]
    assert "– |" in lines["teacher"]  # it has no source to flip from


def test_runs_that_cannot_be_compared_are_refused(sample_results: dict[str, Any]) -> None:
    other = copy.deepcopy(sample_results)
    other["task"]["labels"] = ["a", "b"]
    with pytest.raises(UsageError, match="different tasks"):
        compare_runs([sample_results, other])
    with pytest.raises(UsageError, match="no runs"):
        compare_runs([])
    shorter = copy.deepcopy(sample_results)
    shorter["workload"]["lengths"] = [16, 64]
    for row in [*shorter["models"], *shorter["artifacts"]]:
        row["by_length"].pop()
        row.update(row["by_length"][-1])
    with pytest.raises(UsageError, match=r"lengths \[64, 128\]"):
        compare_runs([sample_results, shorter])


def test_figures_in_words() -> None:
    assert figure([]) is None and mean_and_spread(None, 1) == "–"
    assert figure([3.0]) == {"mean": 3.0, "deviation": None, "n": 1}
    assert mean_and_spread(figure([3.0]), 1) == "3.0 (1)"
    assert figure([1.0, 3.0]) == {"mean": 2.0, "deviation": pytest.approx(2**0.5), "n": 2}
    assert mean_and_spread(figure([0.01, 0.03]), 2, 100) == "2.00 ± 1.41 (2)"


def test_latencies_of_different_machines_are_not_averaged(sample_results: dict[str, Any]) -> None:
    other = copy.deepcopy(sample_results)
    assert "– |" not in compare_runs([sample_results, other]).splitlines()[-1]
    other["machine"]["cpu"] = "another"
    assert compare_runs([sample_results, other]).splitlines()[-1].endswith("| – | 17.5 ± 0.0 (2) |")
