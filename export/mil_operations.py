"""The Core ML (MIL) operations that our packages can hold, each computed by torch.

Semantics: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
Parameters have MIL's own names and defaults. Floats are fp32 tensors, integers int32 ones, single numbers
tensors without dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.errors import CheckFailed

NO, LAST, FIRST = torch.tensor(False), torch.tensor(-1), torch.tensor(0)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: Tensor = NO, transpose_y: Tensor = NO) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def layer_norm(x: Tensor, axes: Tensor, gamma: Tensor, beta: Tensor, epsilon: Tensor) -> Tensor:
    dims = axes.tolist()
    centred = x - x.mean(dim=dims, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(dim=dims, keepdim=True) + epsilon) * gamma + beta


def softmax(x: Tensor, axis: Tensor = LAST) -> Tensor:
    return torch.softmax(x, int(axis))


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def real_div(x: Tensor, y: Tensor) -> Tensor:
    """Of integers an integer, rounded down, as MIL has it."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="floor")


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape(shape.tolist())


def transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(perm.tolist())


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(int(axis) % rank for axis in axes.reshape(-1)):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor) -> Tensor:
    return x.squeeze(tuple(axes.tolist()))


def gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor = FIRST,
    batch_dims: Tensor = FIRST,
    validate_indices: Tensor = NO,
) -> Tensor:
    if int(batch_dims):
        raise CheckFailed("Core ML operation gather with batch_dims is unknown to the interpreter")
    at = int(axis) % x.dim()
    places = torch.where(indices < 0, indices + x.shape[at], indices).long()
    taken = x.index_select(at, places.reshape(-1))
    return taken.reshape([*x.shape[:at], *indices.shape, *x.shape[at + 1 :]])


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """A mask that is True at an axis: from its first, to its last, or only begin, and the axis goes."""
    all_false = [False] * x.dim()
    masks = [all_false if mask is None else mask.tolist() for mask in (begin_mask, end_mask, squeeze_mask)]
    strides = [1] * x.dim() if stride is None else stride.tolist()
    picked: list[int | slice] = []
    for start, stop, step, open_start, open_stop, single in zip(
        begin.tolist(), end.tolist(), strides, *masks, strict=True
    ):
        whole = slice(None if open_start else start, None if open_stop else stop, step)
        picked.append(start if single else whole)
    return x[tuple(picked)]


def cast(x: Tensor, dtype: str) -> Tensor:
    """To a narrower integer and back: what does not fit wraps. fp16 is rounded where the output is stored."""
    through = {
        "fp16": torch.float32, "fp32": torch.float32, "int32": torch.int32, "int16": torch.int16,
        "uint16": torch.uint16, "int8": torch.int8, "uint8": torch.uint8, "bool": torch.bool,
    }[dtype]  # fmt: skip
    if through in (torch.float32, torch.bool):
        return x.to(through)
    return x.to(torch.int32).to(through).to(torch.int32)


def concat(values: list[Tensor], axis: Tensor, interleave: Tensor = NO) -> Tensor:
    if interleave:
        raise CheckFailed("Core ML operation concat with interleave is unknown to the interpreter")
    return torch.cat([value.reshape(-1) if value.dim() == 0 else value for value in values], int(axis))


def cumsum(x: Tensor, axis: Tensor = FIRST, exclusive: Tensor = NO, reverse: Tensor = NO) -> Tensor:
    if exclusive or reverse:
        raise CheckFailed(
            "Core ML operation cumsum that is exclusive or reversed is unknown to the interpreter"
        )
    return torch.cumsum(x, int(axis)).to(x.dtype)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": linear,
    "matmul": matmul,
    "layer_norm": layer_norm,
    "softmax": softmax,
    "gelu": gelu,
    "tanh": lambda x: torch.tanh(x),
    "relu": lambda x: torch.relu(x),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": real_div,
    "reshape": reshape,
    "transpose": transpose,
    "expand_dims": expand_dims,
    "squeeze": squeeze,
    "gather": gather,
    "slice_by_index": slice_by_index,
    "shape": lambda x: torch.tensor(x.shape, dtype=torch.int32),
    "cast": cast,
    "concat": concat,
    "greater_equal": lambda x, y: x >= y,
    "not_equal": lambda x, y: x != y,
    "select": lambda cond, a, b: torch.where(cond.bool(), a, b),
    "cumsum": cumsum,
    "tile": lambda x, reps: x.repeat(reps.tolist()),
    "fill": lambda shape, value: value.expand(shape.tolist()),
    "identity": lambda x: x,
}
