"""What a run found, for people: results.json, report.md, report.html, plot.svg; several runs as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stillroom.benchmarks.headline import headline
from stillroom.benchmarks.page import NO_PHONE, render_page
from stillroom.benchmarks.plots import scatter_svg, spread_svg
from stillroom.benchmarks.results import all_rows, metric_of, validate_results
from stillroom.benchmarks.tables import (
    NOT_MEASURED,
    Table,
    data_facts,
    escape_markdown,
    machine_facts,
    markdown,
    markdown_table,
    parity_table,
    remake_command,
    version_line,
    workload_line,
)
from stillroom.errors import UsageError
from stillroom.extras import require
from stillroom.files import write_atomic, write_json
from stillroom.kinds import SCORE_WORDS

__all__ = ["compare_runs", "headline", "markdown_table", "write_report"]


def write_report(results: dict[str, Any], folder: Path) -> None:
    """Write results.json, report.md, report.html and plot.svg into folder, each whole or not at all.

    Everything is rendered before the first file is written; plot.svg only if a row was timed. Raises
    UsageError when the results do not fit their schema, or matplotlib is missing.
    """
    validate_results(results)
    require("matplotlib")
    timed = any(row["latency_ms"] for row in all_rows(results))
    plots = (scatter_svg(results), spread_svg(results)) if timed else ()
    rendered = {"report.md": render_markdown(results), "report.html": render_page(results, plots)}
    if plots:
        rendered["plot.svg"] = plots[0]
    write_json(folder / "results.json", results)
    for name, text in rendered.items():
        write_atomic(folder / name, text)


def render_markdown(results: dict[str, Any]) -> str:
    """The report of a valid results document as Markdown."""
    parts = [
        f"# {escape_markdown(results['recipe']['name'])}",
        _bullets(headline(results)),
        markdown_table(results),
        f"{escape_markdown(workload_line(results))} {NO_PHONE}",
        "## Each file beside the model it was made from",
        markdown(parity_table(results)),
        "## Data",
        _bullets(f"{name}: {text}" for name, text in data_facts(results)),
        "## Machine",
        _bullets(f"{name}: {text}" for name, text in machine_facts(results)),
    ]
    if results["notes"]:
        parts += ["## Notes", _bullets(results["notes"])]
    parts += [
        "## Make it again",
        f"    {remake_command(results)}",
        f"{escape_markdown(version_line(results))} The recipe as it was run, the raw samples and the machine "
        "are in results.json.",
    ]
    return "\n\n".join(parts) + "\n"


def _bullets(lines: Any) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)


def compare_runs(results: list[dict[str, Any]]) -> str:
    """Several finished runs (of other seeds, say) as one Markdown table: mean ± standard deviation (n).

    The deviation is the sample's. A row that some runs lack is averaged over those that have it; n says how
    many. Raises UsageError when a document is not valid, or the runs differ in task or in the length their
    latency is taken at.
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
    words = SCORE_WORDS[metric][0]

    def cells(name: str, found: list[dict[str, Any]]) -> tuple[str, ...]:
        return (
            name,
            mean_and_spread([100 * row["scores"][metric] for row in found], 2),
            mean_and_spread([100 * row["retention"] for row in found], 2),
            mean_and_spread([100 * row["flip_rate"] for row in found if row["source"] is not None], 2),
            mean_and_spread([row["latency_ms"]["p50"] for row in found if row["latency_ms"]], 2),
            mean_and_spread([row["size_bytes"] / 1e6 for row in found], 1),
        )

    header = ("name", f"{words}, %", "retention, %", "flips, %", f"p50 at {lengths.pop()}, ms", "size, MB")
    return markdown(Table(header, tuple(cells(name, found) for name, found in rows.items()), 1))


def mean_and_spread(values: list[float], decimals: int) -> str:
    """ "91.24 ± 0.31 (3)": mean, sample standard deviation, number of values; one value has no spread."""
    if not values:
        return NOT_MEASURED
    mean = f"{np.mean(values):,.{decimals}f}"
    spread = f" ± {np.std(values, ddof=1):.{decimals}f}" if len(values) > 1 else ""
    return f"{mean}{spread} ({len(values)})"
