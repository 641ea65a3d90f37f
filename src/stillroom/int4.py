"""Four bits in blocks: the scales that INT4_BLOCK weights of a row share, and the steps between -8 and 7."""

from __future__ import annotations

import torch
from torch import Tensor

from stillroom.scheme import INT4_BLOCK

LOW, HIGH = -8, 7  # steps of a weight
LEAST_SCALE = 2.0**-14  # the least that fp16 holds in full
SCALES_TRIED = 50


def best_scales(weight: Tensor, signed: bool) -> Tensor:
    """Of scales around the largest those of least squared error, float32 [rows, columns / INT4_BLOCK].

    Weights that are whole steps of a storable scale already get a scale of which they stay whole steps.
    """
    blocks = weight.reshape(len(weight), -1, INT4_BLOCK)
    largest = blocks.gather(2, blocks.abs().argmax(dim=2, keepdim=True))[..., 0]
    top = largest / LOW if signed else largest.abs() / (HIGH + 0.5)
    best, least = torch.empty_like(top), torch.full_like(top, torch.inf)
    shares = torch.linspace(0.6, 1.1, SCALES_TRIED)
    tried = [top * share for share in (torch.cat([shares, -shares]) if signed else shares)]
    tried += [largest.abs() / step for step in range(1, -LOW + 1)]
    for scales in map(storable, tried):
        near = torch.round(blocks / scales[..., None]).clamp_(LOW, HIGH).mul_(scales[..., None])
        errors = near.sub_(blocks).square_().sum(dim=2)
        better = errors < least
        best, least = torch.where(better, scales, best), torch.where(better, errors, least)
    return best


def storable(scales: Tensor) -> Tensor:
    """The nearest scales that float32, bfloat16 and fp16 all hold; never 0."""
    sizes = scales.abs().clamp(min=LEAST_SCALE).to(torch.bfloat16).float()
    return torch.where(scales < 0, -sizes, sizes)


def spread(scales: Tensor) -> Tensor:
    """Scales of blocks, [..., columns / INT4_BLOCK] -> of weights, [..., columns]."""
    return scales.repeat_interleave(INT4_BLOCK, dim=-1)
