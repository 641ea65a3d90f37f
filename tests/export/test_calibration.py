"""Which rows static ranges are measured on."""

from __future__ import annotations

import numpy as np

from stillroom.export.calibration import calibration_of
from stillroom.tokens import Tokens


def tokens(count: int) -> Tokens:
    """Rows of 1, 2, 3 ... tokens; row r is made of r's."""
    lengths = np.arange(1, count + 1)
    ids = np.repeat(np.arange(count), lengths).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(ids, np.zeros_like(ids), offsets, np.zeros(count, np.int64), pad_id=99)


def test_rows_are_spread_and_have_no_padding() -> None:
    found = calibration_of(tokens(100), ("input_ids", "attention_mask"), rows=5)
    assert [int(ids[0, 0]) for ids, _ in found] == [0, 25, 50, 74, 99]
    for ids, mask in found:
        assert ids.shape == mask.shape == (1, int(ids[0, 0]) + 1)
        assert (ids == ids[0, 0]).all() and (mask == 1).all() and ids.dtype == np.int64


def test_few_rows_are_all_taken_once() -> None:
    found = calibration_of(tokens(3), ("input_ids", "attention_mask"))
    assert [int(ids[0, 0]) for ids, _ in found] == [0, 1, 2]
