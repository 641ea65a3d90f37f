"""Plots as SVG text: size against latency, how each row's samples spread, which part suffers from 8 bits."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from stillroom.benchmarks.results import all_rows, metric_of
from stillroom.errors import UsageError
from stillroom.extras import require

WIDTH_IN = 4.7  # so narrow that 10 point text is still read when a phone shrinks it to its screen
LONGEST_NAME = 28  # characters; the tables have the rest
WIDE_RANGE = 12  # largest over smallest, from which on an axis is logarithmic
# Where a label may stand, in points from its mark, nearest first: beside, above, below, then out on a line.
LABEL_OFFSETS = [
    *((12, 0), (-12, 0), (0, 20), (0, -20), (12, 10), (12, -10), (-12, 10), (-12, -10)),
    *(
        (dx, dy)
        for reach in (26, 44, 64, 88, 120)
        for dx in (reach, -reach, 0)
        for dy in (reach, -reach, 0)
        if dx or dy
    ),
]
LINE_PARTS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95)  # where a label's line is tried for crossing another label
FONT_FAMILY = "font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Palette:
    """Colours as hex; the roles' keep their order of lightness, for readers who see no hues."""

    ink: str = "#1f2328"
    muted: str = "#656d76"
    grid: str = "#d8dee4"
    paper: str = "#ffffff"
    teacher: str = "#0b5cad"
    baseline: str = "#8a6100"
    student: str = "#c2410c"


LIGHT = Palette()
# Dark surfaces need lighter hues for the same contrast (at least 4.5 to 1 on the paper).
DARK = Palette("#e6edf3", "#9aa4af", "#30363d", "#161b22", "#79b8ff", "#e3b341", "#ff9b6b")

_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: searchable, and drawn in the reader's own font
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LIGHT.grid,
    "axes.labelcolor": LIGHT.muted,
    "axes.titlesize": 10,
    "axes.titlecolor": LIGHT.ink,
    "text.color": LIGHT.ink,
    "xtick.color": LIGHT.muted,
    "ytick.color": LIGHT.muted,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LIGHT.grid,
    "grid.linewidth": 0.7,
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """matplotlib set up for our plots, and as it was before afterwards."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # The reader's browser draws the text; that the font we measure with lacks a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def scatter_svg(results: dict[str, Any]) -> str:
    """Size in MB against p50 in ms at the longest length, a point and a label per measured row.

    The text of an SVG element, with a light background. Raises UsageError without matplotlib or timed rows.
    """
    require("matplotlib")
    rows = [row for row in all_rows(results) if row["latency_ms"]]
    if not rows:
        raise UsageError("no row was timed: there is nothing to plot")
    points = [(row["size_bytes"] / 1e6, row["latency_ms"]["p50"]) for row in rows]
    with drawing():
        length = max(results["workload"]["lengths"])
        figure, axes = size_against(f"median latency at {length} tokens, ms", points)
        for row, (x, y) in zip(rows, points, strict=True):
            color = getattr(LIGHT, row["role"])
            fill = LIGHT.paper if row["target"] == "torch" else color
            axes.scatter([x], [y], s=70, facecolor=fill, edgecolor=color, linewidth=1.8, zorder=3)
        _legend(axes, rows)
        labels = [f"{_short(row['name'])}\n{100 * row['scores'][metric_of(results)]:.1f} %" for row in rows]
        place_labels(figure, axes, points, labels)
        return svg_text(figure, "scatter", "Size against median latency of each model and file")


def size_against(title: str, points: list[tuple[float, float]]) -> tuple[Any, Any]:
    """A figure, and its axes scaled for points of size in MB and what the title says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 3.9), dpi=72, facecolor=LIGHT.paper)
    axes = figure.add_axes((0.09, 0.12, 0.88, 0.75), facecolor="none")
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"size, MB{_scale(axes, 'x', [x for x, _ in points])}")
    title += _scale(axes, "y", [y for _, y in points])
    axes.set_title(title, loc="left", color=LIGHT.muted, pad=22)
    return figure, axes


def _scale(axes: Any, direction: str, values: list[float]) -> str:
    """Scale one axis from 0, or by powers where small values would all be at 0; what to say of it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values), max(values)
    if high < WIDE_RANGE * low:
        axes.set(**{f"{direction}lim": (0, high * 1.14)})
        return ""
    axes.set(**{f"{direction}scale": "log", f"{direction}lim": (low / 1.6, high * 1.6)})
    axis = getattr(axes, f"{direction}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())
    return " (log scale)"


def _legend(axes: Any, rows: list[dict[str, Any]]) -> None:
    """One line above the plot: the roles' colours, and hollow for torch where both kinds appear."""
    roles = [role for role in ("teacher", "baseline", "student") if any(row["role"] == role for row in rows)]
    handles = [axes.scatter([], [], s=45, color=getattr(LIGHT, role), label=role) for role in roles]
    if any(row["target"] == "torch" for row in rows):
        hollow = {"facecolor": LIGHT.paper, "edgecolor": LIGHT.muted, "linewidth": 1.6}
        handles.append(axes.scatter([], [], s=45, label="hollow: torch", **hollow))
    legend_above(axes, handles)


def legend_above(axes: Any, handles: list[Any]) -> None:
    """One line of marks and their names above a plot."""
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.99),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handletextpad=0.1,
        columnspacing=1.2,
        borderpad=0.2,
    )


def place_labels(figure: Any, axes: Any, points: list[tuple[float, float]], labels: list[str]) -> None:
    """Put each label at the nearest of several places where it covers no point and no other label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(figure).get_renderer()
    centres = [axes.transData.transform(point) for point in points]
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in centres]
    room = axes.get_window_extent(renderer)
    style = {"fontsize": 9, "linespacing": 1.15, "va": "center"}
    line = {"arrowstyle": "-", "color": LIGHT.muted, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 6}
    for (x, y), point, label in zip(centres, points, labels, strict=True):
        probe = axes.text(*point, label, **style)
        size = probe.get_window_extent(renderer)
        probe.remove()

        def box(offset: tuple[int, int], x: float = x, y: float = y, size: Any = size) -> Any:
            shift = (offset[0] > 0) * 1.0 + (offset[0] == 0) * 0.5  # share of the width to the right
            return Bbox.from_bounds(
                x + offset[0] - (1 - shift) * size.width,
                y + offset[1] - size.height / 2,
                size.width,
                size.height,
            )

        def cost(
            offset: tuple[int, int], x: float = x, y: float = y, box: Any = box, size: Any = size
        ) -> Any:
            place = box(offset)
            outside = size.width * size.height - _overlap(place, room)
            covered = sum(_overlap(place, other) for other in taken)
            along = [offset[0] * part for part in LINE_PARTS], [offset[1] * part for part in LINE_PARTS]
            line = [(x + dx, y + dy) for dx, dy in zip(*along, strict=True)]
            crossed = sum(other.contains(*spot) for spot in line for other in taken[len(points) :])
            return LABEL_OFFSETS.index(offset) + 5 * outside + 5 * covered + 20 * crossed

        offset = min(LABEL_OFFSETS, key=cost)
        taken.append(box(offset))
        side = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
        arrow = line if max(map(abs, offset)) > 20 else None
        axes.annotate(
            label, point, xytext=offset, textcoords="offset points", ha=side, arrowprops=arrow, **style
        )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _overlap(first: Any, second: Any) -> float:
    """Area two boxes share, in square pixels."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return float(max(width, 0) * max(height, 0))


def spread_svg(results: dict[str, Any]) -> str:
    """For each length a panel, for each measured row (at least one) a box over its samples, in ms from 0.

    Line: 1st to 99th percentile. Box: the middle half. Number: the median.
    The text of an SVG element. Raises UsageError without matplotlib or timed rows.
    """
    require("matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = [row for row in all_rows(results) if row["by_length"]]
    if not rows:
        raise UsageError("no row was timed: there is nothing to plot")
    lengths = sorted({entry["length"] for row in rows for entry in row["by_length"]}, reverse=True)
    with drawing():
        layout = ConstrainedLayoutEngine(hspace=0.07)
        height_in = (0.25 * len(rows) + 0.55) * len(lengths)
        figure = Figure(figsize=(WIDTH_IN, height_in), dpi=72, layout=layout, facecolor=LIGHT.paper)
        panels: Any = figure.subplots(len(lengths), 1, squeeze=False)[:, 0]
        for axes, length in zip(panels, lengths, strict=True):
            _spread_panel(axes, rows, length)
        return svg_text(figure, "spread", "Spread of the latency samples of each row at each length")


def _spread_panel(axes: Any, rows: list[dict[str, Any]], length: int) -> None:
    import numpy as np

    _row_axes(axes, f"{length} tokens, ms", [row["name"] for row in rows])
    reach = 0.0
    for place, row in enumerate(rows):
        samples = next((entry["samples_ms"] for entry in row["by_length"] if entry["length"] == length), None)
        if samples is None:
            continue
        low, first, median, third, high = np.percentile(samples, [1, 25, 50, 75, 99])
        color = getattr(LIGHT, row["role"])
        axes.plot([low, high], [place, place], color=color, linewidth=1.2, solid_capstyle="butt")
        axes.barh(place, third - first, left=first, height=0.46, color=color, linewidth=1.2, edgecolor=color)
        axes.plot([median, median], [place - 0.34, place + 0.34], color=LIGHT.ink, linewidth=1.4)
        axes.annotate(
            f"{median:.2f}" if median < 10 else f"{median:,.1f}",
            (high, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
        reach = max(reach, high)
    axes.set_xlim(0, reach * 1.12 or 1)


def _row_axes(axes: Any, title: str, names: list[str]) -> None:
    """A named row for each of some values, the first at the top."""
    axes.set_title(title, loc="left", color=LIGHT.muted, pad=5)
    axes.set_facecolor("none")
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_yticks(range(len(names)), [_short(name) for name in names], color=LIGHT.ink, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)


def sensitivity_svg(facts: dict[str, Any]) -> str:
    """A bar for each part of a model: the mean squared error of the logits with it alone in 8 bits.

    facts: as stillroom sensitivity gives them. The text of an SVG element; UsageError without matplotlib.
    """
    require("matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = [row["group"] for row in facts["groups"]]
    errors = [row["mean_squared_error"] for row in facts["groups"]]
    with drawing():
        size_in = (WIDTH_IN, 0.22 * len(names) + 0.6)
        figure = Figure(size_in, dpi=72, layout=ConstrainedLayoutEngine(), facecolor=LIGHT.paper)
        axes: Any = figure.subplots()
        _row_axes(axes, "error of the logits, each part in 8 bits alone", names)
        colors = [LIGHT.student] * (len(names) - 1) + [LIGHT.teacher]
        axes.barh(range(len(names)), errors, height=0.6, color=colors)
        axes.set_xlabel("mean squared error")
        return svg_text(figure, "sensitivity", "Error of the logits with each part in 8 bits alone")


def svg_text(figure: Any, salt: str, description: str) -> str:
    """The figure as one <svg> element: same input, same bytes; no prolog, no metadata, no fixed size."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, facecolor=figure.get_facecolor())
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], count=1, flags=re.DOTALL)
    # Names are escaped, so what stands between < and > is ours and not a name that looks like it.
    text = re.sub(r"<text [^>]*>", lambda tag: re.sub(r"font-family: [^;\"]*", FONT_FAMILY, tag[0]), text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # two plots on a page would repeat these ids
    return text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)


def themed(svg: str) -> str:
    """The same SVG with every colour a CSS variable, for a page that has a light and a dark palette."""
    variables = {color: f"var(--{name})" for name, color in asdict(LIGHT).items()}

    def recolor(tag: re.Match[str]) -> str:
        return re.sub(r"#[0-9a-f]{6}\b", lambda color: variables.get(color[0], color[0]), tag[0])

    svg = re.sub(r"<[^>]*>", recolor, svg)
    return re.sub(
        r' (width|height)="[\d.]+pt"', "", svg, count=2
    )  # the page decides; viewBox keeps the shape


def css_variables(palette: Palette) -> str:
    """The palette as CSS custom properties."""
    return " ".join(f"--{name}: {color};" for name, color in asdict(palette).items())
