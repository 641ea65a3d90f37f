"""Training rows with some tokens hidden, and what a teacher answers about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillroom.distill.corpus import Corpus
from stillroom.distill.losses import soft_target_loss
from stillroom.distill.masked_lm import AtPositions
from stillroom.distill.masking import IGNORED, mask_tokens
from stillroom.distill.train import mixed_precision


@dataclass(frozen=True)
class Masking:
    """share: of the ordinary tokens. whole_words: hide words, not pieces of them.

    soft_positions: where the teacher is imitated: "masked", the hidden tokens, or "all". All takes the memory
    and time of the vocabulary's logits at every token, about seven times as much. variants: after so many
    epochs the masks repeat; 0 for other masks in every epoch.
    """

    share: float = 0.15
    whole_words: bool = False
    soft_positions: str = "masked"
    variants: int = 0

    def variant(self, epoch: int) -> int:
        """The first epoch that had this epoch's masks."""
        return epoch % self.variants if self.variants else epoch


@dataclass(frozen=True)
class Batch:
    """Some rows with their masks, those of one variant. inputs: int64 [rows, length].

    positions: int64 [n], into the rows in line: where answers are wanted. asked: int64 [m], which of the
    positions are hidden tokens; labels: int64 [m].
    """

    rows: np.ndarray
    variant: int
    inputs: Tensor
    positions: Tensor
    asked: Tensor
    labels: Tensor


BERTS = Masking()

# A batch -> the soft-target loss of student logits [positions, vocabulary], and the teacher's last hidden
# states [rows, length, hidden], or None where a cache was told to leave them out.
TeacherAnswers = Callable[[Batch], tuple[Callable[[Tensor], Tensor], Tensor | None]]


def masked_batch(
    corpus: Corpus, rows: np.ndarray, seed: int, epoch: int, masking: Masking, device: torch.device
) -> Batch:
    """Training rows with the masks of an epoch.

    A row without an ordinary token is asked for its first, so that no batch, and no process' share of one, is
    without a question.
    """
    ids, starts = corpus.train.read(rows)
    special, variant = corpus.special, masking.variant(epoch)
    inputs, labels = mask_tokens(
        ids, seed, variant, rows, special.ids, special.vocabulary_size, special.mask_id, masking.share,
        starts if masking.whole_words else None,
    )  # fmt: skip
    wordless = (labels == IGNORED).all(axis=1)
    labels[wordless, 0] = ids[wordless, 0]
    flat = labels.reshape(-1)
    hidden = np.flatnonzero(flat != IGNORED)
    everywhere = masking.soft_positions == "all"
    positions = np.arange(flat.size) if everywhere else hidden
    asked = hidden if everywhere else np.arange(len(hidden))
    there = [torch.from_numpy(array).to(device) for array in (inputs, positions, asked, flat[hidden])]
    return Batch(rows, variant, *there)


def ask(teacher: AtPositions, batch: Batch) -> tuple[Tensor, Tensor]:
    """A teacher's logits [positions, vocabulary] and last hidden states [rows, length, hidden].

    Without gradients; in bf16 where the student trains in it.
    """
    kind = batch.inputs.device.type
    bf16 = torch.autocast(kind, torch.bfloat16, enabled=mixed_precision() == "bf16")
    with torch.no_grad(), bf16:
        logits, hidden = teacher(batch.inputs, batch.positions)
    return logits, hidden


def live_teacher(teacher: Any, temperature: float) -> TeacherAnswers:
    """The teacher's answers, computed when they are asked for."""
    asking = AtPositions(teacher.eval())

    def answers(batch: Batch) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        wanted, hidden = ask(asking.to(batch.inputs.device), batch)
        return lambda logits: soft_target_loss(logits, wanted, temperature), hidden

    return answers
