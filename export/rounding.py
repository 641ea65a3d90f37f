"""Weights in 4 bits, or from a palette, as our own rounding (gptq.py) chooses them, for targets to pack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stillroom.export.gptq import Curvature, Grid, ToGrid, curvatures, rounded
from stillroom.int4 import HIGH, LOW, best_scales, spread
from stillroom.observe import linear_maps
from stillroom.progress import progress_bar
from stillroom.scheme import INT4_BLOCK

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions

CURVATURE_BYTES = 512 * 2**20  # of all that are gathered in one pass over the text
PALETTE_BINS, PALETTE_ROUNDS = 2**16, 40
UNSEEN = 0.1  # texts in which a token that calibration has not met is taken to be, beside those met
WORDS = "words"


@dataclass(frozen=True)
class Rounded:
    """A weight [rows, columns]: steps int8, -8 to 7; scales float32 [rows, columns / INT4_BLOCK]."""

    steps: Tensor
    scales: Tensor

    def values(self) -> Tensor:
        """What every runtime computes with: float32 [rows, columns]."""
        return self.steps * spread(self.scales)


def round_to_blocks(
    wrapped: Any, options: ExportOptions, names: Sequence[str], signed: bool
) -> dict[str, Rounded]:
    """Round weights of an ExportModel in place: linear maps by name, and WORDS. Those whose rows are no
    multiple of INT4_BLOCK long stay as they are and are left out.

    signed: scales below 0 are allowed, which make 8 steps up instead of 7. All scales are bfloat16 numbers
    that fp16 holds too, so that every file holds them exactly.
    """
    found = {}
    fit = [name for name in names if wrapped.get_submodule(name).weight.shape[1] % INT4_BLOCK == 0]
    for name, weight, curvature in _in_turn(wrapped, options, fit):
        scales = best_scales(weight, signed)
        near = _round(weight, curvature, block_grid(scales))
        steps = torch.round(near / spread(scales)).to(torch.int8)
        found[name] = Rounded(steps, scales)
        weight.copy_(found[name].values())
    return found


def round_to_palettes(wrapped: Any, options: ExportOptions, names: Sequence[str], size: int) -> None:
    """Round weights of an ExportModel in place to so many values each, which are fp16 numbers."""
    seen = np.bincount(
        np.concatenate([batch[0].reshape(-1) for batch in options.calibration]),
        minlength=len(wrapped.words.weight),
    )
    for _, weight, curvature in _in_turn(wrapped, options, names):
        own = torch.from_numpy(seen + UNSEEN) if curvature.inputs is None else curvature.outputs.diagonal()
        columns = curvature.outputs if curvature.inputs is None else curvature.inputs
        palette = palette_of(weight, size, torch.outer(own.float(), columns.diagonal()))
        weight.copy_(_round(weight, curvature, palette_grid(palette)))


def _round(weight: Tensor, curvature: Curvature, grid: Grid) -> Tensor:
    if curvature.inputs is None:  # an embedding
        return rounded(weight, curvature.outputs, None, grid)
    return rounded(weight, curvature.inputs, curvature.outputs, grid)


def _in_turn(
    wrapped: Any, options: ExportOptions, names: Sequence[str]
) -> Iterator[tuple[str, Tensor, Curvature]]:
    """Weights with their curvatures, of as many at a time as memory should hold."""
    with torch.no_grad(), progress_bar(len(names), "round", "weight") as bar:
        for group in groups_of(wrapped, names):
            with torch.enable_grad():
                gathered = curvatures(wrapped, options.calibration, group)
            for name in group:
                yield name, wrapped.get_submodule(name).weight, gathered.pop(name)
                bar.update(1)


def groups_of(wrapped: Any, names: Sequence[str]) -> list[list[str]]:
    """Names in order, in groups whose curvatures take CURVATURE_BYTES, or more where one alone does."""
    groups: list[list[str]] = []
    filled, linear = CURVATURE_BYTES, linear_maps(wrapped)
    for name in names:
        shape = wrapped.get_submodule(name).weight.shape
        size_bytes = 4 * sum(side**2 for side in (shape if name in linear else shape[1:]))
        if filled + size_bytes > CURVATURE_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size_bytes
    return groups


def block_grid(scales: Tensor) -> Grid:
    """Steps of LOW to HIGH times a scale; scales: [rows, columns / INT4_BLOCK]."""
    by_block = scales.T.contiguous()

    def of_rows(rows: Tensor) -> ToGrid:
        own = by_block[:, rows]

        def to_grid(values: Tensor, column: int) -> Tensor:
            scale = own[column // INT4_BLOCK]
            return torch.round(values / scale).clamp_(LOW, HIGH).mul_(scale)

        return to_grid

    return of_rows


def palette_of(weight: Tensor, size: int, importance: Tensor) -> Tensor:
    """k-means in one dimension, each of a weight's values as important as said (https://arxiv.org/abs/2306.07629):
    rising fp16 numbers as float32 [size].
    """
    counts, edges = torch.histogram(weight.reshape(-1), PALETTE_BINS, weight=importance.reshape(-1))
    values, counts = (edges[1:] + edges[:-1]).double() / 2, counts.double()
    shares = counts.cumsum(0) / counts.sum()
    middles = torch.linspace(0, 1, 2 * size + 1, dtype=torch.float64)[1::2]
    palette = values[torch.searchsorted(shares, middles).clamp(max=PALETTE_BINS - 1)]
    for _ in range(PALETTE_ROUNDS):
        nearest = torch.bucketize(values, (palette[1:] + palette[:-1]) / 2)
        masses, sums = (
            torch.zeros(size, dtype=torch.float64).index_add_(0, nearest, one)
            for one in (counts, counts * values)
        )
        palette = torch.where(masses > 0, sums / masses, palette)
    return palette.half().float()


def palette_grid(palette: Tensor) -> Grid:
    """The nearest of rising values."""
    borders = (palette[1:] + palette[:-1]) / 2
    return lambda rows: lambda values, column: palette[torch.bucketize(values, borders)]
