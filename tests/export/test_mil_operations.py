"""Core ML operations as the interpreter computes them, against numpy written out plainly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillroom.errors import CheckFailed
from stillroom.export.mil_operations import OPERATIONS

values = st.floats(-8, 8, width=32)
matrices = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=values)


def computed(name: str, **arguments: Any) -> np.ndarray:
    """An operation of numpy arrays and Python numbers, as the interpreter calls it."""
    tensors = {
        key: value if isinstance(value, str) or key == "values" else torch.as_tensor(value)
        for key, value in arguments.items()
    }
    return OPERATIONS[name](**tensors).numpy()


@given(matrices)
def test_layer_norm(x: np.ndarray) -> None:
    size = x.shape[-1]
    gamma, beta = np.linspace(0.5, 1.5, size, dtype=np.float32), np.linspace(-1, 1, size, dtype=np.float32)
    found = computed("layer_norm", x=x, axes=[-1], gamma=gamma, beta=beta, epsilon=1e-5)
    double = x.astype(np.float64)
    centred = double - double.mean(axis=-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * gamma + beta
    np.testing.assert_allclose(found, wanted, atol=2e-3)


@given(matrices)
def test_softmax_and_tanh(x: np.ndarray) -> None:
    powers = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(
        computed("softmax", x=x, axis=-1), powers / powers.sum(-1, keepdims=True), atol=1e-6
    )
    np.testing.assert_allclose(computed("tanh", x=x), np.tanh(x), atol=1e-6)


@pytest.mark.parametrize("mode", ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
def test_gelu(mode: str) -> None:
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    wanted = {
        "EXACT": [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()],
        "TANH_APPROXIMATION": [
            0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x.tolist()
        ],
        "SIGMOID_APPROXIMATION": [v / (1 + math.exp(-1.702 * v)) for v in x.tolist()],
    }[mode]
    np.testing.assert_allclose(computed("gelu", x=x, mode=mode), wanted, atol=1e-5)


@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_y", [False, True])
def test_matmul(transpose_x: bool, transpose_y: bool) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 3, 4)), random.normal(size=(2, 4, 5))
    given_x = x.swapaxes(1, 2).copy() if transpose_x else x
    given_y = y.swapaxes(1, 2).copy() if transpose_y else y
    found = computed("matmul", x=given_x, y=given_y, transpose_x=transpose_x, transpose_y=transpose_y)
    np.testing.assert_allclose(found, x @ y, atol=1e-12)


def test_linear() -> None:
    random = np.random.default_rng(0)
    x, weight, bias = random.normal(size=(2, 3)), random.normal(size=(4, 3)), random.normal(size=4)
    np.testing.assert_allclose(computed("linear", x=x, weight=weight, bias=bias), x @ weight.T + bias)
    np.testing.assert_allclose(computed("linear", x=x, weight=weight), x @ weight.T)


@given(st.data())
def test_gather(data: st.DataObject) -> None:
    x = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    axis = data.draw(st.integers(-3, 2))
    size = x.shape[axis]
    shape = data.draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    indices = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(-size, size - 1)))
    np.testing.assert_array_equal(computed("gather", x=x, indices=indices, axis=axis), x.take(indices, axis))


def test_slice_by_index() -> None:
    x = np.arange(2 * 5 * 4).reshape(2, 5, 4)
    found = computed("slice_by_index", x=x, begin=[0, 1, 0], end=[2, 4, 4], stride=[1, 2, 1])
    np.testing.assert_array_equal(found, x[:, 1:4:2])
    masked = {"begin_mask": [True, False, True], "end_mask": [True, False, True]}
    found = computed("slice_by_index", x=x, begin=[9, 0, 9], end=[0, 1, 0], **masked)
    np.testing.assert_array_equal(found, x[:, :1])
    single = [False, True, False]
    found = computed("slice_by_index", x=x, begin=[0, 2, 0], end=[2, 3, 4], squeeze_mask=single)
    np.testing.assert_array_equal(found, x[:, 2])


def test_shapes() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(computed("reshape", x=x, shape=[6, -1]), x.reshape(6, 4))
    np.testing.assert_array_equal(computed("transpose", x=x, perm=[0, -1, 1]), x.transpose(0, 2, 1))
    assert computed("expand_dims", x=x, axes=[1, -1]).shape == (2, 1, 3, 4, 1)
    assert computed("squeeze", x=x[:, None, :, :, None], axes=[1, -1]).shape == x.shape
    assert computed("shape", x=x).tolist() == [2, 3, 4]
    assert computed("concat", values=[torch.tensor(7), torch.tensor([8, 9])], axis=0).tolist() == [7, 8, 9]
    np.testing.assert_array_equal(computed("tile", x=x, reps=[2, 1, 3]), np.tile(x, (2, 1, 3)))
    assert computed("fill", shape=[2, 2], value=1.5).tolist() == [[1.5, 1.5]] * 2


@pytest.mark.parametrize(
    ("dtype", "given_values", "wanted"),
    [("int16", [32767, 32768, -1], [32767, -32768, -1]), ("uint16", [65535, 65536, 30522], [65535, 0, 30522]),
     ("int8", [127, 128], [127, -128]), ("int32", [1.9, -1.9], [1, -1]), ("bool", [0, 2], [0, 1]),
     ("fp16", [1, 2], [1.0, 2.0])],
)  # fmt: skip
def test_cast(dtype: str, given_values: list[float], wanted: list[float]) -> None:
    assert computed("cast", x=np.array(given_values), dtype=dtype).tolist() == wanted


def test_elementwise() -> None:
    x, y = np.array([[7, -7], [2, 0]]), np.array([2, 2])
    for name, wanted in (("add", x + y), ("sub", x - y), ("mul", x * y), ("real_div", x // y)):
        np.testing.assert_array_equal(computed(name, x=x, y=y), wanted)
    np.testing.assert_array_equal(computed("real_div", x=x / 1.0, y=y / 1.0), x / y)
    np.testing.assert_array_equal(computed("greater_equal", x=x, y=y), x >= y)
    np.testing.assert_array_equal(computed("not_equal", x=x, y=y), x != y)
    np.testing.assert_array_equal(computed("select", cond=x > 0, a=x, b=y), np.where(x > 0, x, y))
    np.testing.assert_array_equal(computed("cumsum", x=x, axis=1), x.cumsum(axis=1))
    np.testing.assert_array_equal(computed("relu", x=x), np.maximum(x, 0))
    np.testing.assert_array_equal(computed("identity", x=x), x)


def test_uses_that_are_not_known() -> None:
    x = np.zeros((2, 2), np.int64)
    for name, arguments in (("gather", {"indices": x, "batch_dims": 1}), ("cumsum", {"reverse": True}),
                            ("cumsum", {"exclusive": True})):  # fmt: skip
        with pytest.raises(CheckFailed, match=f"Core ML operation {name}"):
            computed(name, x=x, **arguments)
    with pytest.raises(CheckFailed, match="concat with interleave"):
        computed("concat", values=[torch.zeros(2)], axis=0, interleave=True)
