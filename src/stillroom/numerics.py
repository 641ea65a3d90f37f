"""Numbers that compare two sets of logits, and scores of logits against labels. Plain numpy, float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A change of label between two answers whose probabilities are this close is a tie broken the other way,
# not a different answer. Flips are always counted and shown; only decided flips fail a check.
TIE_MARGIN = 0.1


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


def compare_logits(reference: np.ndarray, logits: np.ndarray) -> Agreement:
    """Compare logits [rows, labels] with reference logits of the same shape.

    Raises ValueError when the shapes differ or there are no rows. A value that is not finite counts as an
    infinite error and a flip.
    """
    if reference.shape != logits.shape or reference.ndim != 2 or not len(reference):
        raise ValueError(f"logits have shape {logits.shape}, the reference {reference.shape}")
    expected, got = reference.astype(np.float64), logits.astype(np.float64)
    finite = np.asarray((np.isfinite(got) & np.isfinite(expected)).all(axis=1))
    expected = np.where(finite[:, None], expected, 0.0)
    got = np.where(finite[:, None], got, 0.0)
    errors = np.where(finite, np.abs(expected - got).max(axis=1), np.inf)
    flipped = (expected.argmax(axis=1) != got.argmax(axis=1)) | ~finite
    ranked = np.sort(softmax(expected), axis=1)
    decided = flipped & ((ranked[:, -1] - ranked[:, -2] >= TIE_MARGIN) | ~finite)
    left = expected - expected.mean(axis=1, keepdims=True)
    right = got - got.mean(axis=1, keepdims=True)
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


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is at the label. logits: [rows, labels]; labels: int64 [rows]."""
    return float((logits.argmax(axis=1) == labels).mean())


def macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Unweighted mean over the labels of 2TP / (2TP + FP + FN); a label never seen nor said is left out."""
    predicted = logits.argmax(axis=1)
    scores = []
    for label in range(logits.shape[1]):
        hits = int(((predicted == label) & (labels == label)).sum())
        total = int((predicted == label).sum() + (labels == label).sum())
        if total:
            scores.append(2 * hits / total)
    return float(np.mean(scores))
