"""Migration and bias correction: nothing changes in fp32, and what each is for gets better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stillroom.export.calibration import measured_ranges
from stillroom.export.encoder import ExportModel
from stillroom.export.equalise import corrected, divisors
from stillroom.export.options import ExportOptions
from stillroom.export.static_int8 import Numerics, StaticLinear, in_static_int8
from stillroom.observe import Batch, answers, linear_maps, ranges_by, reaches, seen_values
from stillroom.ranges import LinearRanges
from stillroom.student import load_model

INPUTS = ("input_ids", "attention_mask")


def batches() -> tuple[Batch, ...]:
    random = np.random.default_rng(0)
    ids = [random.integers(5, 900, (2, length)) for length in range(4, 12)]
    return tuple((array, np.ones_like(array)) for array in ids)


@pytest.fixture
def wrapped(model_folder: Callable[..., Path]) -> ExportModel:
    return ExportModel(load_model(model_folder("bert")), INPUTS, 80)


@given(st.integers(0, 999))
def test_a_divided_input_and_multiplied_weights_are_the_same_map(seed: int) -> None:
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    linear, states = nn.Linear(16, 8), random.normal(0, 1, (3, 5, 16)).astype(np.float32)
    divisor = np.exp(random.uniform(-2, 2, 16)).astype(np.float32)
    correction = random.normal(0, 1, 8).astype(np.float32)
    most = float(np.abs(states / divisor).max())
    ranges = LinearRanges((-most, most), (-1.0, 1.0), divisor, correction)
    with torch.no_grad():
        found = StaticLinear(linear, ranges, Numerics())(torch.from_numpy(states)).numpy()
        wanted = linear(torch.from_numpy(states)).numpy() + correction
        weights = linear.weight.numpy() * divisor
    # Each of 16 products is off by half a step of its input times its weight, and the other way round.
    bound = 16 * (most / 255 * np.abs(weights).max() + most * np.abs(weights).max() / 254)
    assert np.abs(found - wanted).max() < bound
    assert np.abs(found - correction - (wanted - correction)).mean() < bound / 8


def test_divisors_by_hand(wrapped: ExportModel) -> None:
    inputs: list[np.ndarray] = []
    hook = wrapped.get_submodule("layers.1.up").register_forward_hook(
        lambda _, given, found: inputs.append(given[0].numpy().reshape(-1, given[0].shape[-1]))
    )
    answers(wrapped, batches())
    hook.remove()
    reach, maps = reaches(wrapped, batches(), ""), linear_maps(wrapped)
    np.testing.assert_allclose(reach["layers.1.up"], np.abs(np.concatenate(inputs)).max(axis=0), rtol=1e-5)
    found = divisors(wrapped, reach)
    assert set(found) == {f"layers.{at}.{part}" for at in (0, 1) for part in ("query", "key", "value", "up")}
    for layer in ("layers.0", "layers.1"):
        same = [found[f"{layer}.{part}"] for part in ("query", "key", "value")]
        assert (same[0] == same[1]).all() and (same[0] == same[2]).all()  # one operator does for the three
    weights = np.abs(maps["layers.1.up"].weight.detach().numpy()).max(axis=0)
    wanted = np.sqrt(reach["layers.1.up"] / weights)
    np.testing.assert_allclose(found["layers.1.up"], wanted / np.exp(np.log(wanted).mean()), rtol=1e-4)


def test_corrected_outputs_keep_their_mean(wrapped: ExportModel) -> None:
    ranges = ranges_by(seen_values(wrapped, batches()), "minmax", "minmax")
    better = corrected(wrapped, ranges, Numerics(), batches())
    inputs: dict[str, list[Any]] = {name: [] for name in ranges}
    for name, map_ in linear_maps(wrapped).items():
        map_.register_forward_hook(lambda _, given, found, name=name: inputs[name].append((given[0], found)))
    answers(wrapped, batches())
    for name, map_ in linear_maps(wrapped).items():
        rounded = StaticLinear(map_, better[name], Numerics())
        lost = torch.cat([(found - rounded(given)).flatten(0, -2) for given, found in inputs[name]])
        assert lost.mean(dim=0).abs().max() < 1e-5


def test_far_channels_cost_less_when_their_scale_is_migrated(wrapped: ExportModel) -> None:
    with torch.no_grad():  # as trained models have them: a few channels of a LayerNorm reach far
        for layer in wrapped.layers:
            layer.attention_norm.weight[:3] *= 30
            layer.up.weight[:, :3] /= 30
    wanted = answers(wrapped, batches())
    seen = seen_values(wrapped, batches())
    plain = ranges_by(seen, "minmax", "minmax")
    moved = divisors(wrapped, reaches(wrapped, batches(), ""))
    migrated = {
        name: replace(one, divisor=moved.get(name))
        for name, one in ranges_by(seen_values(wrapped, batches(), "", moved), "minmax", "minmax").items()
    }

    def error(ranges: dict[str, LinearRanges]) -> float:
        with in_static_int8(wrapped, ranges, Numerics()):
            return float(np.square(answers(wrapped, batches()) - wanted).mean())

    up = {name: one for name, one in plain.items() if name.endswith(".up")}
    assert error({name: migrated[name] for name in up}) < error(up) / 2
    best = measured_ranges(wrapped, ExportOptions(calibration=batches()), Numerics())
    assert error(dict(best)) <= min(error(dict(plain)), error(migrated))
