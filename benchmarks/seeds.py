"""Runs of one task (of other seeds, say) as one table: means with their spread."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

from stillroom.benchmarks.results import all_rows, metric_of, validate_results
from stillroom.benchmarks.tables import NOT_MEASURED, Table, markdown, number
from stillroom.errors import UsageError
from stillroom.kinds import SCORE_WORDS


class Figure(TypedDict):
    """Of several runs' values: mean, sample standard deviation (None of one value) and their number."""

    mean: float
    deviation: float | None
    n: int


def figure(values: list[float]) -> Figure | None:
    """None of no values."""
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "n": len(values)}


def mean_and_spread(found: Figure | None, decimals: int, scale: float = 1) -> str:
    """ "91.24 ± 0.31 (3)"; one value has no spread, and no value is a dash."""
    if found is None:
        return NOT_MEASURED
    spread = "" if found["deviation"] is None else f" ± {scale * found['deviation']:.{decimals}f}"
    return f"{number(found['mean'], decimals, scale)}{spread} ({found['n']})"


def timed_on(results: dict[str, Any]) -> dict[str, Any]:
    """What two runs must share for their times to be averaged: the machine, its software, the threads."""
    keys = ("cpu", "architecture", "cores", "cpu_flags", "governor", "versions")
    return {**{key: results["machine"][key] for key in keys}, "threads": results["workload"]["threads"]}


def compare_runs(results: list[dict[str, Any]]) -> str:
    """Several finished runs (of other seeds, say) as one Markdown table: mean ± standard deviation (n).

    The deviation is the sample's. A row that some runs lack is averaged over those that have it; n says how
    many. Latencies of different machines or numbers of threads are not averaged: a dash. Raises UsageError
    when a document is not valid, or the runs differ in task or in the length their latency is taken at.
    """
    if not results:
        raise UsageError("no runs to compare")
    for document in results:
        validate_results(document)
    if any(document["task"] != results[0]["task"] for document in results):
        raise UsageError("these runs are of different tasks: compare runs of one task")
    lengths = {max(document["workload"]["lengths"]) for document in results}
    if len(lengths) > 1:
        raise UsageError(
            f"these runs were timed at different longest lengths {sorted(lengths)}: time them alike"
        )
    rows: dict[str, list[dict[str, Any]]] = {}
    for document in results:
        for row in all_rows(document):
            rows.setdefault(row["name"], []).append(row)

    metric = metric_of(results[0])
    timed_alike = all(timed_on(document) == timed_on(results[0]) for document in results)

    def cells(name: str, found: list[dict[str, Any]]) -> tuple[str, ...]:
        timed = [row for row in found if row["latency_ms"] and timed_alike]
        return (
            name,
            mean_and_spread(figure([row["scores"][metric] for row in found]), 2, 100),
            mean_and_spread(figure([row["retention"] for row in found]), 2, 100),
            mean_and_spread(figure([row["flip_rate"] for row in found if row["source"] is not None]), 2, 100),
            mean_and_spread(figure([row["latency_ms"]["p50"] for row in timed]), 2),
            mean_and_spread(figure([row["size_bytes"] for row in found]), 1, 1e-6),
        )

    header = (
        "name",
        f"{SCORE_WORDS[metric][0]}, %",
        "retention, %",
        "flips, %",
        f"p50 at {lengths.pop()}, ms",
        "size, MB",
    )
    return markdown(Table(header, tuple(cells(name, found) for name, found in rows.items()), 1))
