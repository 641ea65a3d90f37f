"""The teacher's outputs, computed once and memory-mapped: the student's epochs then cost only the student."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillroom.distill.batches import sorted_batches, tensors
from stillroom.distill.evaluate import EVALUATION_BATCH
from stillroom.distill.states import caught_states
from stillroom.errors import UsageError
from stillroom.files import read_json, require_space, sha256_json, staged_folder, write_json
from stillroom.progress import progress_bar
from stillroom.tokens import Tokens


@dataclass(frozen=True)
class TeacherOutputs:
    """logits: float32 [rows, labels]. states: name (see states.py) -> float16 [total_tokens, width], flat."""

    logits: np.ndarray
    states: dict[str, np.ndarray]

    def batch(
        self, tokens: Tokens, rows: np.ndarray, device: torch.device
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [rows, labels] and states, each [rows, longest, width], zero where padded."""
        shape = (len(rows), int(tokens.lengths[rows].max()))
        found = {}
        for name, flat in self.states.items():
            padded = np.zeros((*shape, flat.shape[1]), dtype=np.float16)
            for line, row in enumerate(rows):
                start, end = tokens.offsets[row], tokens.offsets[row + 1]
                padded[line, : end - start] = flat[start:end]
            found[name] = torch.from_numpy(padded).to(device)
        return torch.from_numpy(self.logits[rows]).to(device), found


def tokens_sha256(tokens: Tokens) -> str:
    """Fingerprint of the encoded rows."""
    arrays = (tokens.ids, tokens.type_ids, tokens.offsets, tokens.labels)
    return sha256_json([array.tobytes().hex() for array in arrays] + [tokens.pad_id])


def teacher_outputs(
    teacher: Any,
    teacher_sha256: str,
    tokens: Tokens,
    inputs: Sequence[str],
    folder: Path,
    states: Sequence[str],
) -> TeacherOutputs:
    """Compute the teacher's outputs for every row into folder, or map those already there for this key.

    states: names of the states wanted, see states.py. On a GPU where there is one; the teacher is left where
    it was. Raises UsageError, with both numbers, when the disk has too little room.
    """
    key = {"teacher_sha256": teacher_sha256, "tokens_sha256": tokens_sha256(tokens), "inputs": list(inputs),
           "states": list(states)}  # fmt: skip
    with contextlib.suppress(UsageError, OSError, ValueError, EOFError):  # absent or damaged: made again
        if read_json(folder / "key.json") == key:
            return _map(folder, states)
    hidden_size, labels = int(teacher.config.hidden_size), int(teacher.config.num_labels)
    total_tokens = int(tokens.offsets[-1])
    require_space(folder, 2 * total_tokens * hidden_size * len(states) + 4 * len(tokens) * labels)
    with staged_folder(folder) as partial:
        maps = {name: new_map(partial / f"{name}.npy", (total_tokens, hidden_size)) for name in states}
        logits = np.zeros((len(tokens), labels), dtype=np.float32)
        with (
            progress_bar(len(tokens), "teacher's answers", "row") as bar,
            torch.inference_mode(),
            on_gpu(teacher) as device,
            caught_states(teacher, states) as call,
        ):
            for rows in sorted_batches(tokens.lengths, EVALUATION_BATCH):
                answer, found = call(teacher, tensors(tokens, rows, inputs, device))
                logits[rows] = answer.float().cpu().numpy()
                for name, flat in maps.items():
                    padded = found[name].to(torch.float16).cpu().numpy()
                    for line, row in enumerate(rows):
                        start, end = tokens.offsets[row], tokens.offsets[row + 1]
                        flat[start:end] = padded[line, : end - start]
                bar.update(len(rows))
        for flat in maps.values():
            flat.flush()
        np.save(partial / "logits.npy", logits)
        write_json(partial / "key.json", key)
    return _map(folder, states)


def averaged(logits: Sequence[np.ndarray]) -> TeacherOutputs:
    """Several teachers as one, through their answers alone: the mean of their logits, [rows, labels] each.

    Of classes only the differences within a row count, and those of the mean are the mean of those.
    """
    mean = np.asarray(np.mean(np.stack(logits), axis=0, dtype=np.float64))
    return TeacherOutputs(mean.astype(np.float32), {})


@contextlib.contextmanager
def on_gpu(model: Any) -> Iterator[torch.device]:
    """The model in eval mode, on a GPU where there is one; afterwards back where it was."""
    home = next(model.parameters()).device
    device = torch.device("cuda") if torch.cuda.is_available() else home
    model.eval()
    if device != home:
        model.to(device)
    yield device
    if device != home:
        model.to(home)


def new_map(path: Path, shape: tuple[int, ...], dtype: type = np.float16) -> Any:
    """A new .npy file to write into, whose room on the disk is taken already. Raises OSError without room."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    _reserve(path)
    return mapped


def _reserve(path: Path) -> None:
    """Take a sparse file's room on the disk now: writing a mapped page that finds none kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _map(folder: Path, states: Sequence[str]) -> TeacherOutputs:
    return TeacherOutputs(
        logits=np.load(folder / "logits.npy", allow_pickle=False),
        states={name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in states},
    )
