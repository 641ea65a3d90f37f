"""What is fed to a model while it is timed: real token ids cut to each length, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.errors import UsageError
from stillroom.task import INPUT_NAMES


@dataclass(frozen=True)
class Workload:
    """One workload, the same for every subject of a comparison.

    token_ids: the ids of real text, at least max(lengths) of them (random ids would touch other rows
    of the embedding table than text does). lengths: tokens per row. rounds: fresh processes per
    subject. samples and warmup: timed and untimed calls per length in each process. threads: the
    runtime's threads. evaluation: the token ids of every row of the validation split, each at its own
    length, fed once, one at a time, in a subject's first process. Raises UsageError when a number is out
    of range.
    """

    token_ids: tuple[int, ...]
    lengths: tuple[int, ...]
    rounds: int
    samples: int
    warmup: int
    threads: int
    batch_size: int = 1
    evaluation: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for field in ("rounds", "samples", "threads", "batch_size"):
            if getattr(self, field) < 1:
                raise UsageError(f"workload {field} is {getattr(self, field)}, at least 1 is needed")
        if self.warmup < 0:
            raise UsageError(f"workload warmup is {self.warmup}, at least 0 is needed")
        if not self.lengths or min(self.lengths) < 1 or len(set(self.lengths)) != len(self.lengths):
            raise UsageError(f"workload lengths are {self.lengths}: different positive numbers are needed")
        if len(self.token_ids) < max(self.lengths):
            raise UsageError(
                f"the workload has {len(self.token_ids)} token ids, length {max(self.lengths)} needs "
                "as many: take a longer text or shorter lengths"
            )
        if min(self.token_ids) < 0:
            raise UsageError(f"token id {min(self.token_ids)}: ids are not negative")
        if any(not row or min(row) < 0 for row in self.evaluation):
            raise UsageError("an evaluation row is empty or has a negative token id")

    def to_dict(self) -> dict[str, Any]:
        """The facts a results file keeps: everything but the token ids, which are the user's text."""
        return {
            "lengths": list(self.lengths),
            "rounds": self.rounds,
            "samples": self.samples,
            "warmup": self.warmup,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "evaluation_rows": len(self.evaluation),
        }


def tokenizer_near(folders: Sequence[Path]) -> Path:
    """A folder with a tokenizer: one of these, or the student of the run around one.

    Random ids would touch other rows of the embedding table than text does. Raises UsageError when there is
    none.
    """
    for folder in folders:
        for place in (folder, folder.resolve().parent.parent / "student"):
            if (place / "tokenizer.json").is_file():
                return place
    raise UsageError(
        f"no tokenizer.json in or around {folders[0]}: name a bundle, a model folder or an artifact of a "
        "run too, to have real text"
    )


def inputs_at(
    workload: Workload, length: int, input_names: Sequence[str]
) -> dict[str, npt.NDArray[np.int64]]:
    """Model inputs of one length, in the order of input_names: int64, [batch_size, length] each.

    Every row is the first `length` token ids.
    Raises UsageError for an input name that no task has, or a length beyond the token ids.
    """
    if not 1 <= length <= len(workload.token_ids):
        raise UsageError(f"length {length}: the workload holds 1 to {len(workload.token_ids)} tokens")
    return inputs_of(workload.token_ids[:length], input_names, workload.batch_size)


def inputs_of(
    token_ids: Sequence[int], input_names: Sequence[str], batch_size: int = 1
) -> dict[str, npt.NDArray[np.int64]]:
    """Model inputs of one text, in the order of input_names: int64, [batch_size, tokens] each.

    All tokens are attended to and all are of segment 0, in pairs of texts too: which segment a token is of
    costs no time. Raises UsageError for an input name that no task has.
    """
    unknown = [name for name in input_names if name not in INPUT_NAMES]
    if unknown:
        raise UsageError(f"unknown input {unknown[0]!r}: a model takes {', '.join(INPUT_NAMES)}")
    shape = (batch_size, len(token_ids))
    values = {
        "input_ids": np.tile(np.asarray(token_ids, dtype=np.int64), (batch_size, 1)),
        "attention_mask": np.ones(shape, dtype=np.int64),
        "token_type_ids": np.zeros(shape, dtype=np.int64),
    }
    return {name: values[name] for name in input_names}
