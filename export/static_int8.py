"""Linear maps whose activations have fixed ranges: what PyTorch computes here, ONNX and ExecuTorch store.

The operators are those of torch's own quantized exports (quantized_decomposed): the ONNX exporter writes them
as QuantizeLinear and DequantizeLinear, XNNPACK's partitioner reads them as 8-bit products. So one module is
the simulation, the ONNX graph and the ExecuTorch program. Weights: symmetric, a scale for each output
(https://arxiv.org/abs/1806.08342).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor, nn

from stillroom.observe import linear_maps
from stillroom.ranges import LinearRanges, Range, Ranges

LEAST_SCALE = 1e-12  # of a channel of zeros
PORTABLE_STEPS = 63  # of a weight: 7 bits, whose products saturate nowhere (saturation.py)


@dataclass(frozen=True)
class Numerics:
    """signed: activations are int8, else uint8. weight_steps: a weight is at most so many steps from 0.

    outputs: round what comes out too, as XNNPACK needs it. flat: compute in two dimensions, which onnxruntime
    has an operator for that adds the bias.
    """

    signed: bool = False
    weight_steps: int = 127
    outputs: bool = False
    flat: bool = False


def scale_and_zero(ends: Range, signed: bool) -> tuple[float, int]:
    """Size of the 255 steps of a range widened to hold 0, and the integer that stands for 0."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    scale = max(high - low, LEAST_SCALE) / 255
    return scale, round(-low / scale) - (128 if signed else 0)


def weight_scales(weight: Tensor, steps: int = 127) -> Tensor:
    """weight [out, in] -> fp32 [out]: the largest weight of an output is so many steps from 0."""
    return weight.detach().abs().amax(dim=1).clamp(min=LEAST_SCALE) / steps


class StaticLinear(nn.Module):
    """A torch.nn.Linear in 8 bits: [..., in] -> [..., out]."""

    def __init__(self, linear: nn.Linear, ranges: LinearRanges, numerics: Numerics) -> None:
        super().__init__()
        self.outputs, self.numerics = linear.out_features, numerics
        self.low, self.high = (-128, 127) if numerics.signed else (0, 255)
        self.kind = torch.int8 if numerics.signed else torch.uint8
        self.input = scale_and_zero(ranges.input, numerics.signed)
        self.output = scale_and_zero(ranges.output, numerics.signed) if numerics.outputs else None
        weight, bias = linear.weight.detach(), linear.bias.detach()
        # Before what is freed again: in such a hole it would leave too little for the next map's.
        self.rows: Tensor
        self.register_buffer("rows", torch.empty_like(weight, dtype=torch.int8))
        if ranges.correction is not None:
            bias = bias + torch.from_numpy(ranges.correction)
        self.factor: Tensor | None
        divisor = None if ranges.divisor is None else torch.from_numpy(ranges.divisor)
        self.register_buffer("factor", None if divisor is None else 1 / divisor)
        weight = weight if divisor is None else weight * divisor
        # The bias is added to the sums of products, in steps of both scales, and has to fit their 32 bits.
        steps = numerics.weight_steps
        scales = torch.maximum(weight_scales(weight, steps), bias.abs() / (self.input[0] * 2.0**30))
        self.rows.copy_((weight / scales[:, None]).round_().clamp_(-steps, steps))
        self.scales: Tensor
        self.zeros: Tensor
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.int8))
        self.bias: Tensor
        self.bias_scales: Tensor
        self.bias_zeros: Tensor
        self.register_buffer("bias_scales", scales * self.input[0])
        rounded = torch.round(bias / self.bias_scales).to(torch.int32)
        self.register_buffer("bias", rounded if numerics.flat else bias)
        self.register_buffer("bias_zeros", torch.zeros(len(scales), dtype=torch.int32))

    def forward(self, states: Tensor) -> Tensor:
        ops: Any = torch.ops.quantized_decomposed
        shape = states.shape
        if self.numerics.flat:
            states = states.reshape(-1, shape[-1])
        states = self._rounded(self.divided(states), self.input)
        weight = ops.dequantize_per_channel(self.rows, self.scales, self.zeros, 0, -127, 127, torch.int8)
        bias = self.bias
        if self.numerics.flat:
            bias = ops.dequantize_per_channel(
                bias, self.bias_scales, self.bias_zeros, 0, -(2**31), 2**31 - 1, torch.int32
            )
        found = nn.functional.linear(states, weight, bias)
        if self.output is not None:
            found = self._rounded(found, self.output)
        return found.reshape(*shape[:-1], self.outputs) if self.numerics.flat else found

    def divided(self, states: Tensor) -> Tensor:
        """What is rounded: the input, by the divisor of its ranges if there is one."""
        return states if self.factor is None else states * self.factor

    def in_steps(self, states: Tensor, scale: tuple[float, int]) -> Tensor:
        """The integers that stand for values, where scale is self.input or self.output."""
        ops: Any = torch.ops.quantized_decomposed
        return torch.as_tensor(ops.quantize_per_tensor(states, *scale, self.low, self.high, self.kind))

    def _rounded(self, states: Tensor, scale: tuple[float, int]) -> Tensor:
        ops: Any = torch.ops.quantized_decomposed
        steps = self.in_steps(states, scale)
        return torch.as_tensor(ops.dequantize_per_tensor(steps, *scale, self.low, self.high, self.kind))


def use_static_int8(wrapped: nn.Module, ranges: Ranges, numerics: Numerics) -> None:
    """Replace the linear maps that ranges name; the others stay as they are."""
    for name, linear in linear_maps(wrapped).items():
        if name in ranges:
            wrapped.set_submodule(name, StaticLinear(linear, ranges[name], numerics))


@contextmanager
def in_static_int8(wrapped: nn.Module, ranges: Ranges, numerics: Numerics) -> Iterator[None]:
    """The same for as long as the context lasts."""
    before = linear_maps(wrapped)
    use_static_int8(wrapped, ranges, numerics)
    try:
        yield
    finally:
        for name, linear in before.items():
            wrapped.set_submodule(name, linear)
