"""Which files answer the same on every CPU: what is known of each cell, and what is seen on text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillroom.artifact import load_artifact
from stillroom.export import portable as portable_module
from stillroom.export.options import ExportOptions
from stillroom.export.portable import by_construction
from stillroom.export.targets import TARGETS, export
from stillroom.observe import Batch

SAFE = ExportOptions(portable=True)


def calibration() -> tuple[Batch, ...]:
    random = np.random.default_rng(0)
    ids = [random.integers(5, 900, (3, length)) for length in range(4, 9)]
    return tuple((array, np.ones_like(array)) for array in ids)


@pytest.mark.parametrize(
    ("target", "scheme"), [(name, it) for name, row in TARGETS.items() for it in row.schemes]
)
def test_only_int8_of_onnxruntime_is_in_doubt(target: str, scheme: str) -> None:
    doubtful = target in ("onnx", "ort") and scheme in ("int8-dynamic", "int8-static")
    found = by_construction(target, scheme, ExportOptions())
    assert found.portable != doubtful and ("not checked" in found.reason) == doubtful
    assert by_construction(target, scheme, SAFE).portable
    assert (found.rows, found.dot_products, found.saturated, found.flip_rate) == (0, 0, 0, 0.0)


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-static"])
def test_what_is_seen_on_text_is_in_the_artifact(
    scheme: str, model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable_module, "EVIDENCE_ROWS", 7)
    folder = model_folder("bert")
    made = export(
        folder, "onnx", scheme, tmp_path / "x", ExportOptions(calibration=calibration(), ranges="minmax")
    )
    seen = made.portable_evidence
    assert not made.portable and seen["rows"] == 7 and 0 < seen["saturated"] < seen["dot_products"]
    share = seen["saturated"] / seen["dot_products"]
    assert f"{share:.3%} of dot products saturate" in seen["reason"] and "--portable" in seen["reason"]
    again = load_artifact(tmp_path / "x")
    assert (again.portable, again.portable_evidence) == (made.portable, seen)
    options = ExportOptions(calibration=calibration(), ranges="minmax", portable=True)
    safe = export(folder, "onnx", scheme, tmp_path / "safe", options)
    assert safe.portable and "7-bit weights" in safe.portable_evidence["reason"]
