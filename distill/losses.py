"""The losses of distillation, as in DistilBERT (https://arxiv.org/abs/1910.01108) and Hinton et al.

(https://arxiv.org/abs/1503.02531). Every loss is a mean, so its weight means the same for any batch size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softened answers, times T squared; a scalar.

    Both logits: [batch, labels]. T squared keeps the gradient's size the same at any temperature.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def hard_label_loss(student_logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [batch, labels] against label indices [batch]; a scalar."""
    return F.cross_entropy(student_logits.float(), labels)


def hidden_cosine_loss(student_hidden: Tensor, teacher_hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over real tokens of 1 - cos(student, teacher); a scalar, 0 when no token is real.

    Both hidden states: [batch, length, hidden]. attention_mask: [batch, length], 1 for real tokens.
    """
    cosine = F.cosine_similarity(student_hidden.float(), teacher_hidden.float(), dim=-1)
    mask = attention_mask.to(cosine.dtype)
    return ((1.0 - cosine) * mask).sum() / torch.clamp(mask.sum(), min=1.0)
