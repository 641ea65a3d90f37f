"""The teacher's outputs, computed once and memory-mapped: the student's epochs then cost only the student."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillroom.distill.batches import sorted_batches, tensors
from stillroom.distill.evaluate import EVALUATION_BATCH
from stillroom.errors import UsageError
from stillroom.files import read_json, require_space, sha256_json, staged_folder, write_json
from stillroom.progress import progress_bar
from stillroom.tokens import Tokens


@dataclass(frozen=True)
class TeacherOutputs:
    """logits: float32 [rows, labels]. hidden: float16 [total_tokens, hidden_size], flat as in Tokens."""

    logits: np.ndarray
    hidden: np.ndarray

    def batch(self, tokens: Tokens, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Logits [rows, labels] and last hidden states [rows, longest, hidden_size], zero where padded."""
        longest = int(tokens.lengths[rows].max())
        hidden = np.zeros((len(rows), longest, self.hidden.shape[1]), dtype=np.float16)
        for line, row in enumerate(rows):
            start, end = tokens.offsets[row], tokens.offsets[row + 1]
            hidden[line, : end - start] = self.hidden[start:end]
        return torch.from_numpy(self.logits[rows]).to(device), torch.from_numpy(hidden).to(device)


def tokens_sha256(tokens: Tokens) -> str:
    """Fingerprint of the encoded rows."""
    arrays = (tokens.ids, tokens.type_ids, tokens.offsets, tokens.labels)
    return sha256_json([array.tobytes().hex() for array in arrays] + [tokens.pad_id])


def teacher_outputs(
    teacher: Any, teacher_sha256: str, tokens: Tokens, inputs: Sequence[str], folder: Path
) -> TeacherOutputs:
    """Compute the teacher's outputs for every row into folder, or map those already there for this key.

    Raises UsageError, with both numbers, when the disk has too little room.
    """
    key = {"teacher_sha256": teacher_sha256, "tokens_sha256": tokens_sha256(tokens), "inputs": list(inputs)}
    with contextlib.suppress(UsageError, OSError, ValueError, EOFError):  # absent or damaged: made again
        if read_json(folder / "key.json") == key:
            return _map(folder)
    hidden_size, labels = int(teacher.config.hidden_size), int(teacher.config.num_labels)
    total_tokens = int(tokens.offsets[-1])
    require_space(folder, 2 * total_tokens * hidden_size + 4 * len(tokens) * labels)
    device = next(teacher.parameters()).device
    teacher.eval()
    with staged_folder(folder) as partial:
        hidden = np.lib.format.open_memmap(
            partial / "hidden.npy", mode="w+", dtype=np.float16, shape=(total_tokens, hidden_size)
        )
        _reserve(partial / "hidden.npy")
        logits = np.zeros((len(tokens), labels), dtype=np.float32)
        with progress_bar(len(tokens), "teacher's answers", "row") as bar, torch.inference_mode():
            for rows in sorted_batches(tokens.lengths, EVALUATION_BATCH):
                output = teacher(**tensors(tokens, rows, inputs, device), output_hidden_states=True)
                logits[rows] = output.logits.float().cpu().numpy()
                states = output.hidden_states[-1].to(torch.float16).cpu().numpy()
                for line, row in enumerate(rows):
                    start, end = tokens.offsets[row], tokens.offsets[row + 1]
                    hidden[start:end] = states[line, : end - start]
                bar.update(len(rows))
        hidden.flush()
        np.save(partial / "logits.npy", logits)
        write_json(partial / "key.json", key)
    return _map(folder)


def _reserve(path: Path) -> None:
    """Take a sparse file's room on the disk now: writing a mapped page that finds none kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _map(folder: Path) -> TeacherOutputs:
    return TeacherOutputs(
        logits=np.load(folder / "logits.npy", allow_pickle=False),
        hidden=np.load(folder / "hidden.npy", mmap_mode="r", allow_pickle=False),
    )
