"""What logits say: the answer, its probabilities, and when a second answer is another one. Plain numpy.

Three forms of each, for the kinds of task in kinds.py. A "changes" function takes two sets of logits
[rows, labels], float64, and returns two masks [rows]: the second answer is another one; and the first was
decided, so that it should not be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# A change of label between two answers whose probabilities are this close is a tie broken the other way,
# not a different answer. Flips are always counted and shown; only decided flips fail a check.
TIE_MARGIN = 0.1
# A score has no label to flip: it is another answer when it moved by so many standard deviations of the
# scores, and a decided one when by so many more. int8 moves scores by a few hundredths.
SCORE_FLIP, SCORE_DECIDED_FLIP = 0.1, 0.25


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits [..., labels]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), in a form that does not overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))))


def likeliest_label(labels: Sequence[str], logits: np.ndarray) -> str:
    """The label with the largest of logits [labels]."""
    return labels[int(logits.argmax())]


def said_labels(labels: Sequence[str], logits: np.ndarray) -> list[str]:
    """The labels whose logit is 0 or more, a probability of 0.5."""
    return [label for label, logit in zip(labels, logits, strict=True) if logit >= 0]


def score(labels: Sequence[str], logits: np.ndarray) -> float:
    """The one number of a regression."""
    return float(logits[0])


def class_changes(expected: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Another class; decided when the first was ahead by TIE_MARGIN."""
    ranked = np.sort(softmax(expected), axis=1)
    return expected.argmax(axis=1) != got.argmax(axis=1), ranked[:, -1] - ranked[:, -2] >= TIE_MARGIN


def label_set_changes(expected: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Another set of labels; decided when one of the changed labels was TIE_MARGIN from being unsaid."""
    changed = (expected >= 0) != (got >= 0)
    margins = np.abs(2.0 * sigmoid(expected) - 1.0)  # between saying a label and not saying it
    return changed.any(axis=1), (changed & (margins >= TIE_MARGIN)).any(axis=1)


def score_changes(expected: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A score that moved by SCORE_FLIP, decided by SCORE_DECIDED_FLIP. Both in units of score_spread."""
    moved = np.abs(expected - got).max(axis=1)
    return moved > SCORE_FLIP, moved > SCORE_DECIDED_FLIP


def score_spread(logits: np.ndarray) -> float:
    """Standard deviation of scores, the unit that their errors are told in; 1 when they have none."""
    return float(logits.astype(np.float64).std()) or 1.0
