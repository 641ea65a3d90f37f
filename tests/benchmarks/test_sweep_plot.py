"""The plot of a sweep is an SVG with every file and number of threads named."""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

import pytest

from stillroom.benchmarks.sweep_plot import sweep_svg
from stillroom.errors import UsageError


def test_every_file_and_thread_count_is_named(sample_results: dict[str, Any]) -> None:
    text = sweep_svg(sample_results["sweeps"])
    expat.ParserCreate().Parse(text, True)
    for words in ("onnx-fp32, 2 threads", "onnx-int8-dynamic, 1 thread", "rows a second"):
        assert words in text
    assert sweep_svg(sample_results["sweeps"]) == text


def test_no_points_are_no_plot() -> None:
    with pytest.raises(UsageError, match="no sweep"):
        sweep_svg([])
