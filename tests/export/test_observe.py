"""Which rows static ranges are measured on, how they are fed, and what is seen on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.export.encoder import ExportModel
from stillroom.observe import ROWS_AT_ONCE, calibration_of, linear_maps, seen_values
from stillroom.student import load_model
from stillroom.tokens import Tokens


def tokens(count: int) -> Tokens:
    """Rows of 1, 2, 3 ... tokens; row r is made of r's."""
    lengths = np.arange(1, count + 1)
    ids = np.repeat(np.arange(count), lengths).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(ids, np.zeros_like(ids), offsets, np.zeros(count, np.int64), pad_id=99)


def test_rows_are_spread_and_have_no_padding() -> None:
    found = calibration_of(tokens(100), ("input_ids", "attention_mask"), rows=5)
    assert sorted(int(ids[0, 0]) for ids, _ in found) == [0, 25, 50, 74, 99]
    for ids, mask in found:
        assert ids.shape == mask.shape == (1, int(ids[0, 0]) + 1)
        assert (ids == ids[0, 0]).all() and (mask == 1).all() and ids.dtype == np.int64


def test_few_rows_are_all_taken_once() -> None:
    found = calibration_of(tokens(3), ("input_ids", "attention_mask"))
    assert sorted(int(ids[0, 0]) for ids, _ in found) == [0, 1, 2]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=200))
def test_rows_of_one_length_go_together_and_none_is_padded(lengths: list[int]) -> None:
    ids = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = Tokens(ids, np.zeros_like(ids), offsets, np.zeros(len(lengths), np.int64), pad_id=10_000)
    found = calibration_of(rows, ("input_ids", "attention_mask"), rows=len(lengths))
    assert all(mask.all() and len(ids) <= ROWS_AT_ONCE for ids, mask in found)
    assert sorted(int(row[0]) for ids, _ in found for row in ids) == list(range(len(lengths)))
    assert all(lengths[int(row[0])] == len(row) for ids, _ in found for row in ids)


def test_what_is_seen_is_what_goes_in_and_comes_out(model_folder: Callable[..., Path]) -> None:
    folder = model_folder("bert")
    wrapped = ExportModel(load_model(folder), ("input_ids", "attention_mask"), 80)
    batches = [(np.array([[2, 7, 9, 3]]), np.ones((1, 4), dtype=np.int64)),
               (np.array([[2, 11, 3]]), np.ones((1, 3), dtype=np.int64))]  # fmt: skip
    found = seen_values(wrapped, batches)
    assert set(found) == set(linear_maps(wrapped))
    head = linear_maps(wrapped)["head.1"]
    with torch.no_grad():
        logits = torch.cat([wrapped(*map(torch.from_numpy, batch)) for batch in batches]).numpy()
    given, result = found["head.1"]
    assert (result.low, result.high) == pytest.approx((logits.min(), logits.max()))
    assert given.counts.sum() == 2 * head.in_features and result.counts.sum() == 2 * head.out_features
    assert found["layers.0.up"][0].counts.sum() == 7 * 64
    assert not any(module._forward_hooks for module in wrapped.modules())
