"""Kernels that saturate: by plain integers, one product at a time, and on a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stillroom.export.calibration import Simulated, simulated
from stillroom.export.options import ExportOptions
from stillroom.export.saturation import Saturation, cut_off, without_vnni
from stillroom.export.static_int8 import PORTABLE_STEPS, Numerics
from stillroom.observe import Batch

WIDTHS = st.integers(1, 9)


def products(activations: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """What saturating kernels leave of the exact dot products, and how many of these they cut."""
    lost, saturated = cut_off(activations, weights)
    return activations.astype(int) @ weights.astype(int).T - lost, saturated


def one_at_a_time(activations: np.ndarray, weights: np.ndarray) -> tuple[list[list[int]], int]:
    """vpmaddubsw, then a sum in 32 bits, in Python's own integers."""
    found, saturated = [], 0
    for row in activations.tolist():
        found.append([])
        for weight in weights.tolist():
            products = [a * w for a, w in zip(row, weight, strict=True)] + [0]
            pairs = [products[at] + products[at + 1] for at in range(0, len(products) - 1, 2)]
            cut = [max(-32768, min(32767, pair)) for pair in pairs]
            found[-1].append(sum(cut))
            saturated += cut != pairs
    return found, saturated


@given(st.data(), WIDTHS, st.integers(1, 4), st.integers(1, 4))
def test_plain_integers(data: st.DataObject, width: int, rows: int, outputs: int) -> None:
    large = st.sampled_from([0, 1, 128, 254, 255])
    activations = data.draw(arrays(np.uint8, (rows, width), elements=large))
    weights = data.draw(arrays(np.int8, (outputs, width), elements=st.integers(-127, 127)))
    found, saturated = products(activations, weights)
    assert (found.tolist(), saturated) == one_at_a_time(activations, weights)


@given(
    arrays(np.uint8, (3, 8)),
    arrays(np.int8, (4, 8), elements=st.integers(-64, 64)),
)
def test_seven_bits_never_saturate(activations: np.ndarray, weights: np.ndarray) -> None:
    found, saturated = products(activations, weights)
    assert saturated == 0
    np.testing.assert_array_equal(found, activations.astype(int) @ weights.astype(int).T)


def emulated(model: Simulated, batches: list[Batch]) -> Saturation:
    return without_vnni(model.wrapped, [(model.ranges, batches)], model.numerics, model.kind)


def test_a_model_without_vnni(model_folder: Callable[..., Path]) -> None:
    random = np.random.default_rng(0)
    batches = []
    for length in range(4, 9):
        ids = random.integers(5, 900, (2, length))
        batches.append((ids, np.ones_like(ids)))
    options = ExportOptions(calibration=tuple(batches), ranges="minmax")
    folder = model_folder("bert")
    found = emulated(simulated(folder, options, Numerics()), batches)
    tokens = sum(2 * length for length in range(4, 9))
    # The first layer whole; of the second keys and values of all tokens, the rest and the head of the first.
    first, keys = tokens * (5 * 64 + 128), tokens * 2 * 64
    alone = 10 * (4 * 64 + 128 + 2)
    assert found.dot_products == first + keys + alone
    assert 0 < found.saturated < found.dot_products and found.agreement.max_abs_error > 0
    safe = emulated(simulated(folder, options, Numerics(weight_steps=PORTABLE_STEPS)), batches)
    assert safe.saturated == 0 and safe.agreement.max_abs_error == pytest.approx(0)
