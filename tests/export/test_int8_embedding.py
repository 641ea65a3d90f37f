"""8-bit word embeddings against numpy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillroom.export.int8_embedding import Int8Embedding

tables = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-4, 4, width=32)
)


@given(tables, st.data())
def test_rows_are_off_by_half_a_step(weight: np.ndarray, data: st.DataObject) -> None:
    ids = data.draw(hnp.arrays(np.int64, (2, 3), elements=st.integers(0, len(weight) - 1)))
    found = Int8Embedding(torch.from_numpy(weight))(torch.from_numpy(ids)).numpy()
    step = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-12) / 127
    assert found.dtype == np.float32 and found.shape == (2, 3, weight.shape[1])
    assert (np.abs(found - weight[ids]) <= 0.5001 * step[ids]).all()
    wanted = np.clip(np.round(weight.astype(np.float64) / step), -127, 127) * step
    assert np.abs(found - wanted[ids]).max() <= step.max() * 1.001  # a tie may be rounded either way
