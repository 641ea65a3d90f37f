"""Numbers that compare two sets of logits. Plain numpy, float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.kinds import kind_of


@dataclass(frozen=True)
class Agreement:
    """How far logits are from reference logits over the same rows.

    max_abs_error: logits, or spreads of the scores. cosine: of all logits as one vector, their mean removed;
    where labels exclude each other each row's mean, as a shift of a row changes no answer (the smallest
    cosine of a row would tell of rows whose logits are all nearly alike).
    flip_rate, decided_flip_rate: shares of rows. worst_row: index of the row with the largest error, a
    decided flip before any other.
    """

    rows: int
    max_abs_error: float
    cosine: float
    flip_rate: float
    decided_flip_rate: float
    worst_row: int


def compare_logits(reference: np.ndarray, logits: np.ndarray, kind: str = "text-classification") -> Agreement:
    """Compare logits [rows, labels] with reference logits of the same shape.

    kind: of task; says what another answer is (see answers.py) and the unit of errors.
    Raises ValueError when the shapes differ or there are no rows. A value that is not finite counts as an
    infinite error and a flip.
    """
    if reference.shape != logits.shape or reference.ndim != 2 or not len(reference):
        raise ValueError(f"logits have shape {logits.shape}, the reference {reference.shape}")
    expected, got = reference.astype(np.float64), logits.astype(np.float64)
    finite = np.asarray((np.isfinite(got) & np.isfinite(expected)).all(axis=1))
    expected = np.where(finite[:, None], expected, 0.0)
    got = np.where(finite[:, None], got, 0.0)
    told = kind_of(kind)
    unit = told.unit(expected)
    expected, got = expected / unit, got / unit
    errors = np.where(finite, np.abs(expected - got).max(axis=1), np.inf)
    changed, firm = told.changes(expected, got)
    flipped, decided = changed | ~finite, (changed & firm) | ~finite
    axis = 1 if told.exclusive else None
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
