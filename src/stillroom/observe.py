"""What goes into a model's linear maps and what comes out of them, text by text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stillroom.progress import progress_bar
from stillroom.ranges import RULES, LinearRanges, Ranges, SeenValues
from stillroom.tokens import Tokens, padded_inputs, spread_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

ROWS = 512  # more change the ranges by less than another draw of as many does
ROWS_AT_ONCE = 8  # half of the activations of 16 at a time, which were 200 MB of a BERT-base

NOTHING: Mapping[str, np.ndarray] = {}

Batch = tuple[np.ndarray, ...]  # a model's inputs, int64 [rows, tokens] each
Look = Callable[[str, "Tensor", "Tensor"], None]  # name of a linear map, its input, its output


def calibration_of(tokens: Tokens, inputs: Sequence[str], rows: int = ROWS) -> tuple[Batch, ...]:
    """So many rows, evenly spread, those of the same length together: padding is not part of any range."""
    chosen = spread_rows(len(tokens), rows)
    lengths, found = tokens.lengths[chosen], []
    for length in np.unique(lengths):
        alike = chosen[lengths == length]
        for at in range(0, len(alike), ROWS_AT_ONCE):
            found.append(tuple(padded_inputs(tokens, alike[at : at + ROWS_AT_ONCE], inputs).values()))
    # In any order but by length: a moving average should not end on the longest texts.
    return tuple(found[at] for at in np.random.default_rng(0).permutation(len(found)))


def linear_maps(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear maps of a model by name."""
    from torch import nn

    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def watch(model: nn.Module, batches: Sequence[Batch], look: Look, description: str) -> None:
    """Run batches through a model and show each of its linear maps' input and output to look.

    description: of the progress bar, "" for none.
    """
    import torch

    hooks = [
        module.register_forward_hook(lambda _, given, found, name=name: look(name, given[0], found))
        for name, module in linear_maps(model).items()
    ]
    try:
        with torch.inference_mode(), progress_bar(len(batches), description, "batch") as bar:
            for batch in batches:
                model(*(torch.from_numpy(array) for array in batch))
                bar.update(1)
    finally:
        for hook in hooks:
            hook.remove()


def seen_values(
    model: nn.Module,
    batches: Sequence[Batch],
    description: str = "calibrate",
    divisors: Mapping[str, np.ndarray] = NOTHING,
) -> dict[str, tuple[SeenValues, SeenValues]]:
    """What goes into each linear map and what comes out, over all batches.

    divisors: what inputs are divided by before they are looked at, fp32 [in], by linear map.
    """
    found: dict[str, tuple[SeenValues, SeenValues]] = {}

    def look(name: str, given: Tensor, result: Tensor) -> None:
        before, after = found.setdefault(name, (SeenValues(), SeenValues()))
        before.add(given.numpy() / divisors[name] if name in divisors else given.numpy())
        after.add(result.numpy())

    watch(model, batches, look, description)
    return found


def reaches(
    model: nn.Module, batches: Sequence[Batch], description: str = "migrate"
) -> dict[str, np.ndarray]:
    """How far from 0 each channel of each linear map's input goes, fp32 [in]."""
    found: dict[str, np.ndarray] = {}

    def look(name: str, given: Tensor, result: Tensor) -> None:
        most = given.abs().flatten(0, -2).amax(dim=0).numpy()
        found[name] = np.maximum(found[name], most) if name in found else most

    watch(model, batches, look, description)
    return found


def ranges_by(seen: Mapping[str, tuple[SeenValues, SeenValues]], before: str, after: str) -> Ranges:
    """The ranges by one rule for inputs and one for outputs."""
    return {
        name: LinearRanges(RULES[before](given), RULES[after](result))
        for name, (given, result) in seen.items()
    }


def answers(model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
    """Logits of an ExportModel, float32 [rows, labels], batch after batch."""
    import torch

    with torch.inference_mode():
        return np.concatenate([model(*map(torch.from_numpy, batch)).numpy() for batch in batches])
