"""What makes static int8 more faithful and changes nothing in fp32: scales migrated, biases corrected.

Migration: channels of an activation that reach far are divided, and the weights that read them take the
factor, so that both are easier to round (SmoothQuant, https://arxiv.org/abs/2211.10438). The division is an
operator of its own before the linear map: after a LayerNormalization it could not be folded in, because the
residual addition reads the same values. Correction: rounding weights moves an output's mean, which its bias
takes back (https://arxiv.org/abs/1906.04721, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stillroom.observe import Batch, linear_maps, watch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stillroom.export.static_int8 import Numerics
    from stillroom.ranges import Ranges

SHARE = 0.5  # of a channel's reach that is moved into the weights: the paper's alpha
LEAST = 1e-5  # reach of a channel that is always 0
AFTER_NORM = (("query", "key", "value"), ("up",))  # linear maps of a layer, together those of one input


def divisors(wrapped: nn.Module, reach: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What to divide the inputs of linear maps after a LayerNormalization by: fp32 [in], geometric mean 1.

    By linear map, the same for those that read the same values. reach: see observe.reaches.
    """
    maps, found = linear_maps(wrapped), {}
    for name in maps:
        layer, _, part = name.rpartition(".")
        readers = [f"{layer}.{other}" for other in next((them for them in AFTER_NORM if part in them), ())]
        if readers:
            weights = [maps[reader].weight.detach().abs().amax(dim=0).numpy() for reader in readers]
            far = np.max([reach[reader] for reader in readers], axis=0)
            logs = SHARE * np.log(np.maximum(far, LEAST))
            logs -= (1 - SHARE) * np.log(np.maximum(np.max(weights, axis=0), LEAST))
            found[name] = np.exp(logs - logs.mean()).astype(np.float32)
    return found


def corrected(wrapped: nn.Module, ranges: Ranges, numerics: Numerics, batches: Sequence[Batch]) -> Ranges:
    """The same ranges with corrections of the biases: what rounding takes from an output's mean over batches.

    Each linear map by itself, on what goes into it in fp32.
    """
    import torch

    from stillroom.export.static_int8 import StaticLinear

    maps = linear_maps(wrapped)
    rounded = {name: StaticLinear(maps[name], found, numerics) for name, found in ranges.items()}
    lost: dict[str, Tensor] = {name: torch.zeros(maps[name].out_features) for name in ranges}
    rows = dict.fromkeys(ranges, 0)

    def look(name: str, given: Tensor, result: Tensor) -> None:
        if name in rounded:
            difference = (result - rounded[name](given)).flatten(0, -2)
            lost[name] += difference.sum(dim=0)
            rows[name] += len(difference)

    watch(wrapped, batches, look, "")
    return {
        name: replace(found, correction=(lost[name] / rows[name]).numpy()) for name, found in ranges.items()
    }
