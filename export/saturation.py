"""What a static int8 model answers on an x86 CPU without VNNI, where sums of two products may not fit.

There the kernel multiplies 8-bit activations and weights with vpmaddubsw: the products of each two
neighbours are added in 16 bits, and a sum beyond 32,767 is cut to it (Intel's Software Developer's Manual,
PMADDUBSW). With VNNI, and on ARM, sums are made in 32 bits. Weights of at most 64 steps never saturate,
2 * 255 * 64 < 32,768: what ExportOptions.portable gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stillroom.numerics import Agreement, compare_logits
from stillroom.observe import Batch, answers, linear_maps
from stillroom.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from stillroom.export.calibration import Simulated
    from stillroom.export.static_int8 import StaticLinear

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
    for at in range(0, wide.shape[1] - 1, 2):
        # Exact in fp32: a pair is below 2**16. A product is worth looking at only where it can be too large.
        pairs = np.outer(wide[:, at], rows[:, at]) + np.outer(wide[:, at + 1], rows[:, at + 1])
        if pairs.max(initial=0) > MOST or pairs.min(initial=0) < LEAST:
            beyond = pairs - np.clip(pairs, LEAST, MOST)
            lost += beyond.astype(np.int32)
            cut |= beyond != 0
    return lost, int(cut.sum())


def without_vnni(model: Simulated, batches: Sequence[Batch]) -> Saturation:
    """Answers of a model in static int8 to batches, by saturating kernels and by exact ones.

    model: with unsigned activations, as onnxruntime has on x86.
    """
    import torch

    from stillroom.export.static_int8 import in_static_int8

    wrapped, names, counts = model.wrapped, list(linear_maps(model.wrapped)), [0, 0]

    def saturate(static: StaticLinear, given: tuple[Tensor, ...], exact: Tensor) -> Tensor:
        states = given[0].reshape(-1, given[0].shape[-1])
        lost, cut = cut_off(static.in_steps(states, static.input).numpy(), static.rows.numpy())
        counts[0] += lost.size
        counts[1] += cut
        return exact - (torch.from_numpy(lost) * static.scales * static.input[0]).reshape(exact.shape)

    def ticked() -> Iterator[Batch]:
        for batch in batches:
            yield batch
            bar.update(1)

    with (
        in_static_int8(wrapped, model.ranges, model.numerics),
        progress_bar(2 * len(batches), "without VNNI", "batch") as bar,
    ):
        wanted = answers(wrapped, ticked())
        for name in names:
            wrapped.get_submodule(name).register_forward_hook(saturate)
        got = answers(wrapped, ticked())
    return Saturation(counts[0], counts[1], compare_logits(wanted, got, model.kind))
