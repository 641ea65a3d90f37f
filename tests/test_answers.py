"""What logits say: against SciPy and scikit-learn, and what counts as another answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit
from scipy.special import softmax as scipy_softmax

from stillroom.answers import SCORE_DECIDED_FLIP, SCORE_FLIP, sigmoid, softmax
from stillroom.kinds import KINDS, all_scores
from stillroom.numerics import compare_logits

NAMES = ("ash", "birch", "cedar", "fir")
values = st.floats(-30, 30, width=32)
rows_of_four = hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.just(len(NAMES))), elements=values)


@given(rows_of_four)
def test_shares_are_those_of_scipy(logits: np.ndarray) -> None:
    for ours, theirs in ((softmax(logits), scipy_softmax(logits.astype(np.float64), axis=-1)),
                         (sigmoid(logits), expit(logits.astype(np.float64)))):  # fmt: skip
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_array_equal(softmax(logits[0]), softmax(logits)[0])


def test_shares_of_large_logits() -> None:
    found = softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], dtype=np.float32))
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.5, 0.5]])
    assert sigmoid(np.array([-800.0, 0.0, 800.0])).tolist() == [0.0, 0.5, 1.0]


@given(rows_of_four)
def test_a_row_labelled_with_its_own_answer_is_right(logits: np.ndarray) -> None:
    for name, metric in (("text-classification", "accuracy"), ("multi-label", "exact_match")):
        kind = KINDS[name]
        said = [kind.answer(NAMES, row) for row in logits]
        written = [one if isinstance(one, str) else "\n".join(map(str, one)) for one in said]
        assert all_scores(name, logits, kind.targets(written, NAMES))[metric] == 1.0
    scores, kind = logits[:, :1], KINDS["regression"]
    said = [kind.answer(("score",), row) for row in scores]
    assert all_scores("regression", scores, kind.targets(list(map(str, said)), ("score",)))["rmse"] == 0.0


def test_a_shift_of_a_row_counts_where_labels_do_not_exclude_each_other() -> None:
    reference = np.array([[3.0, -3.0], [-2.0, 2.0]])
    shifted = reference + np.array([[1.0], [-1.0]])
    assert compare_logits(reference, shifted).cosine == pytest.approx(1.0)
    assert compare_logits(reference, shifted, "multi-label").cosine < 0.99


def test_another_set_of_labels_is_a_flip() -> None:
    reference = np.array([[3.0, -3.0], [3.0, 0.01], [-3.0, -3.0]])
    changed = np.array([[3.0, -3.0], [3.0, -0.01], [3.0, -3.0]])
    found = compare_logits(reference, changed, "multi-label")
    assert found.flip_rate == pytest.approx(2 / 3)
    assert found.decided_flip_rate == pytest.approx(1 / 3)  # the middle row was undecided
    assert found.worst_row == 2


def test_a_moved_score_is_a_flip_in_units_of_the_spread() -> None:
    reference = np.array([[0.0], [100.0], [200.0], [300.0]])
    spread = reference.std()
    moved = (
        reference
        + np.array([[0.0], [0.9 * SCORE_FLIP], [1.1 * SCORE_FLIP], [1.1 * SCORE_DECIDED_FLIP]]) * spread
    )
    found = compare_logits(reference, moved, "regression")
    assert (found.flip_rate, found.decided_flip_rate, found.worst_row) == (0.5, 0.25, 3)
    assert found.max_abs_error == pytest.approx(1.1 * SCORE_DECIDED_FLIP)
    same = compare_logits(reference, reference, "regression")
    assert (same.max_abs_error, same.cosine, same.flip_rate) == (0.0, pytest.approx(1.0), 0.0)
