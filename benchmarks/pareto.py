"""The plot of a search: size against latency of every file timed, which hold all limits, and the winner."""

from __future__ import annotations

from typing import Any

from stillroom.benchmarks.plots import LIGHT, drawing, legend_above, place_labels, size_against, svg_text
from stillroom.errors import UsageError
from stillroom.extras import require


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both of their values, by rising first value (the Pareto front)."""
    found: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not found or point[1] < found[-1][1]:
            found.append(point)
    return found


def pareto_svg(facts: dict[str, Any]) -> str:
    """Size in MB against p90 in ms; filled: holds all limits; a line along the Pareto front of those that do.

    facts: as stillroom search writes them. The text of an SVG element; UsageError without matplotlib, or
    when nothing was timed.
    """
    require("matplotlib")
    rows = [row for row in facts["tried"] if row["p90_ms"] is not None]
    if not rows:
        raise UsageError("no file was timed: there is nothing to plot")
    points = [(row["size_bytes"] / 1e6, row["p90_ms"]) for row in rows]
    with drawing():
        figure, axes = size_against("p90 at the longest input, ms", points)
        holding = front([point for point, row in zip(points, rows, strict=True) if row["holds"]])
        axes.plot([x for x, _ in holding], [y for _, y in holding], color=LIGHT.grid, linewidth=1.5)
        for (x, y), row in zip(points, rows, strict=True):
            color = LIGHT.student if row["verdict"] == "winner" else LIGHT.teacher
            fill = color if row["holds"] else LIGHT.paper
            axes.scatter([x], [y], s=70, facecolor=fill, edgecolor=color, linewidth=1.8, zorder=3)
        _legend(axes)
        named = [at for at, (point, row) in enumerate(zip(points, rows, strict=True))
                 if point in holding or row["verdict"] == "winner"]  # fmt: skip
        labels = [_label(rows[at]) for at in named]
        place_labels(figure, axes, [points[at] for at in named], labels)
        return svg_text(figure, "pareto", "Size against latency of every file a search has timed")


def _label(row: dict[str, Any]) -> str:
    lines = [*row["name"].split("+"), f"{100 * row['retention']:.1f} %"]
    return "\n".join(lines)


def _legend(axes: Any) -> None:
    marks: dict[str, dict[str, Any]] = {
        "winner": {"color": LIGHT.student},
        "holds all limits": {"color": LIGHT.teacher},
        "misses one": {"facecolor": LIGHT.paper, "edgecolor": LIGHT.teacher, "linewidth": 1.6},
    }
    legend_above(axes, [axes.scatter([], [], s=45, label=label, **style) for label, style in marks.items()])
