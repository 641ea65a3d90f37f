"""Retention, McNemar, calibration and flips against plain references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.benchmarks.quality import (
    calibration_error,
    flips_by_label,
    mcnemar,
    quality,
    retention_interval,
    right_rows,
)

LABELS = ("no", "yes")


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_the_sum_of_binomials(gained: int, lost: int) -> None:
    total, fewer = gained + lost, min(gained, lost)
    exact = sum(math.comb(total, k) for k in range(fewer + 1)) * 2 / 2**total
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, exact))


def test_a_large_one_sided_change_is_significant_and_huge_counts_do_not_overflow() -> None:
    assert mcnemar(5, 40) < 1e-5
    assert mcnemar(100_000, 100_000) == pytest.approx(1.0)
    assert mcnemar(0, 100_000) == 0.0


def logits_of(answers: list[int], sure: float = 3.0) -> np.ndarray:
    return np.array([[sure, 0.0] if answer == 0 else [0.0, sure] for answer in answers])


def test_facts_count_gained_lost_and_flipped_rows() -> None:
    targets = np.array([0, 0, 1, 1, 1])
    teacher, mine = logits_of([0, 1, 1, 0, 1]), logits_of([0, 0, 1, 1, 0])
    found = quality("text-classification", LABELS, mine, targets, {"teacher": teacher}, "teacher")
    against = found["against"]["teacher"]
    assert (against["gained"], against["lost"]) == (2, 1)
    assert against["p_value"] == pytest.approx(1.0)
    assert found["flips_by_label"] == {"no": {"rows": 2, "flips": 1}, "yes": {"rows": 3, "flips": 2}}
    nothing = quality("text-classification", LABELS, mine, targets, {"teacher": teacher}, None)
    assert nothing["flips_by_label"] == {}


def test_answers_of_one_model_retain_exactly_all() -> None:
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(300, 2)), generator.integers(2, size=300)
    assert retention_interval("text-classification", logits, logits, targets) == (1.0, 1.0)


def test_the_interval_holds_the_retention_and_nothing_is_retained_of_nothing() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(2, size=500)
    teacher = logits_of(np.where(generator.random(500) < 0.9, targets, 1 - targets).tolist())
    student = logits_of(np.where(generator.random(500) < 0.8, targets, 1 - targets).tolist())
    retention = right_rows("text-classification", student, targets).mean() / (
        right_rows("text-classification", teacher, targets).mean()
    )
    low, high = retention_interval("text-classification", student, teacher, targets)
    assert low is not None and high is not None and low < retention < high and high - low < 0.15
    wrong = logits_of((1 - targets).tolist())
    assert retention_interval("text-classification", student, wrong, targets) == (None, None)


def test_calibration_is_how_sure_against_how_often_right() -> None:
    sure = math.log(0.8 / 0.2)  # answers "no" with 80 %
    logits = np.tile([sure, 0.0], (10, 1))
    assert calibration_error("text-classification", logits, np.array([0] * 8 + [1] * 2)) == pytest.approx(0)
    assert calibration_error("text-classification", logits, np.array([0] * 3 + [1] * 7)) == pytest.approx(0.5)
    both = np.array([[sure, -sure]] * 10)  # each label of each row is right
    wanted = np.array([[1.0, 0.0]] * 10)
    assert calibration_error("multi-label", both, wanted) == pytest.approx(0.2)
    assert calibration_error("regression", logits[:, :1], wanted[:, :1]) is None


def test_several_labels_a_row_flip_one_by_one() -> None:
    mine, source = np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    targets = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert flips_by_label("multi-label", LABELS, mine, source, targets) == {
        "no": {"rows": 2, "flips": 0},
        "yes": {"rows": 1, "flips": 1},
    }
    assert right_rows("multi-label", source, targets).tolist() == [False, True]


def test_numbers_have_an_interval_and_no_rows_that_are_right() -> None:
    generator = np.random.default_rng(0)
    targets = generator.normal(size=(200, 1))
    near, far = targets + 0.1, targets + generator.normal(size=(200, 1))
    found = quality("regression", ("score",), far, targets, {"teacher": near}, "teacher")
    against = found["against"]["teacher"]
    assert against["p_value"] is against["gained"] is None
    assert 0.5 < against["retention_low"] < against["retention_high"] < 0.9
    assert found["calibration_error"] is None and found["flips_by_label"] == {}
