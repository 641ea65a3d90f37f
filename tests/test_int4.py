"""Scales of four bits: storable, of small error, and those that weights of whole steps already have."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillroom.int4 import HIGH, LOW, best_scales, spread, storable
from stillroom.scheme import INT4_BLOCK

SHAPES = st.tuples(st.integers(1, 5), st.sampled_from([32, 96]))
weights = hnp.arrays(np.float32, SHAPES, elements=st.floats(-2, 2, width=32))


@given(weights, st.booleans())
def test_scales_are_better_than_the_largest_weights(weight: np.ndarray, signed: bool) -> None:
    given_ = torch.from_numpy(weight)
    scales = best_scales(given_, signed)
    assert torch.equal(scales, scales.to(torch.bfloat16).float()) and (signed or (scales > 0).all())
    assert torch.equal(scales, scales.half().float())
    blocks = weight.reshape(len(weight), -1, INT4_BLOCK)

    def error(scale: np.ndarray) -> np.ndarray:
        steps = np.clip(np.round(blocks / scale[..., None]), -8, 7)
        return np.asarray(np.square(steps * scale[..., None] - blocks).sum(axis=2))

    plain = storable(torch.from_numpy(np.abs(blocks).max(axis=2) / 7.5)).numpy()
    # One of those tried is within a hundredth of it; what that may cost, and fp32.
    assert (error(scales.numpy()) <= error(plain) * 1.1 + INT4_BLOCK * (0.2 * plain) ** 2).all()


@given(hnp.arrays(np.int8, SHAPES, elements=st.integers(LOW, HIGH)), st.floats(-9, 3), st.booleans())
def test_whole_steps_stay_whole_steps(steps: np.ndarray, exponent: float, signed: bool) -> None:
    own = storable(torch.full((len(steps), steps.shape[1] // INT4_BLOCK), 2.0**exponent))
    weight = torch.from_numpy(steps) * spread(own)
    scales = spread(best_scales(weight, signed))
    near = torch.round(weight / scales).clamp(LOW, HIGH) * scales
    assert torch.equal(near, weight)
