"""How good answers are: logits against what was wanted. Plain numpy, float64."""

from __future__ import annotations

import numpy as np


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is at the label. logits: [rows, labels]; labels: int64 [rows]."""
    return float((logits.argmax(axis=1) == labels).mean())


def macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Unweighted mean over the labels of 2TP / (2TP + FP + FN); a label never seen nor said is left out."""
    names = np.arange(logits.shape[1])
    return _macro(logits.argmax(axis=1)[:, None] == names, labels[:, None] == names)


def multilabel_micro_f1(logits: np.ndarray, wanted: np.ndarray) -> float:
    """2TP / (2TP + FP + FN) over all rows and labels; 1 when nothing was wanted and nothing said.

    logits, wanted (0 or 1): [rows, labels]; a label is said where its logit is 0 or more.
    """
    said, true = logits >= 0, wanted > 0.5
    total = int(said.sum() + true.sum())
    return 2 * int((said & true).sum()) / total if total else 1.0


def multilabel_macro_f1(logits: np.ndarray, wanted: np.ndarray) -> float:
    """macro_f1 where a row may have any number of labels. logits, wanted (0 or 1): [rows, labels]."""
    return _macro(logits >= 0, wanted > 0.5)


def exact_match(logits: np.ndarray, wanted: np.ndarray) -> float:
    """Share of rows whose labels are all right. logits, wanted (0 or 1): [rows, labels]."""
    return float(((logits >= 0) == (wanted > 0.5)).all(axis=1).mean())


def pearson(logits: np.ndarray, wanted: np.ndarray) -> float:
    """Pearson's correlation of two [rows, 1] arrays; 0 when one of them is constant."""
    left, right = _centred(logits), _centred(wanted)
    norm = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float(np.clip((left * right).sum() / norm, -1.0, 1.0)) if norm > 0 else 0.0


def spearman(logits: np.ndarray, wanted: np.ndarray) -> float:
    """Pearson's correlation of the ranks, equal values sharing their mean rank. Both: [rows, 1]."""
    return pearson(_ranks(logits), _ranks(wanted))


def root_mean_squared_error(logits: np.ndarray, wanted: np.ndarray) -> float:
    """In the unit of the scores. Both: [rows, 1]."""
    return float(np.sqrt(((logits.astype(np.float64) - wanted.astype(np.float64)) ** 2).mean()))


def _macro(said: np.ndarray, true: np.ndarray) -> float:
    hits, total = (said & true).sum(axis=0), said.sum(axis=0) + true.sum(axis=0)
    seen = total > 0
    return float((2 * hits[seen] / total[seen]).mean()) if seen.any() else 1.0


def _centred(values: np.ndarray) -> np.ndarray:
    flat = values.astype(np.float64).reshape(-1)
    return np.asarray(flat - flat.mean()) if np.ptp(flat) > 0 else np.zeros_like(flat)


def _ranks(values: np.ndarray) -> np.ndarray:
    _, where, counts = np.unique(values.reshape(-1), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[where])
