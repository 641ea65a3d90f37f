"""The losses of distillation: on answers, on hidden states, and on how tokens relate to each other.

Answers as in Hinton et al. (https://arxiv.org/abs/1503.02531), states as in DistilBERT
(https://arxiv.org/abs/1910.01108) and TinyBERT (https://arxiv.org/abs/1909.10351), relations as in MiniLM
(https://arxiv.org/abs/2002.10957). Every loss is a mean, so its weight means the same for any batch size, and
every loss is computed in float32, whatever it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_LOG_MASS = -100.0  # stands for the logarithm of no mass at all, which is no finite number


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softened answers, times T squared; a scalar.

    Both logits: [batch, labels]. T squared keeps the gradient's size the same at any temperature.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def top_k_of(logits: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The k likeliest labels of softened answers: log-probabilities [batch, k] and labels [batch, k], and the

    log of the mass of all other labels [batch], LEAST_LOG_MASS at least. logits: [batch, labels].
    """
    scaled = logits.float() / temperature
    total = torch.logsumexp(scaled, dim=-1)
    top, labels = scaled.topk(k, dim=-1)
    rest = torch.logsumexp(scaled.scatter(-1, labels, -torch.inf), dim=-1)
    return top - total[:, None], labels, (rest - total).clamp(min=LEAST_LOG_MASS)


def top_k_soft_loss(
    student_logits: Tensor, top: Tensor, labels: Tensor, rest: Tensor, temperature: float
) -> Tensor:
    """KL(teacher || student) over k labels of each row and one more, "any other", times T squared; a scalar.

    student_logits: [batch, labels]. top, labels, rest: what top_k_of kept of the teacher at this temperature.
    Merging outcomes cannot raise a divergence: this is at most soft_target_loss, and equal to it for k labels
    of k.
    """
    scaled = student_logits.float() / temperature
    student = scaled.gather(-1, labels)
    teacher = top.float()
    if labels.shape[-1] < scaled.shape[-1]:
        # From the other logits themselves: 1 - the sum of the k would lose all digits of a small rest.
        others = torch.logsumexp(scaled.scatter(-1, labels, -torch.inf), dim=-1, keepdim=True)
        student = torch.cat([student, others], dim=-1)
        teacher = torch.cat([teacher, rest.float()[:, None]], dim=-1)
    student, teacher = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def binary_soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """soft_target_loss where every label is a yes or a no of its own: mean over rows and labels; a scalar.

    Both logits: [batch, labels]. Raises ValueError for logits of different shapes.
    """
    _same_shape("logits", student_logits, teacher_logits)
    student, teacher = student_logits.float() / temperature, teacher_logits.float() / temperature
    # Of yes and of no; the logarithm of 1 - sigmoid(x) is that of sigmoid(-x), and never infinite.
    yes = F.kl_div(F.logsigmoid(student), F.logsigmoid(teacher), reduction="none", log_target=True)
    no = F.kl_div(F.logsigmoid(-student), F.logsigmoid(-teacher), reduction="none", log_target=True)
    return (yes + no).mean() * temperature**2


def hard_label_loss(student_logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [batch, labels] against label indices [batch]; a scalar."""
    return F.cross_entropy(student_logits.float(), labels)


def binary_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits [batch, labels] against 0 or 1 for each, mean over both; a scalar.

    Raises ValueError for labels of another shape.
    """
    _same_shape("logits and labels", logits, labels)
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())


def squared_error_loss(student: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two columns of numbers, [batch] or [batch, 1] each; a scalar.

    target: labels, or the teacher's outputs. Raises ValueError for columns of different lengths.
    """
    # [batch] minus [batch, 1] would be [batch, batch] without a word.
    mine, wanted = (values.unsqueeze(-1) if values.ndim == 1 else values for values in (student, target))
    _same_shape("outputs", mine, wanted)
    return F.mse_loss(mine.float(), wanted.float())


def hidden_cosine_loss(student_hidden: Tensor, teacher_hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over real tokens of 1 - cos(student, teacher); a scalar, 0 when no token is real.

    Both hidden states: [batch, length, hidden]. attention_mask: [batch, length], 1 for real tokens.
    """
    cosine = F.cosine_similarity(student_hidden.float(), teacher_hidden.float(), dim=-1)
    mask = attention_mask.to(cosine.dtype)
    return ((1.0 - cosine) * mask).sum() / torch.clamp(mask.sum(), min=1.0)


def hidden_mse_loss(student_hidden: Tensor, teacher_hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean squared difference over real tokens and widths (TinyBERT); a scalar, 0 when no token is real.

    Both hidden states: [batch, length, hidden]; a narrower student's are projected before (see narrow.py).
    attention_mask: [batch, length], 1 for real tokens. Raises ValueError for states of different shapes.
    """
    _same_shape("hidden states", student_hidden, teacher_hidden)
    padded = (attention_mask == 0).unsqueeze(-1)
    difference = (student_hidden.float() - teacher_hidden.float()).masked_fill(padded, 0.0)
    return difference.square().sum() / (torch.clamp(attention_mask.sum(), min=1) * student_hidden.shape[-1])


def relation_loss(
    student_a: Tensor,
    student_b: Tensor,
    teacher_a: Tensor,
    teacher_b: Tensor,
    attention_mask: Tensor,
    heads: int,
) -> Tensor:
    """KL(teacher || student) of how the tokens of a relate to those of b; a scalar, 0 when no token is real.

    All four states: [batch, length, width], a model's two of one width that heads divides, which need not be
    the other model's, nor heads its attention's. Queries and keys give MiniLM's attention, values and values
    its value relation; MiniLMv2 (https://arxiv.org/abs/2012.15828) takes queries, keys and values, each with
    itself. attention_mask: [batch, length], 1 for real tokens. The mean is over heads and real tokens of a.
    Raises ValueError for lengths that differ and widths that heads does not divide.
    """
    student = _log_relations(student_a, student_b, attention_mask, heads)
    teacher = _log_relations(teacher_a, teacher_b, attention_mask, heads)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=(1, 3))
    divergence = divergence.masked_fill(attention_mask == 0, 0.0)
    return divergence.sum() / (torch.clamp(attention_mask.sum(), min=1) * heads)


def _log_relations(a: Tensor, b: Tensor, attention_mask: Tensor, heads: int) -> Tensor:
    """log softmax(a b^T / sqrt(width of a head)) over real tokens of b: [batch, heads, length, length]."""
    _same_shape("states", a, b)
    if a.shape[:2] != attention_mask.shape or a.shape[2] % heads:
        raise ValueError(
            f"states {list(a.shape)} do not fit mask {list(attention_mask.shape)} and {heads} relation heads"
        )
    batch, length, width = a.shape
    with torch.autocast(a.device.type, enabled=False):  # it would multiply float32 in bf16
        left, right = (
            states.float().reshape(batch, length, heads, width // heads).transpose(1, 2) for states in (a, b)
        )
        scores = left @ right.transpose(2, 3) * (width // heads) ** -0.5
        # Finite, so that a row without a real token has relations too, which then do not count.
        scores = scores.masked_fill((attention_mask == 0)[:, None, None, :], torch.finfo(scores.dtype).min)
        return F.log_softmax(scores, dim=-1)


def _same_shape(what: str, one: Tensor, other: Tensor) -> None:
    if one.shape != other.shape:
        raise ValueError(f"{what} of shapes {list(one.shape)} and {list(other.shape)}")
