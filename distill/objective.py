"""Which losses a student is taught with: those asked for, less those that make no sense for these models."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from stillroom.errors import UsageError


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses, and the temperature of the soft targets (1 at inference). 0: not computed.

    soft: on the teacher's answers. hard: on the labels. cosine: on the directions of the last hidden states.
    hidden: on the hidden states of every layer, projected to the teacher's width. relation: on how the tokens
    of the last layer relate, in relation_heads heads (0: the student's).
    """

    temperature: float = 2.0
    soft: float = 1.0
    hard: float = 0.5
    cosine: float = 1.0
    hidden: float = 0.0
    relation: float = 0.0
    relation_heads: int = 0


@dataclass(frozen=True)
class Objective:
    """weights: those to train with. left_out: a line for each loss that was asked for and cannot be."""

    weights: LossWeights
    left_out: tuple[str, ...]


def objective(
    asked: LossWeights,
    student_width: int,
    teacher_width: int,
    student_heads: int,
    *,
    same_tokenizer: bool = True,
    teachers: int = 1,
) -> Objective:
    """The losses that make sense between these models; what is left out has weight 0.

    Widths: hidden sizes. student_heads: attention heads. same_tokenizer: teacher and student read the same
    tokens. teachers: how many there are. weights.relation_heads is a number that divides both widths, or 0
    without that loss. Raises UsageError for relation_heads that do not, and when no loss is left.
    """
    why: dict[str, str] = {}
    if teachers > 1:
        why = dict.fromkeys(STATES, f"{teachers} teachers teach through their answers only")
    elif not same_tokenizer:
        why = dict.fromkeys(
            STATES, "the teacher has another tokenizer, so its hidden states are of other tokens"
        )
    elif student_width != teacher_width:
        why["cosine"] = (
            f"the student is {student_width} wide, the teacher {teacher_width}; hidden_weight projects"
        )
    left_out = {name: reason for name, reason in why.items() if getattr(asked, name)}
    nothing: dict[str, Any] = dict.fromkeys(left_out, 0.0)
    weights = replace(asked, **nothing)
    heads = _relation_heads(weights, student_width, teacher_width, student_heads) if weights.relation else 0
    lines = tuple(f"the {name} loss is left out: {reason}" for name, reason in left_out.items())
    if not any((weights.soft, weights.hard, weights.cosine, weights.hidden, weights.relation)):
        reasons = "".join(f"; {line}" for line in lines)
        raise UsageError(
            f"no loss is left to train with: give student.soft_weight or student.hard_weight{reasons}"
        )
    return Objective(replace(weights, relation_heads=heads), lines)


STATES = ("cosine", "hidden", "relation")  # losses that look inside the teacher, token by token


def _relation_heads(weights: LossWeights, student_width: int, teacher_width: int, student_heads: int) -> int:
    """Those asked for, or the student's; the next fewer where these do not divide the teacher's width."""
    common = math.gcd(student_width, teacher_width)
    wanted = weights.relation_heads or student_heads
    nearest = max(heads for heads in range(1, min(wanted, common) + 1) if common % heads == 0)
    if weights.relation_heads and nearest != wanted:
        raise UsageError(
            f"student.relation_heads {wanted}: expected a divisor of the student's width {student_width} and "
            f"of the teacher's {teacher_width}, as {nearest} is"
        )
    return nearest
