"""Tables behind the first: noise, texts, sweeps and limits, for bench too; quality and parity of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillroom.benchmarks.limits import beside_limit
from stillroom.benchmarks.results import all_rows
from stillroom.benchmarks.statistics import percentiles
from stillroom.benchmarks.tables import NOT_MEASURED, Table, number

NOISY = 0.2  # a floor from which on a reader is told to measure again


def noise_line(document: dict[str, Any]) -> str:
    """The noise floor in words."""
    noise = document["noise"]
    if not noise:
        return "noise: not measured, because the file that was to run twice failed"
    floors = ", ".join(
        f"{100 * entry['floor']:.1f} % at {entry['length']} tokens "
        f"(the pair {100 * entry['difference']:+.1f} %)"
        for entry in noise["by_length"]
    )
    busy = max(entry["floor"] for entry in noise["by_length"]) > NOISY
    more = "; that is much: end other programs and measure again with more --rounds" if busy else ""
    pair = f"noise: {noise['subject']} took part twice"
    return f"{pair}; a difference of p50 within {floors} is no difference{more}"


def text_table(document: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    """From text to answer: tokenizing, the model, and both together text by text."""
    tokenizing = np.asarray(document["tokenization_samples_ms"])
    lines = []
    for row in rows:
        if not row.get("evaluation_samples_ms"):
            continue
        model = np.asarray(row["evaluation_samples_ms"])
        whole = percentiles((model + tokenizing).tolist())
        lines.append(
            (
                row["name"],
                number(float(np.median(tokenizing)), 3),
                number(float(np.median(model)), 2),
                *(number(whole[name], 2) for name in ("p50", "p95", "p99")),
            )
        )
    header = ("name", "tokenizing p50 ms", "model p50 ms", "end to end p50 ms", "p95 ms", "p99 ms")
    return Table(header, tuple(lines), 1)


def sweep_table(points: list[dict[str, Any]]) -> Table:
    """Every point of a sweep."""
    header = ("name", "threads", "tokens", "batch", "p50 ms", "p95 ms", "rows/s")
    return Table(
        header,
        tuple(
            (
                point["name"],
                *(str(point[key]) for key in ("threads", "length", "batch_size")),
                number(point["p50_ms"], 2),
                number(point["p95_ms"], 2),
                number(point["rows_per_s"], 1),
            )
            for point in points
        ),
        1,
    )


def peak_line(peaks: dict[str, Any]) -> str:
    """This machine's measured peaks in words, with their spread."""
    words = []
    for key, name, unit in (
        ("fp32_operations_per_s", "fp32 products", "GOP/s"),
        ("int8_operations_per_s", "int8 products", "GOP/s"),
        ("bandwidth_bytes_per_s", "copying", "GB/s"),
    ):
        values = np.asarray(peaks[key]) / 1e9
        words.append(f"{name} {np.median(values):.0f} {unit} ({values.min():.0f}–{values.max():.0f})")
    return f"peaks measured with {peaks['threads']} threads: {', '.join(words)}"


def limit_table(document: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    """Arithmetic and traffic of one call at the longest length, and how near each is to the limit."""
    lines = []
    for row in rows:
        profile = document["limits"]["profiles"].get(row["name"])
        if profile is None or not row["latency_ms"]:
            continue
        at = beside_limit(row["latency_ms"]["p50"], profile, document["limits"]["peaks"])
        lines.append(
            (
                row["name"],
                number(profile["fp32_operations"], 2, 1e-9),
                number(profile["int8_operations"], 2, 1e-9),
                number(profile["traffic_bytes"], 1, 1e-6),
                number(at["compute_limit_ms"], 2),
                number(at["memory_limit_ms"], 2),
                number(row["latency_ms"]["p50"], 2),
                *(number(at[f"{kind}_fraction"], 0, 100) for kind in ("peak_fp32", "peak_int8", "bandwidth")),
                number(at["reached"], 0, 100),
            )
        )
    header = ("name", "fp32 GOP", "int8 GOP", "traffic MB", "least ms, arithmetic", "least ms, memory",
              "p50 ms", "of fp32 peak %", "of int8 peak %", "of bandwidth %", "of the limit %")  # fmt: skip
    return Table(header, tuple(lines), 1)


def operator_table(profile: dict[str, Any]) -> Table:
    """The operators that take longest."""
    lines = tuple(
        (row["operator"], str(row["calls"]), number(row["ms"], 3), number(row["share"], 1, 100))
        for row in profile["top"]
    )
    return Table(("operator", "calls", "ms", "% of operators"), lines, 1)


def emulated_rows(rows: list[dict[str, Any]]) -> Table:
    """Files on emulated cores: parity and instructions, no times."""
    header = ("name", "emulated core", "status", "runtime", "texts", "largest logit difference", "flips",
              "tokens", "M instructions")  # fmt: skip
    return Table(header, tuple(
        (
            row["name"], row["core"], row["status"], row["runtime"], str(row["texts"]),
            NOT_MEASURED if row["max_abs_error"] is None else f"{row['max_abs_error']:.2g}",
            NOT_MEASURED if row["flips"] is None else str(row["flips"]),
            str(row["tokens"]), number(row["instructions"], 2, 1e-6),
        )
        for row in rows
    ), 4)  # fmt: skip


def app_words(app: dict[str, Any]) -> str:
    """What was built, and that it was not run."""
    return (
        f"The sample app for {app['abi']} with {app['artifact']} and {app['runtime']}: built and signed, not "
        "installed or run on a phone."
    )


def app_table(app: dict[str, Any]) -> Table:
    """The Android app's size by part, the largest first."""
    parts = sorted(app["parts_bytes"].items(), key=lambda item: -item[1])
    total_bytes = sum(app["parts_bytes"].values())
    return Table(("part of the APK", "size, MB"), tuple(
        (part, f"{size_bytes / 1e6:.3f}") for part, size_bytes in [*parts, ("total", total_bytes)]
    ), 1)  # fmt: skip


def estimate_rows(rows: list[dict[str, Any]]) -> Table:
    """Ranges for classes of phones; every one of them says that it is an estimate."""
    header = ("name", "class of phones", "cores", "latency, ms", "by", "waits for")
    return Table(header, tuple(
        (
            row["name"], row["phone"], row["cores"],
            f"{row['low_ms']:.3g}–{row['high_ms']:.3g} (estimate)",
            "roofline and instructions" if row["instructions"] else "roofline", row["bound"],
        )
        for row in rows
    ), 3)  # fmt: skip


def quality_table(results: dict[str, Any]) -> Table:
    """Retention with its interval, and rows gained and lost beside the teacher and the student."""
    lines = []
    for row in all_rows(results):
        if row["quality"] is None:
            continue
        against = row["quality"]["against"]
        cells = [
            cell
            for name in ("teacher", "student")
            for cell in _gained_and_lost(against.get(name) if name != row["name"] else None)
        ]
        teacher = against.get("teacher", {})
        low, high = (number(teacher.get(f"retention_{end}"), 1, 100) for end in ("low", "high"))
        error = number(row["quality"]["calibration_error"], 1, 100)
        lines.append((row["name"], number(row["retention"], 1, 100), f"{low}–{high}", *cells, error))
    header = ("name", "retention, %", "95 % interval", "gained, lost to teacher", "p",
              "gained, lost to student", "p", "calibration error, %")  # fmt: skip
    return Table(header, tuple(lines), 1)


def _gained_and_lost(against: dict[str, Any] | None) -> tuple[str, str]:
    if against is None or against["p_value"] is None:
        return NOT_MEASURED, NOT_MEASURED
    p = against["p_value"]
    return f"+{against['gained']} −{against['lost']}", "<0.001" if p < 0.001 else f"{p:.3f}"


def label_table(results: dict[str, Any]) -> Table:
    """Flips of each file and model against its source, by the label of the row."""
    rows = [row for row in all_rows(results) if row["quality"] and row["quality"]["flips_by_label"]]
    labels = list(rows[0]["quality"]["flips_by_label"]) if rows else []
    counts = [rows[0]["quality"]["flips_by_label"][label]["rows"] for label in labels] if rows else []
    header = ("name", *(f"{label} ({count:,} rows)" for label, count in zip(labels, counts, strict=True)))
    return Table(
        header,
        tuple(
            (row["name"], *(str(row["quality"]["flips_by_label"][label]["flips"]) for label in labels))
            for row in rows
        ),
        1,
    )


def parity_matrix(results: dict[str, Any]) -> Table:
    """Largest logit difference of each file from its source, for every way of feeding it."""
    parity = results["parity"]
    cases = list(dict.fromkeys(case["case"] for found in parity.values() for case in found))

    def cell(found: list[dict[str, Any]], name: str) -> str:
        case = next((case for case in found if case["case"] == name), None)
        if case is None:
            return NOT_MEASURED
        return f"{case['max_abs_error']:.2g}" + ("" if case["passed"] else " FAILED")

    lines = [(name, *(cell(found, case) for case in cases)) for name, found in parity.items()]
    return Table(("file", *cases), tuple(lines), 1)
