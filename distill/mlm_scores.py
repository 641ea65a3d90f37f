"""How well a masked-LM model fills masks in rows it was not trained on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stillroom.distill.corpus import Corpus
from stillroom.distill.evaluate import EVALUATION_BATCH
from stillroom.distill.masked_lm import AtPositions
from stillroom.distill.masking import IGNORED, mask_tokens
from stillroom.errors import UsageError
from stillroom.progress import progress_bar

SCORE_SEED = 0  # of the masks: the same for all models, whatever they were trained with


def score_fill_mask(
    model: Any, corpus: Corpus, description: str, max_rows: int = 1000, pseudo_rows: int = 8
) -> dict[str, Any]:
    """Scores on the corpus' held-out rows, in fp32 and eval mode; plain JSON numbers.

    masked_accuracy and masked_loss (nats): over 15 % of the tokens, hidden as in training with one fixed
    seed; masked_tokens of them. At most max_rows rows, spread evenly. Raises UsageError when there are none.
    pseudo_perplexity (https://arxiv.org/abs/1910.14659): exp of the mean loss where each token is hidden by
    itself, its row otherwise whole. That takes a forward pass a token, so only pseudo_rows rows are scored,
    pseudo_tokens tokens; with 0 it is left out.
    """
    asking = AtPositions(model)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    losses: list[Tensor] = []
    hits: list[Tensor] = []
    rows = spread(len(corpus.held_out), max_rows)
    alone = spread(len(corpus.held_out), pseudo_rows)
    total = len(rows) + len(alone) * corpus.max_length
    with progress_bar(total, f"{description} on held-out text", "row") as bar, torch.inference_mode():

        def losses_of(inputs: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
            positions = np.flatnonzero(labels != IGNORED)
            wanted = torch.from_numpy(labels.reshape(-1)[positions]).to(device)
            logits, _ = asking(torch.from_numpy(inputs).to(device), torch.from_numpy(positions).to(device))
            bar.update(len(inputs))
            loss = F.cross_entropy(logits.double(), wanted, reduction="none")
            return loss.cpu(), (logits.argmax(dim=-1) == wanted).double().cpu()

        special = corpus.special
        for start in range(0, len(rows), EVALUATION_BATCH):
            batch = rows[start : start + EVALUATION_BATCH]
            ids, _ = corpus.held_out.read(batch)
            loss, hit = losses_of(*mask_tokens(
                ids, SCORE_SEED, 0, batch, special.ids, special.vocabulary_size, special.mask_id
            ))  # fmt: skip
            losses.append(loss)
            hits.append(hit)
        alone_losses = [
            losses_of(*part)[0]
            for row in alone
            for part in one_at_a_time(corpus.held_out.read(np.array([row]))[0][0], special.ids,
                                      special.mask_id)
        ]  # fmt: skip
    model.train(was_training)
    loss, hit = torch.cat(losses), torch.cat(hits)
    if not len(loss):
        raise UsageError("the held-out rows hold no token that the tokenizer knows: bring other text")
    scores: dict[str, Any] = {
        "masked_accuracy": hit.mean().item(),
        "masked_loss": loss.mean().item(),
        "masked_tokens": len(loss),
    }
    if alone_losses:
        each = torch.cat(alone_losses)
        scores |= {"pseudo_perplexity": math.exp(each.mean().item()), "pseudo_tokens": len(each)}
    return scores


def spread(count: int, wanted: int) -> np.ndarray:
    """At most wanted of the numbers below count, evenly spread, increasing."""
    return np.arange(count) if count <= wanted else np.arange(wanted) * count // wanted


def one_at_a_time(
    ids: np.ndarray, special_ids: tuple[int, ...], mask_id: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of copies of one row, ids [length], each with another ordinary token hidden: inputs, labels."""
    places = np.flatnonzero(~np.isin(ids, special_ids))
    inputs = np.tile(ids, (len(places), 1))
    labels = np.full_like(inputs, IGNORED)
    lines = np.arange(len(places))
    labels[lines, places] = ids[places]
    inputs[lines, places] = mask_id
    return [
        (inputs[start : start + EVALUATION_BATCH], labels[start : start + EVALUATION_BATCH])
        for start in range(0, len(places), EVALUATION_BATCH)
    ]
