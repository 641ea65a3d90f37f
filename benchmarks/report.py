"""What a run found, for people: results.json, report.md, report.html, model-card.md, plot.svg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillroom.benchmarks.card import render_card
from stillroom.benchmarks.compare import PASS_TITLE, size_section
from stillroom.benchmarks.detail_tables import (
    app_table,
    app_words,
    emulated_rows,
    estimate_rows,
    noise_line,
    quality_table,
)
from stillroom.benchmarks.headline import best_row, headline
from stillroom.benchmarks.page import NO_PHONE, render_page
from stillroom.benchmarks.plots import scatter_svg, sensitivity_svg, spread_svg
from stillroom.benchmarks.results import all_rows, validate_results
from stillroom.benchmarks.sweep_plot import sweep_svg
from stillroom.benchmarks.tables import (
    bullets,
    data_facts,
    escape_markdown,
    machine_facts,
    markdown,
    markdown_table,
    parity_table,
    remake_command,
    sentence,
    version_line,
    workload_line,
)
from stillroom.extras import require
from stillroom.files import write_atomic, write_json

__all__ = ["headline", "markdown_table", "size_lines", "write_report"]


def write_report(results: dict[str, Any], folder: Path) -> None:
    """Write all of them into folder, each whole or not at all.

    Everything is rendered before the first file is written; plot.svg only if a row was timed. Raises
    UsageError when the results do not fit their schema, or matplotlib is missing.
    """
    validate_results(results)
    require("matplotlib")
    timed = any(row["latency_ms"] for row in all_rows(results))
    plots = {"scatter": scatter_svg(results), "spread": spread_svg(results)} if timed else {}
    if results["sweeps"]:
        plots["sweep"] = sweep_svg(results["sweeps"])
    if results["sensitivity"]:
        plots["sensitivity"] = sensitivity_svg({"groups": results["sensitivity"]})
    rendered = {
        "report.md": render_markdown(results),
        "report.html": render_page(results, plots),
        "model-card.md": render_card(results),
    }
    if "scatter" in plots:
        rendered["plot.svg"] = plots["scatter"]
    write_json(folder / "results.json", results)
    for name, text in rendered.items():
        write_atomic(folder / name, text)


def render_markdown(results: dict[str, Any]) -> str:
    """The report of a valid results document as Markdown."""
    parts = [
        f"# {escape_markdown(results['recipe']['name'])}",
        bullets(headline(results)),
        markdown_table(results),
        f"{escape_markdown(workload_line(results))} {NO_PHONE}",
        escape_markdown(sentence(noise_line(results))),
        f"## {PASS_TITLE}",
        size_lines(results),
        "## Each file beside the model it was made from",
        markdown(parity_table(results)),
        "## As good as the teacher and the student?",
        markdown(quality_table(results)),
        *_app(results),
        *_not_measured(results),
        "## Data",
        bullets(f"{name}: {text}" for name, text in data_facts(results)),
        "## Machine",
        bullets(f"{name}: {text}" for name, text in machine_facts(results)),
    ]
    if results["notes"]:
        parts += ["## Notes", bullets(results["notes"])]
    parts += [
        "## Make it again",
        f"    {remake_command(results)}",
        f"{escape_markdown(version_line(results))} The recipe as it was run, the raw samples and the machine "
        "are in results.json.",
    ]
    return "\n\n".join(parts) + "\n"


def _app(results: dict[str, Any]) -> list[str]:
    """The Android app's size, where it was built."""
    if not results["app"]:
        return []
    return ["## Android app", escape_markdown(app_words(results["app"])), markdown(app_table(results["app"]))]


def _not_measured(results: dict[str, Any]) -> list[str]:
    """What is emulated or estimated, under headings that say so."""
    parts = []
    if results["emulated"]:
        words = "Emulated arm64 cores: no time here, no phone was measured."
        parts += ["## Emulated", words, markdown(emulated_rows(results["emulated"]))]
    if results["estimates"]:
        best = best_row(results)["name"]
        rows = [row for row in results["estimates"] if row["name"] == best]
        parts += ["## Estimate for phones", "No phone was measured.", markdown(estimate_rows(rows))]
    return parts


def size_lines(results: dict[str, Any]) -> str:
    """Parameters, size and evaluation pass of a valid results document, and what was timed, as Markdown."""
    table, line = size_section(results)
    return f"{markdown(table)}\n\n{escape_markdown(line)}"
