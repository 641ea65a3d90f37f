"""Which losses a student is taught with: those asked for, less those that make no sense for these models."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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


DEFAULT_WEIGHTS = LossWeights()


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
    """The losses that make sense between these models; one that is left out has weight 0.

    Widths: hidden sizes. student_heads: attention heads. same_tokenizer: teacher and student read the same
    tokens. teachers: how many there are. The relation_heads of the result divide both widths, and are 0
    without that loss. Raises UsageError for relation_heads that do not, and when no loss is left.
    """
    cosine = hidden = relation = ""  # why each is left out
    if teachers > 1:
        cosine = hidden = relation = f"{teachers} teachers teach through their answers only"
    elif not same_tokenizer:
        cosine = hidden = relation = "the teacher has another tokenizer, so its states are of other tokens"
    elif student_width != teacher_width:
        cosine = f"the student is {student_width} wide, the teacher {teacher_width}; hidden_weight projects"
    reasons = (
        ("cosine", asked.cosine, cosine),
        ("hidden", asked.hidden, hidden),
        ("relation", asked.relation, relation),
    )
    left_out = tuple(f"the {name} loss is left out: {why}" for name, weight, why in reasons if weight and why)
    weights = replace(
        asked,
        cosine=0.0 if cosine else asked.cosine,
        hidden=0.0 if hidden else asked.hidden,
        relation=0.0 if relation else asked.relation,
    )
    if not any((weights.soft, weights.hard, weights.cosine, weights.hidden, weights.relation)):
        line = "no loss is left to train with: expected student.soft_weight or hard_weight above 0"
        raise UsageError("; ".join((line, *left_out)))
    heads = _relation_heads(asked, student_width, teacher_width, student_heads) if weights.relation else 0
    return Objective(replace(weights, relation_heads=heads), left_out)


def _relation_heads(asked: LossWeights, student_width: int, teacher_width: int, student_heads: int) -> int:
    """Those asked for, or the student's; where these do not divide both widths, the next fewer that do."""
    common = math.gcd(student_width, teacher_width)
    wanted = asked.relation_heads or student_heads
    nearest = max((heads for heads in range(1, wanted + 1) if common % heads == 0), default=1)
    if asked.relation_heads and nearest != wanted:
        raise UsageError(
            f"student.relation_heads {wanted}: expected a divisor of the student's width, {student_width}, "
            f"and of the teacher's, {teacher_width}, as {nearest} is"
        )
    return nearest
