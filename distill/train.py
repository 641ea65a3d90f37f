"""The training loop, flat: one function for teacher, baseline and student, which differ in their loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from stillroom.distill.batches import epoch_batches, tensors
from stillroom.distill.checkpoint import Progress, load_checkpoint, save_checkpoint
from stillroom.distill.targets_cache import tokens_sha256
from stillroom.errors import UsageError
from stillroom.files import sha256_json
from stillroom.progress import progress_bar, say
from stillroom.tokens import Tokens

# model output, batch (name -> [rows, length]), row indices [rows] -> scalar loss
Loss = Callable[[Any, dict[str, Tensor], np.ndarray], Tensor]

WARMUP_SHARE = 0.1  # of all steps, linear; then linear decay to 0, as BERT is fine-tuned
WEIGHT_DECAY = 0.01  # BERT's; not on biases and LayerNorm
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class TrainSettings:
    """epochs: passes over the rows. batch_size: rows. learning_rate: its peak."""

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    freeze_word_embeddings: bool
    checkpoint_every_s: float = 60.0


def mixed_precision() -> str:
    """ "bf16" where the device computes it in hardware, else "no": emulated bf16 is three times slower."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "no"


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step (from 0): linear warm-up, then linear decay. Nothing to resume."""
    warmup = max(1, round(steps * WARMUP_SHARE))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * max(0.0, (steps - step) / max(1, steps - warmup))


def train(
    model: Any,
    tokens: Tokens,
    inputs: Sequence[str],
    loss_of: Loss,
    settings: TrainSettings,
    checkpoints: Path,
    key: str,
    description: str,
    output_hidden_states: bool = False,
) -> dict[str, Any]:
    """Train model in place on every row for settings.epochs; return facts for the lineage.

    Goes on from the newest checkpoint in the folder made under the same key, settings and rows, and then
    ends with the same weights, bit for bit on CPU. Raises UsageError when the loss is not finite, leaving
    the last good checkpoint.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=mixed_precision())
    for name, parameter in model.named_parameters():
        if name.endswith("word_embeddings.weight"):
            parameter.requires_grad = not settings.freeze_word_embeddings
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [parameter for _, parameter in trainable if parameter.ndim > 1]
    others = [parameter for _, parameter in trainable if parameter.ndim <= 1]
    model.to(accelerator.device)
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        fused=True,  # one pass over the weights instead of a dozen
    )
    settings_key = {name: value for name, value in asdict(settings).items() if name != "checkpoint_every_s"}
    key = sha256_json([key, settings_key, tokens_sha256(tokens), list(inputs)])
    torch.manual_seed(settings.seed)
    progress = load_checkpoint(checkpoints, model, optimizer, key) or Progress(step=0)
    steps_per_epoch = math.ceil(len(tokens) / settings.batch_size)
    steps = steps_per_epoch * settings.epochs
    if progress.step:
        say(f"  {description}: going on from step {progress.step} of {steps}")
    step, epoch_losses, loss_sum = progress.step, list(progress.epoch_losses), progress.loss_sum
    saved, saved_at = bool(step), time.monotonic()
    model.train()
    with progress_bar(steps, description, "step") as bar:
        bar.update(step)
        for epoch in range(step // steps_per_epoch, settings.epochs):
            batches = epoch_batches(tokens.lengths, settings.batch_size, settings.seed, epoch)
            for rows in batches[step - epoch * steps_per_epoch :]:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate_at(step, steps, settings.learning_rate)
                batch = tensors(tokens, rows, inputs, accelerator.device)
                with accelerator.autocast():
                    output = model(**batch, output_hidden_states=output_hidden_states)
                loss = loss_of(output, batch, rows)
                value = loss.item()
                accelerator.backward(loss)
                norm = torch.nn.utils.clip_grad_norm_([*decayed, *others], MAX_GRADIENT_NORM).item()
                # A loss may still be a number when its gradient is none: that step would ruin the weights.
                if not (math.isfinite(value) and math.isfinite(norm)):
                    kept = f"; the last good checkpoint is kept in {checkpoints}" if saved else ""
                    raise UsageError(
                        f"{description}: the loss is {value:g} and its gradient's norm {norm:g} at step "
                        f"{step + 1} of {steps}{kept}: lower learning_rate ({settings.learning_rate:g}) in "
                        "the recipe"
                    )
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step, loss_sum = step + 1, loss_sum + value
                if step % steps_per_epoch == 0:
                    epoch_losses.append(loss_sum / steps_per_epoch)
                    loss_sum = 0.0
                bar.update(1)
                if time.monotonic() - saved_at >= settings.checkpoint_every_s and step < steps:
                    save_checkpoint(
                        checkpoints, model, optimizer, Progress(step, tuple(epoch_losses), loss_sum), key
                    )
                    saved, saved_at = True, time.monotonic()
    model.eval()
    return {
        "rows": len(tokens),
        "steps": steps,
        "epoch_losses": epoch_losses,
        "precision": "bf16 autocast" if accelerator.mixed_precision == "bf16" else "fp32",
        **settings_key,
    }
