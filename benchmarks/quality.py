"""How good answers are beside others' answers to the same rows: what is kept, gained, lost, and how sure.

McNemar's exact test (McNemar 1947) looks at the rows that one model has right and the other wrong; expected
calibration error as in Guo et al. 2017 (https://arxiv.org/abs/1706.04599), with 15 bins of equal width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stillroom.benchmarks.statistics import INTERVAL, RESAMPLES
from stillroom.kinds import kind_of

BINS = 15


def quality(
    kind: str,
    labels: Sequence[str],
    logits: np.ndarray,
    targets: np.ndarray,
    references: Mapping[str, np.ndarray],
    source: str | None,
) -> dict[str, Any]:
    """Facts about logits [rows, labels] whose right answers are targets (as kinds.py makes them), as JSON.

    references: name -> logits of the same rows; source: the one of them that flips are counted against, None
    for a model that has none. calibration_error: between 0 and 1, null where there are no probabilities.
    """
    return {
        "calibration_error": calibration_error(kind, logits, targets),
        "against": {name: _against(kind, logits, other, targets) for name, other in references.items()},
        "flips_by_label": {}
        if source is None
        else flips_by_label(kind, labels, logits, references[source], targets),
    }


def _against(kind: str, logits: np.ndarray, other: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    low, high = retention_interval(kind, logits, other, targets)
    facts: dict[str, Any] = {"retention_low": low, "retention_high": high}
    if kind == "regression":  # no row is right or wrong
        return {**facts, "gained": None, "lost": None, "p_value": None}
    mine, theirs = right_rows(kind, logits, targets), right_rows(kind, other, targets)
    gained, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    return {**facts, "gained": gained, "lost": lost, "p_value": mcnemar(gained, lost)}


def right_rows(kind: str, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Which rows are answered right, bool [rows]: the label, or all of a row's labels."""
    if kind == "text-classification":
        return np.asarray(logits.argmax(axis=1) == targets)
    return np.asarray(((logits >= 0) == (targets > 0.5)).all(axis=1))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value that of gained + lost rows, each as likely one as the other, so few are one."""
    total, fewer = gained + lost, min(gained, lost)
    if total == 0:
        return 1.0
    below = sum(
        math.exp(
            math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        )
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * below)


def retention_interval(
    kind: str, logits: np.ndarray, other: np.ndarray, targets: np.ndarray
) -> tuple[float | None, float | None]:
    """95 % interval of score over the other's score, the same rows drawn for both (a paired bootstrap).

    None where in some draw the other's score is not above 0: nothing can be retained of it.
    """
    score = next(iter(kind_of(kind).scores.values()))
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(RESAMPLES):
        rows = generator.integers(len(targets), size=len(targets))
        reference = score(other[rows], targets[rows])
        if not reference > 0:
            return None, None
        ratios.append(score(logits[rows], targets[rows]) / reference)
    low, high = np.percentile(ratios, INTERVAL)
    return float(low), float(high)


def calibration_error(kind: str, logits: np.ndarray, targets: np.ndarray) -> float | None:
    """Mean distance between how sure answers are and how often they are right, weighted by rows."""
    probabilities = kind_of(kind).probabilities
    if probabilities is None:
        return None
    shares = np.asarray(probabilities(logits), dtype=np.float64)
    if kind == "text-classification":
        sure, right = shares.max(axis=1), right_rows(kind, logits, targets)
    else:  # every label of every row is a decision of its own
        sure = np.maximum(shares, 1 - shares).ravel()
        right = ((logits >= 0) == (targets > 0.5)).ravel()
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(float((sure - right)[bins == at].sum())) for at in range(BINS)]
    return sum(gaps) / len(sure)


def flips_by_label(
    kind: str, labels: Sequence[str], logits: np.ndarray, source: np.ndarray, targets: np.ndarray
) -> dict[str, dict[str, int]]:
    """Label -> its rows, and those of them whose answer is another than the source's.

    Of several labels a row: the rows that have the label, and all rows where one says it and the other not.
    Nothing for regression.
    """
    if kind == "regression":
        return {}
    if kind == "text-classification":
        other = logits.argmax(axis=1) != source.argmax(axis=1)
        has = targets[:, None] == np.arange(len(labels))
        flips = (has & other[:, None]).sum(axis=0)
    else:
        has = targets > 0.5
        flips = ((logits >= 0) != (source >= 0)).sum(axis=0)
    rows = has.sum(axis=0)
    return {label: {"rows": int(rows[at]), "flips": int(flips[at])} for at, label in enumerate(labels)}
