"""The two losses on answers, soft and hard, for every kind of task: one table.

Rows without a label (transfer text, on which only the teacher speaks) count in the soft loss alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stillroom.distill.losses import (
    binary_label_loss,
    binary_soft_target_loss,
    hard_label_loss,
    soft_target_loss,
    squared_error_loss,
)
from stillroom.distill.score_scale import ScoreScale


@dataclass(frozen=True)
class TaskLoss:
    """soft: student's logits, teacher's logits, temperature. hard: logits, targets. Both give a mean."""

    soft: Callable[[Tensor, Tensor, float], Tensor]
    hard: Callable[[Tensor, Tensor], Tensor]


# Numbers have no temperature: a squared error has no second choices to bring out.
TASK_LOSSES = {
    "text-classification": TaskLoss(soft_target_loss, hard_label_loss),
    "multi-label": TaskLoss(binary_soft_target_loss, binary_label_loss),
    "regression": TaskLoss(
        lambda student, teacher, _: squared_error_loss(student, teacher), squared_error_loss
    ),
}


def soft_loss(
    kind: str, logits: Tensor, teacher_logits: Tensor, temperature: float, scale: ScoreScale
) -> Tensor:
    """The loss against the teacher's answers. logits: [batch, labels], the teacher's in the scores' unit."""
    if kind == "regression":
        teacher_logits = scale.standardised(teacher_logits)
    return TASK_LOSSES[kind].soft(logits, teacher_logits, temperature)


def hard_loss_of(kind: str, logits: Tensor, targets: Tensor, scale: ScoreScale) -> tuple[Tensor, int]:
    """The loss against the rows' own labels, and how many rows have one; 0 where none has.

    logits: [batch, labels]. targets: as kinds.py makes them; -1 or nan stands for no label.
    """
    known = has_label(targets)
    count = int(known.sum())
    if not count:
        return logits.float().sum() * 0.0, 0
    if count < len(targets):
        logits, targets = logits[known], targets[known]
    if kind == "regression":
        targets = scale.standardised(targets)
    return TASK_LOSSES[kind].hard(logits, targets), count


def has_label(targets: Tensor) -> Tensor:
    """Which rows have a label: bool [rows]."""
    if targets.ndim == 1:
        return targets >= 0
    return ~torch.isnan(targets).any(dim=1)
