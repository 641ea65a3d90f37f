"""Numbers that compare two sets of logits. Plain numpy, float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A change of label between two answers whose probabilities are this close is a tie broken the other way,
# not a different answer. Flips are always counted and shown; only decided flips fail a check.
TIE_MARGIN = 0.1
# A score has no label to flip: it is another answer when it moved by so many standard deviations of the
# scores, and a decided one when by so many more. int8 moves scores by a few hundredths.
SCORE_FLIP, SCORE_DECIDED_FLIP = 0.1, 0.25


@dataclass(frozen=True)
class Agreement:
    """How far logits are from reference logits over the same rows.

    max_abs_error: logits. cosine: of all logits as one vector, each row's mean removed (a shift of a row
    changes no answer; the smallest cosine of a row would tell of rows whose logits are all nearly alike).
    flip_rate, decided_flip_rate: shares of rows. worst_row: index of the row with the largest error, a
    decided flip before any other.
    """

    rows: int
    max_abs_error: float
    cosine: float
    flip_rate: float
    decided_flip_rate: float
    worst_row: int


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [rows, labels] from logits [rows, labels]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), in a form that does not overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))))


def compare_logits(reference: np.ndarray, logits: np.ndarray, kind: str = "text-classification") -> Agreement:
    """Compare logits [rows, labels] with reference logits of the same shape.

    kind: what another answer means: another class; another set of labels; a score that moved by more than
    SCORE_FLIP of the spread of the reference's scores. For "regression" errors are in units of that spread.
    Raises ValueError when the shapes differ or there are no rows. A value that is not finite counts as an
    infinite error and a flip.
    """
    if reference.shape != logits.shape or reference.ndim != 2 or not len(reference):
        raise ValueError(f"logits have shape {logits.shape}, the reference {reference.shape}")
    expected, got = reference.astype(np.float64), logits.astype(np.float64)
    finite = np.asarray((np.isfinite(got) & np.isfinite(expected)).all(axis=1))
    expected = np.where(finite[:, None], expected, 0.0)
    got = np.where(finite[:, None], got, 0.0)
    if kind == "regression":
        spread = float(expected.std()) or 1.0  # without one, in the scores' own unit
        expected, got = expected / spread, got / spread
    errors = np.where(finite, np.abs(expected - got).max(axis=1), np.inf)
    changed, margin = _changes(expected, got, kind)
    flipped = changed | ~finite
    decided = flipped & ((margin >= TIE_MARGIN) | ~finite)
    axis = None if kind == "regression" else 1  # the mean of one number is that number
    left = expected - expected.mean(axis=axis, keepdims=True)
    right = got - got.mean(axis=axis, keepdims=True)
    lengths = float(np.linalg.norm(left)), float(np.linalg.norm(right))
    if min(lengths) > 0:
        cosine = float((left * right).sum()) / (lengths[0] * lengths[1])
    else:  # one or both say nothing: alike if both do
        cosine = float(lengths[0] == lengths[1])
    suspects = np.where(decided, errors, -1.0) if decided.any() else errors
    return Agreement(
        rows=len(expected),
        max_abs_error=float(errors.max()),
        cosine=cosine if finite.all() else -1.0,
        flip_rate=float(flipped.mean()),
        decided_flip_rate=float(decided.mean()),
        worst_row=int(suspects.argmax()),
    )


def _changes(expected: np.ndarray, got: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Per row: is the answer another one, and by what margin of probability was the first one decided?"""
    if kind == "text-classification":
        ranked = np.sort(softmax(expected), axis=1)
        margin = ranked[:, -1] - ranked[:, -2]
        return expected.argmax(axis=1) != got.argmax(axis=1), margin
    if kind == "multi-label":
        changed = (expected >= 0) != (got >= 0)
        margins = np.abs(2.0 * sigmoid(expected) - 1.0)  # between saying a label and not saying it
        return changed.any(axis=1), np.where(changed, margins, 0.0).max(axis=1)
    moved = np.abs(expected - got).max(axis=1)
    return moved > SCORE_FLIP, np.where(moved > SCORE_DECIDED_FLIP, 1.0, 0.0)
