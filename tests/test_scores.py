"""Scores against scikit-learn and scipy, and by hand where those have no answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillroom.scores import (
    exact_match,
    multilabel_macro_f1,
    multilabel_micro_f1,
    pearson,
    root_mean_squared_error,
    spearman,
)

shapes = st.tuples(st.integers(1, 12), st.integers(1, 4))
labelled = shapes.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0])),
        hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0])),
    )
)
columns = st.integers(2, 20).flatmap(
    lambda rows: st.tuples(
        *[hnp.arrays(np.float32, (rows, 1), elements=st.floats(-5, 5, width=16)) for _ in range(2)]
    )
)


@given(labelled)
def test_multilabel_scores_are_those_of_scikit_learn(both: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    logits, wanted = both
    said, true = logits >= 0, wanted > 0.5
    seen = said.any(axis=0) | true.any(axis=0)
    if seen.any():
        # Flat: of a single column scikit-learn would count the absent label as a class of its own.
        flat = f1_score(true.ravel(), said.ravel())
        assert multilabel_micro_f1(logits, wanted) == pytest.approx(flat)
        parts = [f1_score(true[:, label], said[:, label]) for label in np.flatnonzero(seen)]
        assert multilabel_macro_f1(logits, wanted) == pytest.approx(np.mean(parts))
    else:
        assert multilabel_micro_f1(logits, wanted) == multilabel_macro_f1(logits, wanted) == 1.0
    matches = float((said == true).all(axis=1).mean())
    assert exact_match(logits, wanted) == pytest.approx(matches)
    assert exact_match(logits, wanted) == pytest.approx(
        accuracy_score(true, said) if logits.shape[1] > 1 else matches
    )


@given(columns)
def test_correlations_are_those_of_scipy(both: tuple[np.ndarray, np.ndarray]) -> None:
    from scipy.stats import pearsonr, spearmanr

    one, other = (column[:, 0].astype(np.float64) for column in both)
    if min(np.ptp(one), np.ptp(other)) < 1e-3:  # scipy warns of nearly constant columns
        return
    assert pearson(*both) == pytest.approx(pearsonr(one, other)[0], abs=1e-6)
    assert spearman(*both) == pytest.approx(spearmanr(one, other)[0], abs=1e-6)


def test_a_constant_answer_has_no_correlation() -> None:
    wanted = np.array([[1.0], [2.0], [3.0]])
    assert pearson(np.full((3, 1), 0.1), wanted) == spearman(np.full((3, 1), 0.1), wanted) == 0.0
    assert root_mean_squared_error(np.full((3, 1), 2.0), wanted) == pytest.approx((2 / 3) ** 0.5)
