"""Our own rounding in an int4 ONNX file: the steps and scales of MatMulNBits and GatherBlockQuantized."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stillroom.export.rounding import Rounded

# operator -> which of its inputs are steps and scales, and what is added to a step before it is packed:
# without zero points MatMulNBits takes 8 for 0; GatherBlockQuantized's steps are signed
LAYOUT = {"MatMulNBits": (1, 2, 8), "GatherBlockQuantized": (0, 2, 0)}


def store_rounded(fp32: Path, int4: Path, weights: Mapping[str, Rounded]) -> None:
    """Put rounded weights into an int4 file, in the place of what onnxruntime's tool has rounded there.

    fp32: the graph it was made from, of the rounded weights; by their values they are found. A weight that
    is not among them stays. Raises RuntimeError when one of them has no place in the file.
    """
    import onnx

    values = {tensor.name: tensor for tensor in onnx.load(fp32).graph.initializer}
    by_bytes = {one.values().numpy().tobytes(): name for name, one in weights.items()}
    model, left = onnx.load(int4), dict(weights)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in LAYOUT:
            continue
        steps_at, scales_at, zero = LAYOUT[node.op_type]
        steps, scales = tensors[node.input[steps_at]], tensors[node.input[scales_at]]
        value = onnx.numpy_helper.to_array(values[steps.name.removesuffix("_Q4")])
        stored = value.T if node.op_type == "MatMulNBits" else value  # MatMul's weight is [in, out]
        name = by_bytes.get(np.ascontiguousarray(stored).tobytes())
        if name in left:
            _store(steps, pack(left[name].steps.numpy(), zero))
            _store(scales, left[name].scales.numpy())
            del left[name]
    if left:
        raise RuntimeError(f"{int4} has no place for the 4-bit weight {min(left)}")
    onnx.save(model, int4)


def pack(steps: np.ndarray, zero: int) -> np.ndarray:
    """Steps int8 [rows, columns], -8 to 7 -> uint8: two of a row a byte, the first in the low half."""
    halves = (steps + np.int8(zero)).view(np.uint8) & 0xF
    return halves[:, 0::2] | halves[:, 1::2] << 4


def _store(tensor: Any, array: np.ndarray) -> None:
    if array.nbytes != len(tensor.raw_data):
        raise RuntimeError(f"{tensor.name} holds {len(tensor.raw_data)} bytes, not {array.nbytes}")
    tensor.raw_data = array.tobytes()
