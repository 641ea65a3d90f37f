"""The training loop, flat: one function for teacher, baseline and student, which differ in their loss.

Whatever one step does is a function of its number: its rows, its learning rate, its dropout. So there is no
state to lose, and a run may go on with another number of processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stillroom.distill.batches import epoch_batches
from stillroom.distill.checkpoint import Progress, load_checkpoint, save_checkpoint
from stillroom.distill.sigterm import Termination
from stillroom.errors import UsageError
from stillroom.files import sha256_json
from stillroom.processes import connect
from stillroom.progress import progress_bar, say

# Named parts of a loss: each a mean, already weighted, and the count it is a mean over (rows, or tokens).
# The count lets several processes, of which each sees a share of a batch, make the mean over the whole batch.
Terms = dict[str, tuple[Tensor, int]]
# model, row indices [rows] of one process, epoch -> the parts of the loss
Loss = Callable[[nn.Module, np.ndarray, int], Terms]

WARMUP_SHARE = 0.1  # of all steps, linear; then linear decay to 0, as BERT is fine-tuned
WEIGHT_DECAY = 0.01  # BERT's; not on biases and LayerNorm
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class TrainSettings:
    """epochs: passes over the rows. batch_size: rows, of all processes together. learning_rate: its peak.

    checkpoint_every_s: seconds between checkpoints, of which the last checkpoints_kept stay.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    freeze_word_embeddings: bool
    checkpoint_every_s: float = 60.0
    checkpoints_kept: int = 2


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


def share_of(rows: np.ndarray, rank: int, processes: int) -> tuple[np.ndarray, bool]:
    """One process' rows of a batch, and whether they count: where there are too few, one runs for nothing."""
    mine = rows[rank::processes]
    return (mine, True) if len(mine) else (rows[:1], False)


def combine(terms: Terms, counts: bool, stop: bool, accelerator: Accelerator) -> tuple[Tensor, float, bool]:
    """The loss to go backward from, its value over all processes, and whether any of them was told to stop.

    Gradients are averaged over processes, so each part is weighted with this process' share of the count.
    """
    if accelerator.num_processes == 1:
        loss = torch.stack([mean for mean, _ in terms.values()]).sum()
        return loss, loss.item(), stop
    here = torch.tensor([count * counts for _, count in terms.values()] + [stop], dtype=torch.float64)
    everywhere = accelerator.reduce(here.to(accelerator.device), "sum").cpu()
    scales = (here[:-1] / everywhere[:-1].clamp(min=1.0) * accelerator.num_processes).tolist()
    loss = torch.stack([mean * scale for (mean, _), scale in zip(terms.values(), scales, strict=True)]).sum()
    value: Tensor = accelerator.reduce(loss.detach().double(), "mean")
    return loss, value.item(), bool(everywhere[-1] > 0)


def train(
    model: nn.Module,
    lengths: np.ndarray,
    loss_of: Loss,
    settings: TrainSettings,
    checkpoints: Path,
    key: str,
    description: str,
) -> dict[str, Any]:
    """Train model in place on every row for settings.epochs; return facts for the lineage.

    lengths: int64 [rows], in tokens, so that rows of like length meet. key: fingerprint of model, rows and
    loss. Goes on from the newest checkpoint made under the same key and settings, and then ends with the
    same weights, bit for bit on CPU with the same number of processes. Raises UsageError when the loss is
    not finite, leaving the last good checkpoint, and Terminated, after saving, on SIGTERM.
    """
    connect()
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=mixed_precision())
    for name, parameter in model.named_parameters():
        if name.endswith("word_embeddings.weight"):
            parameter.requires_grad = not settings.freeze_word_embeddings
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    others = [parameter for parameter in trainable if parameter.ndim <= 1]
    model.to(accelerator.device)
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        fused=True,  # one pass over the weights instead of a dozen
    )
    not_of_the_result = ("checkpoint_every_s", "checkpoints_kept")
    settings_key = {name: value for name, value in asdict(settings).items() if name not in not_of_the_result}
    key = sha256_json([key, settings_key, np.asarray(lengths).tolist()])
    progress = load_checkpoint(checkpoints, model, optimizer, key) or Progress(step=0)
    steps_per_epoch = math.ceil(len(lengths) / settings.batch_size)
    steps = steps_per_epoch * settings.epochs
    if progress.step:
        say(f"  {description}: going on from step {progress.step} of {steps}")
    step, epoch_losses, loss_sum = progress.step, list(progress.epoch_losses), progress.loss_sum
    saved, saved_at = bool(step), time.monotonic()
    model.train()
    prepared = accelerator.prepare_model(model)  # bf16 and, with several processes, averaged gradients
    with Termination() as termination, progress_bar(steps, description, "step") as bar:
        bar.update(step)
        for epoch in range(step // steps_per_epoch, settings.epochs):
            batches = epoch_batches(lengths, settings.batch_size, settings.seed, epoch)
            for rows in batches[step - epoch * steps_per_epoch :]:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate_at(step, steps, settings.learning_rate)
                _seed_dropout(settings.seed, step, accelerator.process_index)
                mine, counts = share_of(rows, accelerator.process_index, accelerator.num_processes)
                terms = loss_of(prepared, mine, epoch)
                loss, value, stop = combine(terms, counts, termination.asked, accelerator)
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
                due = step < steps and time.monotonic() - saved_at >= settings.checkpoint_every_s
                if (due or stop) and accelerator.is_main_process:
                    now = Progress(step, tuple(epoch_losses), loss_sum)
                    save_checkpoint(checkpoints, model, optimizer, now, key, settings.checkpoints_kept)
                    saved, saved_at = True, time.monotonic()
                if stop:
                    termination.leave(f"{description}: stopped after step {step} of {steps}, which is saved")
    accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    model.eval()
    return {
        "rows": len(lengths),
        "steps": steps,
        "epoch_losses": epoch_losses,
        "precision": "bf16 autocast" if accelerator.mixed_precision == "bf16" else "fp32",
        **settings_key,
    }


def _seed_dropout(seed: int, step: int, rank: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))
