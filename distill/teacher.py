"""The teacher: used as it is when its head already answers these labels, otherwise fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.distill.batches import tensors
from stillroom.distill.score_scale import ScoreScale, score_scale, trained_in
from stillroom.distill.targets_cache import tokens_sha256
from stillroom.distill.task_loss import hard_loss_of
from stillroom.distill.train import Loss, Terms, TrainSettings, train
from stillroom.errors import UsageError, first_line
from stillroom.extras import require
from stillroom.families import longest_input
from stillroom.model_folder import (
    check_model_folder,
    check_vocabulary,
    head_kind,
    head_labels,
    match_labels,
)
from stillroom.student import input_names, load_config, load_model
from stillroom.task import TaskSpec
from stillroom.tokens import Tokens


@dataclass(frozen=True)
class Source:
    """A model folder ready to teach. trained: its head already answers task.labels, in that order."""

    folder: Path
    task: TaskSpec
    tokenizer_json: str
    trained: bool
    notes: tuple[str, ...]


def open_source(
    folder: Path,
    labels: tuple[str, ...],
    max_length: int,
    *,
    pair: bool,
    kind: str = "text-classification",
) -> Source:
    """Check a model folder against the labels and the length asked for.

    Raises UsageError when the folder is not a whole model or its tokenizer belongs to another.
    """
    checked = check_model_folder(folder)
    require("torch", "transformers")
    config = load_config(folder)
    tokenizer_json = fast_tokenizer(folder)
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_str(tokenizer_json).get_vocab()
    check_vocabulary(checked, len(vocabulary), max(vocabulary.values(), default=0))
    notes = []
    if longest_input(config) < max_length:
        notes.append(
            f"max_length {max_length} cut to {longest_input(config)}, the most this teacher can read"
        )
        max_length = longest_input(config)
    head = head_labels(checked)
    ordered = None
    if head is not None:
        answers = head_kind(checked, len(head))
        fits = len(head) == 1 if kind == "regression" else True  # a score's name does not matter
        ordered = (labels if kind == "regression" else match_labels(head, labels)) if fits else None
        if answers != kind:
            notes.append(f"the teacher's head is for {answers}, not {kind}: it gets a new head")
            ordered = None
        elif ordered is None:
            notes.append(f"the teacher's head answers {list(head)}, not {list(labels)}: it gets a new head")
    task = TaskSpec(ordered or labels, max_length, input_names(config, pair=pair), pair, kind)
    return Source(folder, task, tokenizer_json, ordered is not None, tuple(notes))


def fast_tokenizer(folder: Path) -> str:
    """The folder's tokenizer as tokenizer.json text; older vocabulary files are converted.

    Raises UsageError when it cannot be read or converted.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # the Rust side raises bare Exception
        raise UsageError(f"{folder}: the tokenizer could not be read: {first_line(error)}") from None


def hard_loss(tokens: Tokens, task: TaskSpec, scale: ScoreScale) -> Loss:
    """The loss against the rows' own labels, in scale."""
    labels = torch.from_numpy(tokens.labels)

    def loss_of(model: nn.Module, rows: np.ndarray, epoch: int) -> Terms:
        device = next(model.parameters()).device
        logits = model(**tensors(tokens, rows, task.inputs, device)).logits
        return {"hard": hard_loss_of(task.kind, logits, labels[rows].to(device), scale)}

    return loss_of


def start_model(source: Source, seed: int) -> Any:
    """The folder's model: with its trained head, or else with a new one for the task's labels."""
    if source.trained:
        return load_model(source.folder)
    torch.manual_seed(seed)  # the new head's weights
    return load_model(source.folder, num_labels=len(source.task.labels), ignore_mismatched_sizes=True)


def train_teacher(
    source: Source, tokens: Tokens, settings: TrainSettings, checkpoints: Path, key: str
) -> tuple[Any, dict[str, Any]]:
    """The teacher model and the facts of its training (empty when it was used as it is)."""
    model = start_model(source, settings.seed)
    if source.trained:
        return model, {}
    scale, key = score_scale(tokens, source.task.kind), f"{key} {tokens_sha256(tokens)}"
    with trained_in(scale, model, new_head=True):
        loss_of = hard_loss(tokens, source.task, scale)
        facts = train(model, tokens.lengths, loss_of, settings, checkpoints, key, "teacher")
    return model, facts
