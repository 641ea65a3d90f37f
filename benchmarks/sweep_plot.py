"""The plot of a sweep: latency by tokens for each number of threads, and rows a second by batch."""

from __future__ import annotations

from typing import Any

from stillroom.benchmarks.plots import LIGHT, WIDTH_IN, drawing, svg_text
from stillroom.errors import UsageError
from stillroom.extras import require

STYLES = ("-", "--", ":", "-.")  # of the numbers of threads, most first
ROLE_COLORS = (LIGHT.student, LIGHT.teacher, LIGHT.baseline)  # of the files in turn


def sweep_svg(points: list[dict[str, Any]]) -> str:
    """points: as sweep.sweep gives them. The text of an SVG element.

    Raises UsageError without matplotlib or points.
    """
    require("matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not points:
        raise UsageError("no sweep was measured: there is nothing to plot")
    names = list(dict.fromkeys(point["name"] for point in points))
    with drawing():
        layout = ConstrainedLayoutEngine(hspace=0.07)
        figure = Figure(figsize=(WIDTH_IN, 6.2), dpi=72, layout=layout, facecolor=LIGHT.paper)
        panels: Any = figure.subplots(2, 1)
        for axes, title, label in zip(
            panels,
            ("median latency at batch 1, ms", "rows a second at the longest length"),
            ("tokens", "rows per call"),
            strict=True,
        ):
            axes.set_title(title, loc="left", color=LIGHT.muted, pad=5)
            axes.set_xlabel(label)
            axes.set_facecolor("none")
            axes.grid(True)
            axes.set_axisbelow(True)
        for at, name in enumerate(names):
            mine = [point for point in points if point["name"] == name]
            _latencies(panels[0], mine, ROLE_COLORS[at % len(ROLE_COLORS)])
            _rates(panels[1], mine, ROLE_COLORS[at % len(ROLE_COLORS)])
        panels[0].legend(frameon=False, fontsize=8)
        for axes in panels:
            axes.set_ylim(bottom=0)
        return svg_text(figure, "sweep", "Latency by length and threads, and rows a second by batch")


def _latencies(axes: Any, points: list[dict[str, Any]], color: str) -> None:
    threads = sorted({point["threads"] for point in points if point["batch_size"] == 1}, reverse=True)
    for style, count in zip(STYLES, threads, strict=False):
        line = sorted(
            (point["length"], point["p50_ms"])
            for point in points
            if point["batch_size"] == 1 and point["threads"] == count
        )
        label = f"{points[0]['name']}, {count} thread{'s' if count > 1 else ''}"
        axes.plot(*zip(*line, strict=True), style, color=color, marker="o", markersize=3, label=label)


def _rates(axes: Any, points: list[dict[str, Any]], color: str) -> None:
    longest, most = (max(point[key] for point in points) for key in ("length", "threads"))
    line = sorted(
        (point["batch_size"], point["rows_per_s"])
        for point in points
        if point["length"] == longest and point["threads"] == most
    )
    axes.plot(*zip(*line, strict=True), color=color, marker="o", markersize=3)
