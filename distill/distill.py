"""Distil a teacher into a shallower student that starts from some of its layers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.distill.batches import tensors
from stillroom.distill.layers import choose_layers, layer_list, student_from_teacher
from stillroom.distill.losses import hard_label_loss, hidden_cosine_loss, soft_target_loss
from stillroom.distill.objective import DEFAULT_WEIGHTS
from stillroom.distill.objective import LossWeights as LossWeights
from stillroom.distill.targets_cache import teacher_outputs, tokens_sha256
from stillroom.distill.teacher import hard_loss
from stillroom.distill.train import Loss, Terms, TrainSettings, train
from stillroom.processes import is_first, wait_for_first
from stillroom.task import TaskSpec
from stillroom.tokens import Tokens


def distill_from_model(
    teacher: Any,
    tokens: Tokens,
    task: TaskSpec,
    settings: TrainSettings,
    work: str | Path,
    layers: str | int | tuple[int, ...] = "half",
    weights: LossWeights = DEFAULT_WEIGHTS,
    layer_choice: str = "every-other",
) -> tuple[Any, dict[str, Any]]:
    """Train a student of a teacher that is already in memory; return it and the facts for its lineage.

    teacher: a Hugging Face ...ForSequenceClassification model whose logits are in the order of task.labels.
    work: folder for the teacher's outputs and checkpoints; a second call with the same arguments goes on
    from what is there. layers, layer_choice: see choose_layers.
    Raises UsageError for layers the teacher does not have.
    """
    work, teacher_sha256 = Path(work), model_sha256(teacher)
    kept = choose_layers(layers, len(layer_list(teacher)), layer_choice)
    student = student_from_teacher(teacher, kept)
    folder = work / "teacher-outputs"
    if is_first():
        teacher_outputs(teacher, teacher_sha256, tokens, task.inputs, folder)
    wait_for_first()  # which computes them once; all processes map the same files
    outputs = teacher_outputs(teacher, teacher_sha256, tokens, task.inputs, folder)
    labels = torch.from_numpy(tokens.labels)

    def loss_of(model: nn.Module, rows: np.ndarray, epoch: int) -> Terms:
        device = next(model.parameters()).device
        batch = tensors(tokens, rows, task.inputs, device)
        output = model(**batch, output_hidden_states=True)
        teacher_logits, teacher_hidden = outputs.batch(tokens, rows, device)
        soft = soft_target_loss(output.logits, teacher_logits, weights.temperature)
        hard = hard_label_loss(output.logits, labels[rows].to(device))
        cosine = hidden_cosine_loss(output.hidden_states[-1], teacher_hidden, batch["attention_mask"])
        return {
            "soft": (weights.soft * soft, len(rows)),
            "hard": (weights.hard * hard, len(rows)),
            "cosine": (weights.cosine * cosine, int(tokens.lengths[rows].sum())),
        }

    facts = _train_student(student, tokens, loss_of, settings, work, teacher_sha256, kept, weights)
    return student, facts


def plain_student(
    start: Any,
    tokens: Tokens,
    task: TaskSpec,
    settings: TrainSettings,
    work: Path,
    layers: str | int | tuple[int, ...] = "half",
    layer_choice: str = "every-other",
) -> tuple[Any, dict[str, Any]]:
    """The baseline: the same layers of a model that no teacher has trained, fine-tuned on hard labels only.

    start: the pretrained model with a new head. Rows, steps and seed are the distilled student's.
    """
    kept = choose_layers(layers, len(layer_list(start)), layer_choice)
    student = student_from_teacher(start, kept)
    loss_of, start_sha256 = hard_loss(tokens, task.inputs), model_sha256(start)
    facts = _train_student(student, tokens, loss_of, settings, work, start_sha256, kept, None)
    return student, facts


def model_sha256(model: Any) -> str:
    """Hex sha256 over a model's config and weights."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _train_student(
    student: Any,
    tokens: Tokens,
    loss_of: Loss,
    settings: TrainSettings,
    work: Path,
    start_sha256: str,
    kept: tuple[int, ...],
    weights: LossWeights | None,
) -> dict[str, Any]:
    losses = asdict(weights) if weights else {"hard": 1.0}
    key = f"{start_sha256} layers {kept} losses {losses} rows {tokens_sha256(tokens)}"
    description = "student" if weights else "student without teacher"
    facts = train(student, tokens.lengths, loss_of, settings, work / "checkpoints", key, description)
    return {"layers_kept": list(kept), "losses": losses, **facts}
