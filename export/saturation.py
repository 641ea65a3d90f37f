"""What a static int8 model answers on an x86 CPU without VNNI, where sums of two products may not fit.

There the kernel multiplies 8-bit activations and weights with vpmaddubsw: the products of each two
neighbours are added in 16 bits, and a sum beyond 32,767 is cut to it (Intel's Software Developer's Manual,
PMADDUBSW). With VNNI, and on ARM, sums are made in 32 bits. Weights of at most 64 steps never saturate,
2 * 255 * 64 < 32,768: what ExportOptions.portable gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.numerics import Agreement, compare_logits
from stillroom.observe import Batch, answers, ranges_by, seen_values
from stillroom.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from stillroom.export.static_int8 import Numerics, StaticLinear
    from stillroom.ranges import Ranges

LEAST, MOST = -(2**15), 2**15 - 1


@dataclass(frozen=True)
class Saturation:
    """dot_products: computed; saturated: of them, those with a pair that did not fit 16 bits.

    agreement: of the answers without VNNI with those with it.
    """

    dot_products: int
    saturated: int
    agreement: Agreement


def cut_off(activations: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """What dot products [rows, out] of uint8 [rows, in] and int8 [out, in] lose, and how many of them do.

    Pairs of neighbours are added in 16 bits and cut, their sums in 32. An odd last one stands alone and fits.
    """
    wide, rows = activations.astype(np.float32), weights.astype(np.float32)
    lost = np.zeros((len(wide), len(rows)), dtype=np.int32)
    cut = np.zeros(lost.shape, dtype=bool)
    most = wide.max(axis=0, initial=0)
    for at in range(0, wide.shape[1] - 1, 2):
        # Exact in fp32: a pair is below 2**16. Only outputs whose weights can make it too large are computed.
        near = rows[:, at : at + 2]
        high, low = (side @ most[at : at + 2] for side in (np.maximum(near, 0), np.minimum(near, 0)))
        columns = np.flatnonzero((high > MOST) | (low < LEAST))
        if len(columns):
            pairs = wide[:, at : at + 2] @ near[columns].T
            beyond = pairs - np.clip(pairs, LEAST, MOST)
            lost[:, columns] += beyond.astype(np.int32)
            cut[:, columns] |= beyond != 0
    return lost, int(cut.sum())


def without_vnni(
    wrapped: Any, asked: Sequence[tuple[Ranges, Sequence[Batch]]], numerics: Numerics, kind: str
) -> Saturation:
    """Answers of an ExportModel in 8 bits to batches, by saturating kernels and by exact ones.

    asked: ranges with the batches that are rounded by them; one pair for a static scheme, one for each text
    for a dynamic one (own_ranges). numerics: with unsigned activations, as onnxruntime has on x86. kind: of
    task.
    """
    import torch

    from stillroom.export import static_int8

    counts, wanted, got = [0, 0], [], []

    def saturate(static: StaticLinear, given: tuple[Tensor, ...], exact: Tensor) -> Tensor:
        states = given[0].reshape(-1, given[0].shape[-1])
        steps = static.in_steps(static.divided(states), static.input)
        lost, cut = cut_off(steps.numpy(), static.rows.numpy())
        counts[0] += lost.size
        counts[1] += cut
        return exact - (torch.from_numpy(lost) * static.scales * static.input[0]).reshape(exact.shape)

    with progress_bar(len(asked), "without VNNI", "range") as bar:
        for ranges, batches in asked:
            with static_int8.in_static_int8(wrapped, ranges, numerics):
                wanted.append(answers(wrapped, batches))
                for module in wrapped.modules():
                    if isinstance(module, static_int8.StaticLinear):
                        module.register_forward_hook(saturate)
                got.append(answers(wrapped, batches))
            bar.update(1)
    return Saturation(counts[0], counts[1], compare_logits(np.concatenate(wanted), np.concatenate(got), kind))


def own_ranges(wrapped: Any, batch: Batch) -> Ranges:
    """The ranges of a batch by itself, nothing cut off: how a dynamic scheme rounds."""
    return ranges_by(seen_values(wrapped, [batch], description=""), "minmax", "minmax")
