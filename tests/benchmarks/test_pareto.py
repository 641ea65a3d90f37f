"""The Pareto front, and the plot of a search."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.benchmarks.pareto import front, pareto_svg
from stillroom.errors import UsageError

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


@given(POINTS)
def test_a_point_is_on_the_front_unless_another_beats_it(points: list[tuple[float, float]]) -> None:
    def beaten(point: tuple[float, float]) -> bool:
        return any(all(a <= b for a, b in zip(it, point, strict=True)) and it != point for it in points)

    assert front(points) == sorted({point for point in points if not beaten(point)})


def row(name: str, size: float, ms: float | None, verdict: str, *, holds: bool) -> dict[str, object]:
    return {"name": name, "size_bytes": size * 1e6, "p90_ms": ms, "retention": 0.993, "verdict": verdict,
            "holds": holds}  # fmt: skip


def test_the_plot_names_the_front_and_the_winner() -> None:
    rows = [
        row("onnx-int4+vocabulary-8000", 6, 8, "winner", holds=True),
        row("onnx-int8-dynamic", 17, 3, "holds all", holds=True),
        row("onnx-slow<&>", 18, 9, "holds all", holds=True),
        row("onnx-fp32", 69, None, "too large", holds=False),
    ]
    svg = pareto_svg({"tried": rows})
    text = "".join(ElementTree.fromstring(svg).itertext())  # noqa: S314 (our own)
    assert "vocabulary-8000" in text and "onnx-int8-dynamic" in text and "99.3 %" in text
    assert "slow" not in text and "fp32" not in text  # beaten by another; not timed
    assert pareto_svg({"tried": rows}) == pareto_svg({"tried": rows})
    with pytest.raises(UsageError, match="no file was timed"):
        pareto_svg({"tried": rows[3:]})
