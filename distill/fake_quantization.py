"""Quantization-aware training: linear maps and word embeddings rounded to 8 or 4 bits while they learn.

Rounding has no slope; it is passed through as if it were not there (https://arxiv.org/abs/1308.3432), and the
sizes of the steps are learned like weights (https://arxiv.org/abs/1902.08153). What is rounded, and how, is
what the static int8 exports do: weights per output, activations in one range a linear map, embeddings per
row. The states between, and the softmax, stay as they are. In 4 bits it is weights alone, in blocks of which
each keeps the scale that it begins with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stillroom.int4 import HIGH, LOW, best_scales, spread
from stillroom.observe import linear_maps
from stillroom.ranges import LinearRanges, Range, Ranges
from stillroom.scheme import INT4_BLOCK

STEPS = 255
LEAST = 1e-8  # of a scale


def rounded(values: Tensor) -> Tensor:
    """Whole numbers forward, the identity backward."""
    return values + (torch.round(values) - values).detach()


def rounded_in(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values as 256 even steps from low to high tell them, in fp32; 0 is one of the steps."""
    scale = (high - low).clamp(min=LEAST) / STEPS
    zero = torch.round(-low / scale).detach()
    steps = torch.clamp(rounded(values.float() / scale) + zero, 0, STEPS)
    return (steps - zero) * scale


def rounded_rows(rows: Tensor) -> Tensor:
    """[..., width], each row in steps of a 127th of its largest value."""
    scale = rows.detach().abs().amax(dim=-1, keepdim=True).clamp(min=LEAST) / 127
    return rounded(rows / scale) * scale


def rounded_blocks(values: Tensor, scales: Tensor) -> Tensor:
    """[..., width] in steps of LOW to HIGH times the scales [..., width / INT4_BLOCK] of their blocks."""
    by_value = spread(scales)
    return torch.clamp(rounded(values / by_value), LOW, HIGH) * by_value


class _RoundedRows(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return rounded_rows(weight)


class _RoundedBlocks(nn.Module):
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("scales", best_scales(weight, signed=False), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return rounded_blocks(weight, self.scales)


@contextmanager
def fake_int4(model: nn.Module) -> Iterator[None]:
    """Round the weights of a model's linear maps and its word embeddings to 4 bits while the context lasts.

    They stay rounded after it: an export to int4 finds the same steps in them again. Weights whose rows are
    no multiple of INT4_BLOCK long are left as they are, as exports leave them.
    """
    embeddings = [module for name, module in model.named_modules() if name.endswith("word_embeddings")]
    modules: list[Any] = [*linear_maps(model).values(), *embeddings]
    modules = [module for module in modules if module.weight.shape[1] % INT4_BLOCK == 0]
    for module in modules:
        parametrize.register_parametrization(module, "weight", _RoundedBlocks(module.weight.detach()))
    try:
        yield
    finally:
        for module in modules:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


@contextmanager
def fake_quantized(model: nn.Module, start: Ranges) -> Iterator[None]:
    """Round a model's linear maps and word embeddings for as long as the context lasts.

    start: ranges to start from, by name. Each map gets a parameter "ends", which learned_ranges reads:
    logarithms of how far the four ends have moved. It is gone after the context, and so is the rounding.
    """
    maps = linear_maps(model)
    handles = []
    for name, module in maps.items():
        ranges = start[name]
        ends = [*_with_zero(ranges.input), *_with_zero(ranges.output)]
        module.register_buffer("first_ends", torch.tensor(ends, dtype=torch.float32), persistent=False)
        module.register_parameter("ends", nn.Parameter(torch.zeros(4)))
        handles.append(module.register_forward_pre_hook(_round_input))
        handles.append(module.register_forward_hook(_round_output))
        parametrize.register_parametrization(module, "weight", _RoundedRows())
    for name, module in model.named_modules():
        if name.endswith("word_embeddings"):
            handles.append(module.register_forward_hook(lambda _, ids, rows: rounded_rows(rows)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in maps.values():
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
            del module.ends, module.first_ends


def learned_ranges(model: nn.Module) -> Ranges:
    """The ranges that a model inside fake_quantized has now."""
    found = {}
    for name, module in linear_maps(model).items():
        low, high, low_out, high_out = _ends(module).detach().tolist()
        found[name] = LinearRanges((low, high), (low_out, high_out))
    return found


def _with_zero(ends: Range) -> Range:
    return min(ends[0], 0.0), max(ends[1], 0.0)


def _ends(module: Any) -> Tensor:
    return torch.as_tensor(module.first_ends * torch.exp(module.ends))


def _round_input(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    ends = _ends(module)
    return (rounded_in(given[0], ends[0], ends[1]), *given[1:])


def _round_output(module: Any, given: Any, found: Tensor) -> Tensor:
    ends = _ends(module)
    return rounded_in(found, ends[2], ends[3])
