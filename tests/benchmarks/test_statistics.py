"""Percentiles, their intervals, and what is called a difference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.benchmarks.statistics import (
    NO_DIFFERENCE,
    PERCENTILES,
    STUDENT_T,
    Ratio,
    by_process,
    intervals,
    noise_floor,
    percentiles,
    ratio_of_medians,
    student_t,
    verdict,
)
from stillroom.errors import UsageError


@given(st.lists(st.floats(min_value=1e-3, max_value=1e6), min_size=1, max_size=60))
def test_percentiles_equal_a_plain_reference(samples: list[float]) -> None:
    def reference(percent: int) -> float:
        ordered = sorted(samples)
        place = (len(ordered) - 1) * percent / 100
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

    found = percentiles(samples)
    assert list(found) == ["p50", "p90", "p95", "p99"]
    for name, value in found.items():
        assert value == pytest.approx(reference(int(name[1:])), rel=1e-9)


def test_no_samples_have_no_percentiles() -> None:
    with pytest.raises(UsageError):
        percentiles([])


def rounds(seed: int, p50_ms: float = 3.0, processes: int = 5, calls: int = 30) -> np.ndarray:
    """Invented samples [processes, calls] whose processes differ by 2 %, with a tail."""
    generator = np.random.default_rng(seed)
    between = generator.normal(1, 0.02, (processes, 1))
    return np.asarray(p50_ms * (between + generator.exponential(0.02, (processes, calls))))


def test_intervals_hold_their_percentile_and_shrink_with_more_processes() -> None:
    few, many = rounds(1, processes=4), rounds(1, processes=64)
    widths = []
    for samples in (few, many):
        found = intervals(samples)
        at = percentiles(samples.ravel().tolist())
        assert all(found[name][0] <= at[name] <= found[name][1] for name in PERCENTILES)
        widths.append(found["p50"][1] - found["p50"][0])
    assert widths[1] < widths[0] / 2
    assert intervals(few) == intervals(few)


def test_samples_of_processes_come_in_turn() -> None:
    assert by_process([1, 2, 3, 4, 5, 6], 2).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_same_file_is_no_difference_in_95_of_100_pairs() -> None:
    different = 0
    for seed in range(200):
        first, second, other = (rounds(3 * seed + at) for at in range(3))
        third = rounds(10_000 + seed)  # the pair that is judged took no part in the A/A pair
        floor = noise_floor([first, second, other, third], (first, second))
        different += verdict(ratio_of_medians(other, third), floor) != NO_DIFFERENCE
    assert different <= 10


def test_a_real_difference_is_found_and_named_by_its_direction() -> None:
    first, again, quicker = rounds(1), rounds(2), rounds(3, p50_ms=2.4)
    floor = noise_floor([first, again, quicker], (first, again))
    assert verdict(ratio_of_medians(first, quicker), floor) == "faster"
    assert verdict(ratio_of_medians(quicker, first), floor) == "slower"


def test_drift_that_hits_all_alike_is_no_noise() -> None:
    drift = np.array([1.0, 1.5, 2.0, 2.5, 3.0])[:, None]
    first, second = np.full((5, 10), 2.0), np.full((5, 10), 4.0)
    assert noise_floor([first * drift, second * drift, first * drift], (first, first)) == pytest.approx(0)


def test_one_round_leaves_only_what_the_pair_shows() -> None:
    first, second = np.full((1, 5), 1.0), np.full((1, 5), 1.1)
    assert noise_floor([first, second], (first, second)) == pytest.approx(0.1)


@given(st.floats(1.0001, 10), st.floats(0, 1))
def test_within_the_floor_is_never_a_difference(value: float, floor: float) -> None:
    ratio = Ratio(value, value * 0.9999, value * 1.0001)
    assert (verdict(ratio, floor) == NO_DIFFERENCE) == (ratio.low <= 1 or value <= 1 + floor)


def test_student_t_is_never_below_the_true_quantile() -> None:
    for freedom in range(1, 200):
        assert student_t(freedom) == STUDENT_T[max(known for known in STUDENT_T if known <= freedom)]
    assert student_t(4) == 2.78 and student_t(11) == 2.23 and student_t(10**6) == 2.00
