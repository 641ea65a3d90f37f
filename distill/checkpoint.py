"""Training checkpoints: safetensors and JSON, written whole, verified when read; no pickle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillroom.errors import UsageError
from stillroom.files import read_json, sha256_file, staged_folder, write_json
from stillroom.progress import say


@dataclass(frozen=True)
class Progress:
    """Where training stands. step: optimizer steps done. epoch_losses: mean loss of each finished epoch.

    loss_sum: sum of the losses of the epoch under way.
    """

    step: int
    epoch_losses: tuple[float, ...] = ()
    loss_sum: float = 0.0


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    key: str,
    kept: int,
) -> None:
    """Write folder/step-N: trainable weights and Adam moments. key: fingerprint of the run.

    kept: how many checkpoints stay, this one among them; the one before is used when the last is damaged.
    """
    content: dict[str, Tensor] = {}
    for name, parameter in _trainable(model).items():
        content[f"weight:{name}"] = parameter.detach()
        for moment, value in optimizer.state[parameter].items():
            content[f"{moment}:{name}"] = torch.as_tensor(value)
    newest = folder / f"step-{progress.step:08d}"
    with staged_folder(newest) as partial:
        save_file(
            {name: tensor.contiguous() for name, tensor in content.items()}, partial / "state.safetensors"
        )
        facts = {
            "key": key,
            "step": progress.step,
            "epoch_losses": list(progress.epoch_losses),
            "loss_sum": progress.loss_sum,
            "sha256": sha256_file(partial / "state.safetensors"),
        }
        write_json(partial / "checkpoint.json", facts)
    found = sorted(folder.glob("step-*"))
    end = found.index(newest) + 1
    for old in found[: max(0, end - kept)] + found[end:]:  # a later step was made under another key
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, key: str
) -> Progress | None:
    """Restore the newest whole checkpoint that was made under key; None when there is none."""
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        try:
            facts: dict[str, Any] = read_json(candidate / "checkpoint.json")
            state = candidate / "state.safetensors"
            if facts["key"] != key:
                continue
            if not state.is_file() or sha256_file(state) != facts["sha256"]:
                raise UsageError("its checksum does not match")
        except (UsageError, KeyError, TypeError) as error:
            say(f"  checkpoint {candidate.name} is damaged ({error}); trying the one before")
            continue
        content = load_file(state)
        for name, parameter in _trainable(model).items():
            with torch.no_grad():
                parameter.copy_(content[f"weight:{name}"])
            optimizer.state[parameter] = {
                moment: content[f"{moment}:{name}"].to(parameter.device)
                for moment in ("step", "exp_avg", "exp_avg_sq")
            }
        return Progress(int(facts["step"]), tuple(facts["epoch_losses"]), float(facts["loss_sum"]))
    return None
