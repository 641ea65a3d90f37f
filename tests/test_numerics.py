"""Agreement of logits and scores against plain implementations, and what a value that is no number does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillroom.answers import TIE_MARGIN
from stillroom.numerics import Agreement, compare_logits
from stillroom.scores import accuracy, macro_f1

NOT_FINITE = [math.nan, math.inf, -math.inf]
values = st.floats(-30, 30, width=32)
shapes = st.tuples(st.integers(1, 8), st.integers(2, 5))
matrices = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=values))
pairs = shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=values)] * 2))


def plain_softmax(row: list[float]) -> list[float]:
    weights = [math.exp(value - max(row)) for value in row]
    return [weight / math.fsum(weights) for weight in weights]


def plain_agreement(reference: list[list[float]], logits: list[list[float]]) -> Agreement:
    """Row by row, with Python's own floats."""
    errors, lefts, rights, flips, decided = [], [], [], [], []
    for wanted, got in zip(reference, logits, strict=True):
        errors.append(max(abs(one - other) for one, other in zip(wanted, got, strict=True)))
        flips.append(wanted.index(max(wanted)) != got.index(max(got)))
        best, second = sorted(plain_softmax(wanted), reverse=True)[:2]
        decided.append(flips[-1] and best - second >= TIE_MARGIN)
        lefts += [value - math.fsum(wanted) / len(wanted) for value in wanted]
        rights += [value - math.fsum(got) / len(got) for value in got]
    worst = max(range(len(errors)), key=lambda row: (decided[row], errors[row], -row))
    rows, norm = len(errors), math.hypot(*lefts) * math.hypot(*rights)
    cosine = math.fsum(a * b for a, b in zip(lefts, rights, strict=True)) / norm
    return Agreement(rows, max(errors), cosine, sum(flips) / rows, sum(decided) / rows, worst)


@given(pairs)
def test_compare_logits_is_the_plain_one(logits: tuple[np.ndarray, np.ndarray]) -> None:
    reference, got = logits
    margins = [sorted(plain_softmax(row), reverse=True) for row in reference.tolist()]
    # Within rounding of the margin either answer is right; rows without any spread have no direction.
    assume(all(abs(row[0] - row[1] - TIE_MARGIN) > 1e-9 for row in margins))
    assume((np.ptp(reference, axis=1) > 1e-3).all() and (np.ptp(got, axis=1) > 1e-3).all())
    found, wanted = compare_logits(reference, got), plain_agreement(reference.tolist(), got.tolist())
    assert found.rows == wanted.rows and found.worst_row == wanted.worst_row
    assert found.max_abs_error == pytest.approx(wanted.max_abs_error, rel=1e-12)
    assert found.cosine == pytest.approx(wanted.cosine, abs=1e-9)
    assert found.flip_rate == pytest.approx(wanted.flip_rate)
    assert found.decided_flip_rate == pytest.approx(wanted.decided_flip_rate)
    assert found.decided_flip_rate <= found.flip_rate


@given(matrices)
def test_equal_logits_agree(logits: np.ndarray) -> None:
    found = compare_logits(logits, logits.copy())
    assert (found.max_abs_error, found.flip_rate, found.decided_flip_rate) == (0.0, 0.0, 0.0)
    assert found.cosine == pytest.approx(1.0)


@given(matrices, st.floats(-5, 5))
def test_a_shift_of_all_logits_changes_no_answer(logits: np.ndarray, shift: float) -> None:
    assume((np.ptp(logits, axis=1) > 0.1).all())
    found = compare_logits(logits.astype(np.float64), logits.astype(np.float64) + shift)
    assert found.cosine == pytest.approx(1.0)
    assert found.max_abs_error == pytest.approx(abs(shift), abs=1e-9)


def test_a_near_tie_turned_round_hardly_shows_in_the_cosine() -> None:
    reference = np.array([[5.0, -5.0], [0.01, -0.01]])
    assert compare_logits(reference, reference * [[1.0], [-1.0]]).cosine > 0.999
    assert compare_logits(reference, -reference).cosine == pytest.approx(-1.0)


def test_flips_of_ties_are_counted_but_not_decided() -> None:
    tie, decided = [0.1, 0.0], [0.5, 0.0]  # probabilities 0.525 and 0.622: 0.05 and 0.24 apart
    found = compare_logits(np.array([tie, decided, decided]), np.array([[0.0, 9.0], decided, decided]))
    assert found.flip_rate == pytest.approx(1 / 3) and found.decided_flip_rate == 0.0
    found = compare_logits(np.array([tie, decided, decided]), np.array([tie, [0.0, 0.1], decided]))
    assert found.flip_rate == pytest.approx(1 / 3) == found.decided_flip_rate
    # The reference decides what a tie is, not the answer compared with it.
    found = compare_logits(np.array([tie]), np.array([[0.0, 50.0]]))
    assert found.flip_rate == 1.0 and found.decided_flip_rate == 0.0


def test_the_worst_row_is_a_decided_flip_before_any_other() -> None:
    reference = np.array([[9.0, 0.0], [2.0, 0.0], [0.05, 0.0]])
    answers = np.array([[19.0, 0.0], [0.0, 2.0], [0.0, 7.0]])
    found = compare_logits(reference, answers)
    assert found.worst_row == 1 and found.max_abs_error == 10.0
    answers[1] = [3.0, 0.0]
    assert compare_logits(reference, answers).worst_row == 0


@given(matrices, st.sampled_from(NOT_FINITE), st.data())
def test_an_answer_that_is_no_number(reference: np.ndarray, value: float, data: st.DataObject) -> None:
    got = reference.copy()
    row, column = (data.draw(st.integers(0, size - 1)) for size in got.shape)
    got[row, column] = value
    found = compare_logits(reference, got)
    assert found.max_abs_error == math.inf and found.cosine == -1.0 and found.worst_row == row
    assert found.flip_rate == found.decided_flip_rate == pytest.approx(1 / len(got))


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_reference_that_is_no_number_proves_nothing(value: float) -> None:
    reference = np.array([[value, 0.0], [2.0, 0.0]])
    for answers in (np.array([[1.0, 0.0], [2.0, 0.0]]), reference.copy()):
        found = compare_logits(reference, answers)
        assert found.max_abs_error == math.inf and found.worst_row == 0
        assert found.flip_rate == found.decided_flip_rate == 0.5


def test_a_model_that_answers_the_same_to_everything_is_not_alike() -> None:
    assert compare_logits(np.array([[3.0, -3.0]]), np.zeros((1, 2))).cosine <= 0.0
    assert compare_logits(np.zeros((1, 2)), np.zeros((1, 2))).cosine == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [((2, 3), (2, 2)), ((2, 3), (3, 3)), ((3,), (3,)), ((0, 2), (0, 2)), ((1, 2, 2), (1, 2, 2))],
)
def test_shapes_that_cannot_be_compared(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="logits have shape"):
        compare_logits(np.zeros(one), np.zeros(other))


scored = shapes.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=values),
        hnp.arrays(np.int64, shape[:1], elements=st.integers(0, shape[1] - 1)),
    )
)


@given(scored)
def test_scores_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    logits, labels = rows
    predicted = logits.argmax(axis=1)
    assert accuracy(logits, labels) == pytest.approx(accuracy_score(labels, predicted))
    assert macro_f1(logits, labels) == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_macro_f1_by_hand() -> None:
    # Said: 0 0 1 1 0; true: 0 1 1 1 0. F1 of 0: 2*2/(3+2), of 1: 2*2/(2+3); label 2 never occurs.
    logits = np.eye(3)[[0, 0, 1, 1, 0]]
    assert macro_f1(logits, np.array([0, 1, 1, 1, 0])) == pytest.approx((4 / 5 + 4 / 5) / 2)
    # A label that is said but never true counts as 0.
    logits = np.eye(3)[[0, 0, 1, 1, 2]]
    assert macro_f1(logits, np.array([0, 0, 1, 1, 0])) == pytest.approx((4 / 5 + 1 + 0) / 3)
    assert accuracy(logits, np.array([0, 0, 1, 1, 0])) == pytest.approx(4 / 5)
