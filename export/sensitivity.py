"""Which part of a model suffers most from 8 bits: each rounded alone, the rest left in fp32."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError, did_you_mean
from stillroom.numerics import Agreement, compare_logits
from stillroom.observe import Batch, answers, linear_maps
from stillroom.progress import progress_bar

if TYPE_CHECKING:
    from stillroom.export.calibration import Simulated
    from stillroom.ranges import Ranges

EMBEDDINGS, EVERYTHING = "embeddings", "everything"
PARTS = {
    "query": "qkv",
    "key": "qkv",
    "value": "qkv",
    "attention_out": "attention output",
    "up": "ffn up",
    "down": "ffn down",
}


@dataclass(frozen=True)
class Sensitivity:
    """What rounding one group alone changes. mean_squared_error: of the logits."""

    group: str
    mean_squared_error: float
    agreement: Agreement


def group_of(linear_map: str, all_maps: Sequence[str]) -> str:
    """The group of a linear map of an ExportModel: "layer 0 qkv" ..., "pooler", "head"."""
    if found := re.fullmatch(r"layers\.(\d+)\.(\w+)", linear_map):
        return f"layer {found[1]} {PARTS[found[2]]}"
    return "head" if linear_map == all_maps[-1] else "pooler"


def groups_of(wrapped: Any) -> dict[str, tuple[str, ...]]:
    """Group -> its linear maps, in the order they are computed in; the embeddings first, with none."""
    names = list(linear_maps(wrapped))
    found: dict[str, tuple[str, ...]] = {EMBEDDINGS: ()}
    for name in names:
        group = group_of(name, names)
        found[group] = (*found.get(group, ()), name)
    return found


def without_groups(wrapped: Any, ranges: Ranges, kept: Sequence[str]) -> Ranges:
    """Ranges less those of groups that stay in fp32. Raises UsageError for a group that is not there."""
    groups = groups_of(wrapped)
    for group in kept:
        if group not in groups or group == EMBEDDINGS:
            there = [name for name in groups if name != EMBEDDINGS]
            raise UsageError(f"no group {group!r} to keep{did_you_mean(group, there)}: {', '.join(there)}")
    left = {name for group in kept for name in groups[group]}
    return {name: found for name, found in ranges.items() if name not in left}


def sensitivities(model: Simulated, batches: Sequence[Batch]) -> list[Sensitivity]:
    """Answers to batches with each group of a model in 8 bits alone, and with all of them at last."""
    wrapped, groups, found = model.wrapped, groups_of(model.wrapped), []
    with progress_bar(len(groups) + 2, "sensitivity", "group") as bar:
        wanted = answers(wrapped, batches)
        bar.update(1)
        every = tuple(name for names in groups.values() for name in names)
        for group, names in {**groups, EVERYTHING: every}.items():
            with rounded_alone(model, names, embeddings=group in (EMBEDDINGS, EVERYTHING)):
                got = answers(wrapped, batches)
            bar.update(1)
            error = float(np.square(got - wanted).mean())
            found.append(Sensitivity(group, error, compare_logits(wanted, got, model.kind)))
    return found


@contextmanager
def rounded_alone(model: Simulated, names: Sequence[str], *, embeddings: bool) -> Iterator[None]:
    """Some linear maps of a model in 8 bits, and its word embeddings too if asked, for a while."""
    from stillroom.export.int8_embedding import Int8Embedding
    from stillroom.export.static_int8 import in_static_int8

    words = model.wrapped.words
    if embeddings:
        model.wrapped.words = Int8Embedding(words.weight)
    try:
        with in_static_int8(model.wrapped, {name: model.ranges[name] for name in names}, model.numerics):
            yield
    finally:
        model.wrapped.words = words
