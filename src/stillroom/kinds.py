"""What differs between the kinds of task, in one table: labels as they are written, targets, answers, scores.

A row's label is one string whatever the kind: a class; the labels of a multi-label row, sorted, one a line
("" for none); or a number. text.py reads them into this form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stillroom import answers, scores
from stillroom.errors import UsageError

STRATA = 5  # equal shares of the rows by score, each of which every split of a regression gets rows of
SCORE = "score"  # what the one output of a regression is called

Score = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Kind:
    """scores: name -> function of logits and targets; the first is the one that retention is measured in.

    names: a row's label -> those of the task's labels that it holds. targets: row labels and the task's
    labels -> what the logits should say. strata: row labels -> the group of each row; every split gets the
    same share of every group. answer, changes: see answers.py. probabilities: logits -> shares of the
    labels; None where there are none. unit: logits -> the unit their errors are told in. exclusive: a row
    has one of the labels, and a shift of all its logits changes nothing. problem_type: Hugging Face's name.
    """

    scores: dict[str, Score]
    names: Callable[[str], tuple[str, ...]]
    targets: Callable[[Sequence[str], Sequence[str]], np.ndarray]
    strata: Callable[[Sequence[str]], list[str]]
    answer: Callable[[Sequence[str], np.ndarray], str | list[str] | float]
    probabilities: Callable[[np.ndarray], np.ndarray] | None
    changes: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    unit: Callable[[np.ndarray], float]
    exclusive: bool
    problem_type: str
    fewest_labels: int

    @property
    def metric(self) -> str:
        """The score that counts."""
        return next(iter(self.scores))


def class_targets(row_labels: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Index of each row's label, int64 [rows]; -1 for one that is not among labels."""
    index_of = {label: index for index, label in enumerate(labels)}
    return np.array([index_of.get(label, -1) for label in row_labels], dtype=np.int64)


def multilabel_targets(row_labels: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """1.0 for each label a row has, float32 [rows, labels]."""
    index_of = {label: index for index, label in enumerate(labels)}
    wanted = np.zeros((len(row_labels), len(labels)), dtype=np.float32)
    for row, label in enumerate(row_labels):
        wanted[row, [index_of[name] for name in label_set(label) if name in index_of]] = 1.0
    return wanted


def score_targets(row_labels: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """The scores, float32 [rows, 1]; nan for a row that has none."""
    return np.array([[float(label or "nan")] for label in row_labels], dtype=np.float32)


def label_set(label: str) -> tuple[str, ...]:
    """The labels of a multi-label row."""
    return tuple(label.split("\n")) if label else ()


def rarest_label(row_labels: Sequence[str]) -> list[str]:
    """The rarest of each row's labels: a rare one is what a split must not go without. "" for no label."""
    counts = Counter(name for label in row_labels for name in label_set(label))
    return [min(label_set(label), key=lambda name: (counts[name], name), default="") for label in row_labels]


def score_strata(row_labels: Sequence[str]) -> list[str]:
    """Which fifth of all rows, by score, each belongs to."""
    values = np.array([float(label) for label in row_labels])
    edges = np.quantile(values, np.arange(1, STRATA) / STRATA)
    return [str(int(index)) for index in np.searchsorted(edges, values, side="right")]


KINDS = {
    "text-classification": Kind(
        scores={"accuracy": scores.accuracy, "macro_f1": scores.macro_f1},
        names=lambda label: (label,),
        targets=class_targets,
        strata=list,
        answer=answers.likeliest_label,
        probabilities=answers.softmax,
        changes=answers.class_changes,
        unit=lambda logits: 1.0,
        exclusive=True,
        problem_type="single_label_classification",
        fewest_labels=2,
    ),
    "multi-label": Kind(
        scores={
            "micro_f1": scores.multilabel_micro_f1,
            "macro_f1": scores.multilabel_macro_f1,
            "exact_match": scores.exact_match,
        },
        names=label_set,
        targets=multilabel_targets,
        strata=rarest_label,
        answer=answers.said_labels,
        probabilities=answers.sigmoid,
        changes=answers.label_set_changes,
        unit=lambda logits: 1.0,
        exclusive=False,
        problem_type="multi_label_classification",
        fewest_labels=1,
    ),
    "regression": Kind(
        scores={
            "pearson": scores.pearson,
            "spearman": scores.spearman,
            "rmse": scores.root_mean_squared_error,
        },
        names=lambda label: (SCORE,),
        targets=score_targets,
        strata=score_strata,
        answer=answers.score,
        probabilities=None,
        changes=answers.score_changes,
        unit=answers.score_spread,
        exclusive=False,
        problem_type="regression",
        fewest_labels=1,
    ),
}

# What people read, and whether it is a share to be shown in percent.
SCORE_WORDS = {
    "accuracy": ("accuracy", True),
    "macro_f1": ("macro-F1", True),
    "micro_f1": ("micro-F1", True),
    "exact_match": ("exact match", True),
    "pearson": ("Pearson's r", True),
    "spearman": ("Spearman's rho", True),
    "rmse": ("RMSE", False),
}


def kind_of(name: str) -> Kind:
    """Look a kind up. Raises UsageError naming those there are."""
    if name not in KINDS:
        raise UsageError(f"task {name!r}: expected one of {', '.join(KINDS)}")
    return KINDS[name]


def all_scores(kind: str, logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Every score of a kind, the one that counts first."""
    return {name: score(logits, targets) for name, score in kind_of(kind).scores.items()}


def in_words(found: dict[str, float]) -> str:
    """Scores as one line: "accuracy 80.22 %, macro-F1 75.82 %"."""
    words = []
    for name, value in found.items():
        label, share = SCORE_WORDS[name]
        words.append(f"{label} {100 * value:.2f} %" if share else f"{label} {value:.4g}")
    return ", ".join(words)


def fixed_answer(kind: str, row_labels: Sequence[str], labels: Sequence[str]) -> tuple[str, np.ndarray]:
    """The best answer that looks at no text, in words and as logits [1, labels]: what a model has to beat."""
    if kind == "regression":
        mean = float(score_targets(row_labels, labels).mean())
        return f"{mean:.4g}", np.array([[mean]], dtype=np.float32)
    counts = Counter(name for label in row_labels for name in kind_of(kind).names(label))
    best = max(labels, key=lambda name: counts[name])
    return best, np.where(np.array(labels) == best, 1.0, -1.0).astype(np.float32)[None]
