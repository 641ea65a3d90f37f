"""What a run came to, in sentences and in four figures, with the uncertainty of the speed-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.benchmarks.noise import floor_at
from stillroom.benchmarks.results import metric_of
from stillroom.benchmarks.statistics import (
    NO_DIFFERENCE,
    Ratio,
    Samples,
    by_process,
    ratio_of_medians,
    verdict,
)
from stillroom.kinds import SCORE_WORDS

# What flips, by the score that counts; a score flips where it moves by a tenth of the scores' spread.
ANSWER_WORDS = {"accuracy": "label", "micro_f1": "set of labels", "pearson": "score"}
TARGET_NAMES = {"onnx": "ONNX", "torch": "torch"}


@dataclass(frozen=True)
class Tile:
    """One figure at the top of the report: the value, what it is, and what it is made of."""

    value: str
    label: str
    detail: str


def reference_row(results: dict[str, Any]) -> dict[str, Any]:
    """The row others are held against: the teacher's fp32 file, so that a mere change of runtime is not
    counted as a gain; where there is none, the teacher as trained."""
    rows = [row for row in [*results["artifacts"], *results["models"]] if row["role"] == "teacher"]
    return next((row for row in rows if row["scheme"] == "fp32" and row["latency_ms"]), rows[-1])


def best_row(results: dict[str, Any]) -> dict[str, Any]:
    """The student's fastest file, or its smallest where none was timed; without files, the last model."""
    rows = [row for row in results["artifacts"] if row["role"] == "student"]
    timed = [row for row in rows if row["latency_ms"]]
    if timed:
        return min(timed, key=lambda row: (row["latency_ms"]["p50"], row["size_bytes"]))
    return min(rows, key=lambda row: row["size_bytes"]) if rows else results["models"][-1]


def p50_ratio(above: dict[str, Any], below: dict[str, Any], length: int) -> Ratio:
    """Median latency of one row over another's at a length both were timed at."""
    return ratio_of_medians(samples_at(above, length), samples_at(below, length))


def samples_at(row: dict[str, Any], length: int) -> Samples:
    """A row's samples at a length it was timed at, in milliseconds, [processes, calls]."""
    samples = next(entry["samples_ms"] for entry in row["by_length"] if entry["length"] == length)
    return by_process(samples, len(row["load_samples_ms"] or [None]))


def common_lengths(first: dict[str, Any], second: dict[str, Any]) -> list[int]:
    """Lengths both rows were timed at, longest first."""
    lengths = [{entry["length"] for entry in row["by_length"]} for row in (first, second)]
    return sorted(lengths[0] & lengths[1], reverse=True)


def headline(results: dict[str, Any]) -> list[str]:
    """Plain sentences, the most important first. results must be valid (see validate_results)."""
    reference, best = reference_row(results), best_row(results)
    files = [row for row in results["artifacts"] if row["role"] == "student"]
    files.sort(key=lambda row: row is not best)
    metric = metric_of(results)
    floors = {length: floor_at(results, length) for length in results["workload"]["lengths"]}
    return [*(_file_sentence(row, reference, metric, floors) for row in files), *_baseline_sentences(results)]


def _file_sentence(
    row: dict[str, Any], reference: dict[str, Any], metric: str, floors: dict[int, float]
) -> str:
    """floors: length -> the run's noise floor there."""
    size = times(reference["size_bytes"] / row["size_bytes"], "smaller", "larger", "of the same size")
    target = TARGET_NAMES.get(reference["target"], reference["target"])
    lengths = common_lengths(row, reference)
    speed = ""
    if lengths:
        ratio = p50_ratio(reference, row, lengths[0])
        decimals = 2 if ratio.low < 10 else 1
        others = "".join(
            f"; {_faster(p50_ratio(reference, row, length), floors[length])} at {length}"
            for length in lengths[1:]
        )
        speed = (
            f" and {_faster(ratio, floors[lengths[0]])} (p50 at {lengths[0]} tokens, 95 % interval "
            f"{ratio.low:.{decimals}f}–{ratio.high:.{decimals}f}{others})"
        )
    flips = ""
    if row["source"] is not None:
        share = f"{100 * row['flip_rate']:.2f} % of the test rows"
        flips = f" and gives the same {ANSWER_WORDS[metric]} as {row['source']} on every test row"
        if row["flip_rate"]:
            flips = f" and gives another {ANSWER_WORDS[metric]} than {row['source']} on {share}"
    return (
        f"Against the {reference['scheme']} teacher in {target}, {row['name']} is {size}{speed}; it has "
        f"{100 * row['retention']:.1f} % of the teacher's {SCORE_WORDS[metric][0]} "
        f"({100 * row['scores'][metric]:.1f} %){flips}."
    )


def times(ratio: float, more: str, less: str, same: str) -> str:
    """The ratio in words, such as "5.3x smaller", or `same` where one decimal shows no difference."""
    if ratio >= 1.05:
        return f"{ratio:.1f}× {more}"
    return f"{1 / ratio:.1f}× {less}" if ratio <= 1 / 1.05 else same


def _faster(ratio: Ratio, floor: float) -> str:
    if verdict(ratio, floor) == NO_DIFFERENCE:  # the sentence may not say more than the samples
        return "of the same speed"
    return times(ratio.value, "faster", "slower", "of the same speed")


def _baseline_sentences(results: dict[str, Any]) -> list[str]:
    students = [row for row in results["models"] if row["role"] == "student"]
    baselines = [row for row in results["models"] if row["role"] == "baseline"]
    metric = metric_of(results)
    sentences = []
    for student in students:
        for baseline in baselines:
            reached, without = (100 * row["scores"][metric] for row in (student, baseline))
            points = reached - without
            where = "above" if points >= 0 else "below"
            sentences.append(
                f"{student['name']} is {abs(points):.1f} points of {SCORE_WORDS[metric][0]} {where} "
                f"{baseline['name']}, the same model without distillation ({reached:.1f} % against "
                f"{without:.1f} %; one run, {results['data']['test_rows']:,} test rows)."
            )
    return sentences


def tiles(results: dict[str, Any]) -> list[Tile]:
    """The four figures of the best row: size, speed, accuracy, memory; unmeasured ones are left out."""
    reference, best, metric = reference_row(results), best_row(results), metric_of(results)
    size_ratio = reference["size_bytes"] / best["size_bytes"]
    found = [
        Tile(
            f"{max(size_ratio, 1 / size_ratio):.1f}×",
            "smaller" if size_ratio >= 1 else "larger",
            f"{best['size_bytes'] / 1e6:.1f} MB, teacher {reference['size_bytes'] / 1e6:.1f} MB",
        )
    ]
    lengths = common_lengths(best, reference)
    if lengths:
        ratio = p50_ratio(reference, best, lengths[0])
        p50_ms = [float(np.median(samples_at(row, lengths[0]))) for row in (best, reference)]
        found.append(
            Tile(
                f"{max(ratio.value, 1 / ratio.value):.1f}×",
                "faster" if ratio.value >= 1 else "slower",
                f"{p50_ms[0]:.1f} ms, teacher {p50_ms[1]:.1f} ms (median, {lengths[0]} tokens)",
            )
        )
    found.append(
        Tile(
            f"{100 * best['retention']:.1f} %",
            f"of the teacher's {SCORE_WORDS[metric][0]}",
            f"{100 * best['scores'][metric]:.1f} %, teacher {100 * reference['scores'][metric]:.1f} %",
        )
    )
    if best["peak_rss_bytes"] is not None and reference["peak_rss_bytes"] is not None:
        found.append(
            Tile(
                f"{best['peak_rss_bytes'] / 1e6:.0f} MB",
                "peak memory",
                f"whole process, teacher {reference['peak_rss_bytes'] / 1e6:.0f} MB",
            )
        )
    return found
