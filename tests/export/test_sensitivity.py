"""Parts of a model in 8 bits alone: which there are, what is left as it was, and what is kept out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stillroom.errors import UsageError
from stillroom.export.calibration import measured_ranges, simulated
from stillroom.export.encoder import ExportModel
from stillroom.export.int8_embedding import Int8Embedding
from stillroom.export.options import ExportOptions
from stillroom.export.sensitivity import (
    EVERYTHING,
    groups_of,
    rounded_alone,
    sensitivities,
    without_groups,
)
from stillroom.export.static_int8 import Numerics, use_static_int8
from stillroom.observe import Batch, linear_maps
from stillroom.student import load_model

INPUTS = ("input_ids", "attention_mask")
PARTS = ("qkv", "attention output", "ffn up", "ffn down")


def batches(rows: int = 6) -> tuple[Batch, ...]:
    random = np.random.default_rng(0)
    found = []
    for length in range(4, 4 + rows):
        ids = random.integers(5, 900, (1, length))
        found.append((ids, np.ones_like(ids)))
    return tuple(found)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_every_linear_map_is_in_one_group(family: str, model_folder: Callable[..., Path]) -> None:
    wrapped = ExportModel(load_model(model_folder(family)), INPUTS, 80)
    groups = groups_of(wrapped)
    expected = ["embeddings", *(f"layer {at} {part}" for at in range(2) for part in PARTS), "pooler", "head"]
    assert list(groups) == expected
    assert sorted(name for names in groups.values() for name in names) == sorted(linear_maps(wrapped))
    assert [len(groups[f"layer 1 {part}"]) for part in PARTS] == [3, 1, 1, 1]


def test_each_group_alone_and_everything(model_folder: Callable[..., Path]) -> None:
    folder, options = model_folder("bert"), ExportOptions(calibration=batches(), ranges="minmax")
    model = simulated(folder, options, Numerics())
    found = {one.group: one for one in sensitivities(model, batches())}
    assert len(found) == 12 and all(one.mean_squared_error > 0 for one in found.values())
    wrapped = model.wrapped

    def answers() -> np.ndarray:
        with torch.no_grad():
            return np.concatenate([wrapped(*map(torch.from_numpy, batch)).numpy() for batch in batches()])

    wanted, ranges = answers(), measured_ranges(wrapped, options, Numerics())
    with rounded_alone(model, ("layers.0.up",), embeddings=False):
        alone = float(np.square(answers() - wanted).mean())
    assert found["layer 0 ffn up"].mean_squared_error == pytest.approx(alone)
    assert (answers() == wanted).all(), "the model is as it was"
    use_static_int8(wrapped, ranges, Numerics())
    wrapped.words = Int8Embedding(wrapped.words.weight)
    whole = float(np.square(answers() - wanted).mean())
    assert found[EVERYTHING].mean_squared_error == pytest.approx(whole)


def test_groups_that_stay_in_fp32(model_folder: Callable[..., Path]) -> None:
    wrapped = ExportModel(load_model(model_folder("bert")), INPUTS, 80)
    ranges = measured_ranges(wrapped, ExportOptions(calibration=batches(), ranges="minmax"), Numerics())
    left = without_groups(wrapped, ranges, ("layer 1 qkv", "head"))
    assert set(ranges) - set(left) == {"layers.1.query", "layers.1.key", "layers.1.value", "head.1"}
    for wrong in ("layer 9 qkv", "embeddings", ""):
        with pytest.raises(UsageError, match="layer 0 ffn down"):
            without_groups(wrapped, ranges, (wrong,))
