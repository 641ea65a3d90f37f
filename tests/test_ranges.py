"""Streaming ranges: every value is counted, no rule goes beyond them, and each keeps what it promises."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stillroom.errors import UsageError
from stillroom.ranges import (
    BINS,
    COUNTED,
    LEAST_SPAN,
    RULES,
    TAIL,
    LinearRanges,
    SeenValues,
    ranges_from_dict,
    ranges_to_dict,
    rounded,
)  # fmt: skip
from stillroom.scheme import RANGE_RULES

FLOATS = st.floats(-1e6, 1e6, width=32)
TEXTS = st.lists(arrays(np.float32, st.integers(1, 40), elements=FLOATS), min_size=1, max_size=8)


def seen(*texts: np.ndarray) -> SeenValues:
    found = SeenValues()
    for values in texts:
        found.add(values)
    return found


def error(values: np.ndarray, ends: tuple[float, float]) -> float:
    return float(((rounded(values, *ends) - values) ** 2).mean())


def skewed(outliers: int) -> np.ndarray:
    """What goes into the second feed-forward map: mostly about 0, a few values far out."""
    random = np.random.default_rng(0)
    values = np.maximum(random.normal(0, 1, 100_000), -0.17).astype(np.float32)
    values[:outliers] = 25.0
    return values


def test_the_rules_that_can_be_asked_for() -> None:
    assert ("best", *RULES) == RANGE_RULES


@given(TEXTS)
def test_every_value_is_counted_near_its_place(texts: list[np.ndarray]) -> None:
    found, values = seen(*texts), np.concatenate(texts)
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.counts.sum() == len(values) and found.counts.shape == (BINS,)
    width = 2 * found.span / BINS
    places = np.sort(np.repeat(found.centres(), found.counts))
    assert np.abs(places - np.sort(values)).max() <= width * 0.51
    assert found.span <= max(2 * np.abs(values).max(), LEAST_SPAN)


@given(TEXTS)
@settings(deadline=None)
def test_no_rule_reaches_beyond_what_was_seen(texts: list[np.ndarray]) -> None:
    found = seen(*texts)
    for name, rule in RULES.items():
        low, high = rule(found)
        room = 1e-6 * max(abs(found.low), abs(found.high))
        assert min(found.low, 0) - room <= low and high <= max(found.high, 0) + room, name
        assert np.isfinite([low, high]).all()


@given(TEXTS)
def test_the_order_of_texts_changes_no_count_but_the_moving_average(texts: list[np.ndarray]) -> None:
    forth, back = seen(*texts), seen(*texts[::-1])
    assert (forth.low, forth.high) == (back.low, back.high)
    if forth.span == back.span:  # a value on the border of two bins may be in either
        places = [np.repeat(it.centres(), it.counts) for it in (forth, back)]
        assert np.abs(places[0] - places[1]).max() <= 2.001 * forth.span / BINS


def test_memory_does_not_grow_with_the_texts() -> None:
    found = SeenValues()
    for size in (1.0, 100.0, 1e4):
        for _ in range(50):
            found.add(np.linspace(-size, size, 999, dtype=np.float32))
        assert found.counts.nbytes == 8 * BINS and len(vars(found)) == 6
    assert found.counts.sum() == 3 * 50 * 999


def test_values_that_are_not_numbers_are_refused() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="not finite"):
            seen(np.array([0.0, bad], dtype=np.float32))


@pytest.mark.parametrize("outliers", [0, 1, 30])
def test_least_squares_is_the_least_of_all_rules(outliers: int) -> None:
    values = skewed(outliers)
    errors = {name: error(values, rule(seen(values))) for name, rule in RULES.items()}
    assert errors["mse"] <= 1.02 * min(errors.values())  # bins stand for the values
    if outliers == 1:
        assert errors["mse"] < 0.7 * errors["minmax"]


def test_percentile_cuts_a_ten_thousandth() -> None:
    values = skewed(1)
    low, high = RULES["percentile"](seen(values))
    assert abs(high - np.quantile(values, 1 - TAIL)) < 0.05 and low == pytest.approx(-0.17, abs=0.02)


def test_entropy_keeps_a_plain_range_and_cuts_a_lonely_outlier() -> None:
    even = np.linspace(-1, 1, 50_000, dtype=np.float32)
    assert RULES["entropy"](seen(even)) == pytest.approx((-1, 1), abs=0.03)
    assert RULES["entropy"](seen(skewed(1)))[1] < 20


def test_a_moving_average_is_near_what_the_texts_reach() -> None:
    texts = [np.array([-1.0, 1.0 + 9.0 * (at == 50)], dtype=np.float32) for at in range(400)]
    low, high = RULES["moving-average"](seen(*texts))
    assert low == -1.0 and 1.0 < high < 1.1


def test_tensors_of_zeros_have_a_range() -> None:
    for rule in RULES.values():
        assert rule(seen(np.zeros(5, dtype=np.float32))) == pytest.approx((0, 0), abs=1e-9)


@given(
    arrays(np.float32, 30, elements=st.floats(-50, 50, width=32)), st.floats(-40, 0), st.floats(0, 40),
)  # fmt: skip
def test_rounding_is_torchs(values: np.ndarray, low: float, high: float) -> None:
    if high - low < 1e-3:
        return
    scale = (high - low) / 255
    zero = int(np.round(-low / scale))
    wanted = torch.fake_quantize_per_tensor_affine(torch.from_numpy(values), scale, zero, 0, 255).numpy()
    # A value halfway between two steps may go either way in other precision: never further than a step.
    difference = np.abs(rounded(values, low, high) - wanted)
    assert difference.max() <= 1.001 * scale and (difference > 1e-4 * scale).mean() <= 0.1


FINITE = st.floats(-1e6, 1e6)
PAIRS = st.tuples(FINITE, FINITE).map(lambda pair: (min(pair), max(pair)))


@given(st.dictionaries(st.text(min_size=1), st.builds(LinearRanges, PAIRS, PAIRS)))
def test_ranges_are_read_as_they_were_written(ranges: dict[str, LinearRanges]) -> None:
    assert ranges_from_dict(json.loads(json.dumps(ranges_to_dict(ranges)))) == ranges


@pytest.mark.parametrize(
    "facts",
    [None, [], {"up": None}, {"up": {"input": [0, 1]}}, {"up": {"input": [0, 1], "output": [1, 0]}},
     {"up": {"input": [0, 1], "output": [0, 1, 2]}}, {"up": {"input": [0, 1], "output": [0, float("inf")]}},
     {"up": {"input": [float("nan"), 1], "output": [0, 1]}}, {"up": {"input": "ab", "output": [0, 1]}}],
)  # fmt: skip
def test_ranges_that_nobody_learned(facts: Any) -> None:
    with pytest.raises(UsageError, match="train it again"):
        ranges_from_dict(facts)


@pytest.mark.parametrize("width", [32, 312, 384, 768, 1024, 3072])
def test_of_a_large_tensor_every_channel_is_counted_alike(width: int) -> None:
    values = np.broadcast_to(np.arange(width, dtype=np.float32) - width / 2, (600, width))
    seen = SeenValues()
    seen.add(values)
    counted = int(seen.counts.sum())
    assert counted == values.size or COUNTED // 3 < counted <= COUNTED
    share = np.add.reduceat(seen.counts, np.arange(0, BINS, BINS // 16)) / counted
    assert share.max() < 1.05 / 16 and share.min() > 0.95 / 16
    assert (seen.low, seen.high) == (-width / 2, width / 2 - 1)
