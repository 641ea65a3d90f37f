"""What stillroom bench found, as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stillroom.benchmarks.detail_tables import (
    limit_table,
    noise_line,
    operator_table,
    peak_line,
    sweep_table,
    text_table,
)
from stillroom.benchmarks.headline import samples_at
from stillroom.benchmarks.noise import floor_at
from stillroom.benchmarks.statistics import NO_DIFFERENCE, ratio_of_medians, verdict
from stillroom.benchmarks.tables import Table, number, plain


def bench_lines(document: dict[str, Any]) -> str:
    """All tables of a bench document, and what was not measured and why."""
    parts = [plain(latency_table(document)), noise_line(document), plain(memory_table(document))]
    if any(row["evaluation_samples_ms"] for row in document["rows"]):
        count = document["workload"]["evaluation_rows"]
        parts += [
            f"{count} texts, each once at its own length:",
            plain(text_table(document, document["rows"])),
        ]
    if document["sweeps"]:
        parts += ["other threads, lengths and batches:", plain(sweep_table(document["sweeps"]))]
    if document["sustained"]:
        parts += ["without a pause:", plain(sustained_table(document))]
    if document["limits"]:
        parts += [*limit_lines(document)]
    parts += [f"{row['name']}: {row['failure']}" for row in document["rows"] if row["failure"]]
    return "\n\n".join(parts)


def latency_table(document: dict[str, Any]) -> Table:
    """Percentiles at every length, and each row's median beside the first row's."""
    first = next((row for row in document["rows"] if row["by_length"]), None)
    lines = []
    for row in document["rows"]:
        for entry in row["by_length"]:
            at = entry["latency_ms"]
            low, high = at["intervals"]["p50"]
            lines.append(
                (
                    row["name"],
                    str(entry["length"]),
                    number(at["p50"], 2),
                    f"{low:.2f}–{high:.2f}",
                    *(number(at[name], 2) for name in ("p90", "p95", "p99")),
                    number(entry["cpu_ms"], 2),
                    _beside(first, row, entry["length"], document),
                )
            )
        if not row["by_length"]:
            lines.append((row["name"], "failed", *["–"] * 7))
    header = ("name", "tokens", "p50 ms", "95 %", "p90 ms", "p95 ms", "p99 ms", "CPU ms", "p50 beside first")
    return Table(header, tuple(lines), 1)


def _beside(first: dict[str, Any] | None, row: dict[str, Any], length: int, document: dict[str, Any]) -> str:
    if first is None or first is row:
        return "–"
    ratio = ratio_of_medians(samples_at(first, length), samples_at(row, length))
    said = verdict(ratio, floor_at(document, length))
    if said == NO_DIFFERENCE:
        return said
    return f"{max(ratio.value, 1 / ratio.value):.2f}× {said}"


def memory_table(document: dict[str, Any]) -> Table:
    """From file to first answer, and what the process holds. 1 MB is 1e6 bytes."""

    def line(row: dict[str, Any]) -> tuple[str, ...]:
        if not row["by_length"]:
            return (row["name"], number(row["size_bytes"], 1, 1e-6), *["–"] * 7)
        over = row["peak_rss_bytes"] - row["baseline_rss_bytes"]
        return (
            row["name"],
            number(row["size_bytes"], 1, 1e-6),
            number(row["runtime_bytes"], 1, 1e-6),
            number(float(np.median(row["import_samples_ms"])), 0),
            f"{number(row['cold_load_ms'], 0)} {'cold' if row['page_cache'] == 'dropped' else 'warm'}",
            number(row["first_ms"], 1),
            number(row["peak_rss_bytes"], 1, 1e-6),
            number(over, 1, 1e-6),
            number(over / row["size_bytes"], 2),
        )

    header = ("name", "file MB", "runtime MB", "import ms", "load ms", "first ms", "peak RSS MB",
              "over baseline MB", "of the file")  # fmt: skip
    return Table(header, tuple(map(line, document["rows"])), 1)


def sustained_table(document: dict[str, Any]) -> Table:
    """Drift of the median and of memory."""
    header = ("name", "seconds", "calls", "p50 ms at first", "at last", "drift %", "memory grown by MB")
    return Table(
        header,
        tuple(
            (
                one["name"],
                number(one["seconds"], 0),
                str(len(one["samples_ms"])),
                number(one["windows"][0]["p50_ms"], 2),
                number(one["windows"][-1]["p50_ms"], 2),
                f"{100 * one['p50_drift']:+.1f}",
                f"{one['rss_growth_bytes'] / 1e6:+.2f}",
            )
            for one in document["sustained"]
        ),
        1,
    )


def limit_lines(document: dict[str, Any]) -> Iterator[str]:
    """Peaks, limits, and the top operators of each file, as text."""
    yield peak_line(document["limits"]["peaks"])
    yield plain(limit_table(document, document["rows"]))
    for name, profile in document["limits"]["profiles"].items():
        yield f"{name}, one call by onnxruntime's profiler:"
        yield plain(operator_table(profile))
