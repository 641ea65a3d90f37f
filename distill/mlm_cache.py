"""A masked-LM teacher's answers, computed once for every variant of the masks, and memory-mapped.

Worth it where there are more epochs than variants: the teacher then runs once a variant, not once an epoch.

"fp16" keeps the logits of the whole vocabulary: 61 kB a position for BERT's 30,522 tokens. "top-k" keeps the
k likeliest tokens of each position and, in one number, the mass of all others, at the temperature of the
training: 6 k + 4 bytes. Its loss compares these k + 1 masses and is at most that of the whole answers: what
it loses is how the teacher spreads the mass of the others. With k = 64 and a weakly trained MiniLM that was
17 % of an untrained student's soft loss at temperature 1 and 72 % at 2, where a vocabulary is nearly flat
(docs/experiments/top_k.py, docs/log.md): take top-k at temperature 1, fp16 above. Last hidden states are kept
only for a loss that reads them: 2 bytes for each number of every token.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillroom.distill.corpus import Corpus
from stillroom.distill.evaluate import EVALUATION_BATCH
from stillroom.distill.losses import soft_target_loss, top_k_of, top_k_soft_loss
from stillroom.distill.masked_batch import Batch, Masking, TeacherAnswers, ask, masked_batch
from stillroom.distill.masked_lm import AtPositions
from stillroom.distill.targets_cache import new_map, on_gpu
from stillroom.errors import UsageError
from stillroom.files import read_json, require_space, staged_folder, write_json
from stillroom.processes import is_first, wait_for_first
from stillroom.progress import progress_bar, say

FORMAT = 1  # of the folder; another one is made again
KINDS = ("fp16", "top-k")
REMEDY = 'a smaller teacher_cache_k, fewer mask_variants or teacher_cache = "off" take less, as does "top-k"'


@dataclass(frozen=True)
class Kept:
    """What is kept of each answer. kind: of KINDS. k: tokens, for "top-k". temperature: of the soft loss.

    hidden: the last hidden states too.
    """

    kind: str
    k: int
    temperature: float
    hidden: bool


def cached_teacher(
    teacher: Any,
    teacher_sha256: str,
    corpus: Corpus,
    seed: int,
    masking: Masking,
    kept: Kept,
    folder: Path,
) -> TeacherAnswers:
    """The teacher's answers for every training row and mask variant, from files that all processes map.

    The first process computes those that folder does not hold for the same teacher, corpus, seed, masks and
    kind, on a GPU where there is one; an interruption costs at most one variant. The teacher is left where it
    was, and what is returned does not hold it. Raises UsageError for a kind that is none, masks without
    variants, a k above the vocabulary, logits that fp16 cannot hold, and, with both numbers and before
    anything is written, for a disk too small.
    """
    if kept.kind not in KINDS:
        raise UsageError(f'teacher_cache {kept.kind!r}: expected "off", "fp16" or "top-k"')
    if not masking.variants:
        raise UsageError(
            "teacher_cache: with mask_variants 0 the masks never repeat, so no answer is used twice: set "
            "mask_variants to 1 or more, below the number of epochs"
        )
    if is_first():
        _make_missing(teacher, teacher_sha256, corpus, seed, masking, kept, folder)
    wait_for_first()
    variants = [
        _open(folder / f"variant-{variant}", _key(teacher_sha256, corpus, seed, masking, kept, variant), kept)
        for variant in range(masking.variants)
    ]
    return _answers(variants, kept)


def _answers(variants: list[dict[str, np.ndarray]], kept: Kept) -> TeacherAnswers:
    def answers(batch: Batch) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
        maps, device = variants[batch.variant], batch.inputs.device
        starts = maps["starts"]
        lines = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in batch.rows])
        if len(lines) != len(batch.positions):
            raise ValueError(f"{len(lines)} answers are kept for {len(batch.positions)} positions")

        def read(name: str, index: np.ndarray) -> Tensor:
            return torch.from_numpy(maps[name][index]).to(device)

        hidden = read("hidden", batch.rows) if kept.hidden else None
        if kept.kind == "fp16":
            wanted = read("logits", lines)
            return lambda logits: soft_target_loss(logits, wanted, kept.temperature), hidden
        top, ids, rest = read("top", lines), read("ids", lines).long(), read("rest", lines)
        return lambda logits: top_k_soft_loss(logits, top, ids, rest, kept.temperature), hidden

    return answers


def _make_missing(
    teacher: Any, teacher_sha256: str, corpus: Corpus, seed: int, masking: Masking, kept: Kept, folder: Path
) -> None:
    """Compute the variants that folder lacks; what is damaged or was made from something else goes first."""
    keys = {
        f"variant-{variant}": _key(teacher_sha256, corpus, seed, masking, kept, variant)
        for variant in range(masking.variants)
    }
    there = set()
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        with contextlib.suppress(UsageError, OSError, ValueError, EOFError):
            if path.name in keys and _open(path, keys[path.name], kept):
                there.add(path.name)
        if path.name not in there:
            shutil.rmtree(path, ignore_errors=True)
    missing = [key for name, key in keys.items() if name not in there]
    if not missing:
        return
    vocabulary, width = int(teacher.config.vocab_size), int(teacher.config.hidden_size)
    if kept.kind == "top-k" and kept.k > vocabulary:
        raise UsageError(f"teacher_cache_k {kept.k}: the teacher's vocabulary has {vocabulary} tokens")
    starts = {key["variant"]: _starts(corpus, seed, masking, key["variant"]) for key in missing}
    shapes = {
        variant: _shapes(corpus, kept, int(of_row[-1]), vocabulary, width)
        for variant, of_row in starts.items()
    }
    needed = sum(of_row.nbytes for of_row in starts.values()) + sum(
        np.dtype(dtype).itemsize * math.prod(shape)
        for files in shapes.values()
        for shape, dtype in files.values()
    )
    say(f"  teacher's answers: {needed / 1e6:.0f} MB for {len(missing)} mask variants ({kept.kind})")
    require_space(folder, needed, REMEDY)
    with (
        progress_bar(len(missing) * len(corpus.train), "teacher's answers", "row") as bar,
        on_gpu(teacher) as device,
    ):
        asking = AtPositions(teacher)
        for key in missing:
            variant = key["variant"]
            of_row = starts[variant]
            with staged_folder(folder / f"variant-{variant}") as partial:
                maps = {
                    name: new_map(partial / f"{name}.npy", shape, dtype)
                    for name, (shape, dtype) in shapes[variant].items()
                }
                for rows in _in_order(len(corpus.train)):
                    batch = masked_batch(corpus, rows, seed, variant, masking, device)
                    lines = slice(int(of_row[rows[0]]), int(of_row[rows[-1] + 1]))
                    for name, values in _parts(*ask(asking, batch), kept).items():
                        maps[name][rows if name == "hidden" else lines] = values
                    bar.update(len(rows))
                for mapped in maps.values():
                    mapped.flush()
                np.save(partial / "starts.npy", of_row)
                write_json(partial / "key.json", key)


def _in_order(count: int) -> list[np.ndarray]:
    """Numbers of rows, in batches."""
    return [
        np.arange(first, min(first + EVALUATION_BATCH, count)) for first in range(0, count, EVALUATION_BATCH)
    ]


def _parts(logits: Tensor, hidden: Tensor, kept: Kept) -> dict[str, np.ndarray]:
    """What is kept of a batch's answers, by file name."""
    parts = {"hidden": hidden.half()} if kept.hidden else {}
    if kept.kind == "fp16":
        parts["logits"] = logits.half()
    else:
        top, ids, rest = top_k_of(logits, kept.k, kept.temperature)
        parts |= {"top": top.half(), "ids": ids.int(), "rest": rest}
    if not all(torch.isfinite(values).all() for values in parts.values()):
        raise UsageError(
            "the teacher's answers are larger than fp16 holds, or no numbers: check the teacher, or set "
            'teacher_cache = "off"'
        )
    return {name: values.cpu().numpy() for name, values in parts.items()}


def _shapes(
    corpus: Corpus, kept: Kept, positions: int, vocabulary: int, width: int
) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and dtype of each file."""
    shapes: dict[str, tuple[tuple[int, ...], type]] = {}
    if kept.kind == "fp16":
        shapes["logits"] = ((positions, vocabulary), np.float16)
    else:
        shapes["top"] = ((positions, kept.k), np.float16)
        shapes["ids"] = ((positions, kept.k), np.int32)
        shapes["rest"] = ((positions,), np.float32)
    if kept.hidden:
        shapes["hidden"] = ((len(corpus.train), corpus.max_length, width), np.float16)
    return shapes


def _starts(corpus: Corpus, seed: int, masking: Masking, variant: int) -> np.ndarray:
    """Where each row's answers begin, and where the last end, int64 [rows + 1]."""
    rows, cpu = len(corpus.train), torch.device("cpu")
    counts = np.full(rows, corpus.max_length, dtype=np.int64)
    if masking.soft_positions != "all":
        with progress_bar(rows, "counting hidden tokens", "row") as bar:
            for some in _in_order(rows):
                batch = masked_batch(corpus, some, seed, variant, masking, cpu)
                of_row = batch.positions.numpy() // corpus.max_length
                counts[some] = np.bincount(of_row, minlength=len(some))
                bar.update(len(some))
    return np.concatenate([[0], np.cumsum(counts)])


def _key(
    teacher_sha256: str, corpus: Corpus, seed: int, masking: Masking, kept: Kept, variant: int
) -> dict[str, Any]:
    """What the files of one variant are made from; how many variants there are is no matter to them."""
    masks = {name: value for name, value in asdict(masking).items() if name != "variants"}
    key = {"format": FORMAT, "teacher_sha256": teacher_sha256, "corpus_sha256": corpus.sha256,
           "seed": seed, "masking": masks, "variant": variant, "kind": kept.kind,
           "hidden": kept.hidden}  # fmt: skip
    return {**key, "k": kept.k, "temperature": kept.temperature} if kept.kind == "top-k" else key


def _open(folder: Path, key: dict[str, Any], kept: Kept) -> dict[str, np.ndarray]:
    """Map a variant's files. Raises UsageError, OSError, ValueError or EOFError when they are not whole."""
    if read_json(folder / "key.json") != key:
        raise UsageError(f"{folder} was made from something else")
    starts = np.load(folder / "starts.npy", allow_pickle=False)
    names = ("logits",) if kept.kind == "fp16" else ("top", "ids", "rest")
    maps = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in (*names, *(("hidden",) if kept.hidden else ()))
    }
    if any(len(maps[name]) != starts[-1] for name in names):
        raise ValueError(f"{folder}: files of different lengths")
    return {"starts": starts, **maps}
