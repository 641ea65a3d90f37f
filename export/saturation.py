"""What a static int8 model answers on an x86 CPU without VNNI, where sums of two products may not fit.

There the kernel multiplies 8-bit activations and weights with vpmaddubsw: the products of each two
neighbours are added in 16 bits, and a sum beyond 32,767 is cut to it (Intel's Software Developer's Manual,
PMADDUBSW). With VNNI, and on ARM, sums are made in 32 bits. Weights of at most 64 steps never saturate,
2 * 255 * 64 < 32,768: what ExportOptions.portable gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.numerics import Agreement, compare_logits
from stillroom.observe import Batch, linear_maps
from stillroom.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from stillroom.export.options import ExportOptions
    from stillroom.export.static_int8 import Numerics, StaticLinear

LEAST, MOST = -(2**15), 2**15 - 1
NEVER_SATURATES = 64  # steps of a weight


@dataclass(frozen=True)
class Saturation:
    """dot_products: computed; saturated: of them, those with a pair that did not fit 16 bits.

    agreement: of the answers without VNNI with those with it.
    """

    dot_products: int
    saturated: int
    agreement: Agreement


def saturating_products(activations: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Dot products [rows, out] of uint8 [rows, in] and int8 [out, in], and how many of them saturated.

    Pairs of neighbours are added in 16 bits and cut, their sums in 32. An odd last one stands alone.
    """
    if activations.shape[1] % 2:
        activations, weights = (np.pad(array, ((0, 0), (0, 1))) for array in (activations, weights))
    total = activations.astype(np.int32) @ weights.astype(np.int32).T
    cut = np.zeros(total.shape, dtype=bool)
    wide, rows = activations.astype(np.float32), weights.astype(np.float32)
    for at in range(0, wide.shape[1], 2):
        # Exact in fp32: a pair is below 2**16. A product is worth looking at only where it can be too large.
        pairs = np.outer(wide[:, at], rows[:, at]) + np.outer(wide[:, at + 1], rows[:, at + 1])
        if pairs.max(initial=0) > MOST or pairs.min(initial=0) < LEAST:
            beyond = pairs - np.clip(pairs, LEAST, MOST)
            total -= beyond.astype(np.int32)
            cut |= beyond != 0
    return total, int(cut.sum())


def without_vnni(
    model: Path, options: ExportOptions, batches: Sequence[Batch], numerics: Numerics
) -> Saturation:
    """Answers of a model folder in static int8 to batches, by saturating kernels and by exact ones.

    numerics: unsigned activations, as onnxruntime has on x86. Raises UsageError as ranges_for does.
    """
    import torch

    from stillroom.export.calibration import ranges_for
    from stillroom.export.encoder import ExportModel
    from stillroom.export.static_int8 import use_static_int8
    from stillroom.student import load_model, load_student

    source, loaded = load_student(model), load_model(model)
    wrapped = ExportModel(loaded, source.task.inputs, source.task.max_length)
    names = linear_maps(wrapped)
    use_static_int8(wrapped, ranges_for(source, loaded, wrapped, options, numerics), numerics)
    counts = [0, 0]

    def saturate(static: StaticLinear, given: tuple[Tensor, ...], exact: Tensor) -> Tensor:
        scale, zero = static.input
        states = given[0].reshape(-1, given[0].shape[-1])
        steps = torch.clamp(torch.round(states / scale) + zero, 0, 255).to(torch.uint8).numpy()
        rows = static.rows.numpy()
        total, cut = saturating_products(steps, rows)
        counts[0] += total.size
        counts[1] += cut
        lost = steps.astype(np.int32) @ rows.astype(np.int32).T - total
        return exact - (torch.from_numpy(lost) * static.scales * scale).reshape(exact.shape)

    def answers() -> np.ndarray:
        found = []
        with torch.inference_mode():
            for batch in batches:
                found.append(wrapped(*map(torch.from_numpy, batch)).numpy())
                bar.update(1)
        return np.concatenate(found)

    with progress_bar(2 * len(batches), "without VNNI", "batch") as bar:
        wanted = answers()
        for name in names:
            wrapped.get_submodule(name).register_forward_hook(saturate)
        got = answers()
    return Saturation(counts[0], counts[1], compare_logits(wanted, got, source.task.kind))
