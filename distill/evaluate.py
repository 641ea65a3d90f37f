"""What a torch model answers, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stillroom.distill.batches import sorted_batches, tensors
from stillroom.progress import progress_bar
from stillroom.tokens import Tokens

EVALUATION_BATCH = 32  # rows; sorted by length, so padding stays small


def predict_logits(model: Any, tokens: Tokens, inputs: Sequence[str], description: str) -> np.ndarray:
    """Logits float32 [rows, labels] of a torch model in fp32, in row order."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found: np.ndarray | None = None
    with progress_bar(len(tokens), description, "row") as bar, torch.inference_mode():
        for rows in sorted_batches(tokens.lengths, EVALUATION_BATCH):
            logits = model(**tensors(tokens, rows, inputs, device)).logits.float().cpu().numpy()
            if found is None:
                found = np.empty((len(tokens), logits.shape[1]), dtype=np.float32)
            found[rows] = logits
            bar.update(len(rows))
    model.train(was_training)
    if found is None:
        raise ValueError("no rows to predict")
    return found
