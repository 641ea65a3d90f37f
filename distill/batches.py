"""The order in which rows are seen: seeded, bucketed by length so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stillroom.tokens import Tokens, padded_inputs

POOL_BATCHES = 50  # rows are sorted by length inside pools of this many batches


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row indices of each batch of one epoch; every row once. lengths: int64 [rows], in tokens.

    A pure function of its arguments: a resumed run sees the very same batches.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), POOL_BATCHES * batch_size):
        pool = order[start : start + POOL_BATCHES * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row indices of each batch, longest first (so that a lack of memory shows at once); every row once."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


def tensors(
    tokens: Tokens, rows: np.ndarray, inputs: Sequence[str], device: torch.device
) -> dict[str, Tensor]:
    """Padded model inputs of some rows: name -> int64 [rows, length] on device."""
    return {
        name: torch.from_numpy(array).to(device)
        for name, array in padded_inputs(tokens, rows, inputs).items()
    }
