"""Ranges of activations, measured on real text without padding, in the model that is exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.export.sensitivity import without_groups
from stillroom.observe import Batch, linear_maps, seen_values
from stillroom.ranges import RULES, LinearRanges, Ranges, SeenValues, ranges_from_dict

if TYPE_CHECKING:
    from torch import nn

    from stillroom.export.options import ExportOptions
    from stillroom.export.static_int8 import Numerics
    from stillroom.student import Student

JUDGED_ROWS = 128  # of the calibration text, on which the rules are compared


def ranges_for(
    source: Student, model: Any, wrapped: nn.Module, options: ExportOptions, numerics: Numerics
) -> Ranges:
    """Ranges of the linear maps of an ExportModel, which wraps the model of a source.

    Those measured on options.calibration, or without it those the source has learned in training; none for
    what options.keep. Raises UsageError when there are neither, and for a group that is not there.
    """
    learned = source.lineage.get("ranges")
    if options.calibration or not learned:
        return without_groups(wrapped, measured_ranges(wrapped, options, numerics), options.keep)
    by_name, names = ranges_from_dict(learned), {id(module): name for name, module in model.named_modules()}
    wanted = {name: names[id(module)] for name, module in linear_maps(wrapped).items()}
    if missing := sorted(set(wanted.values()) - set(by_name)):
        raise UsageError(f"{source.folder} has learned no range for {missing[0]}: train it again")
    ranges = {name: by_name[learned_as] for name, learned_as in wanted.items()}
    return without_groups(wrapped, ranges, options.keep)


def measured_ranges(wrapped: nn.Module, options: ExportOptions, numerics: Numerics) -> Ranges:
    """Ranges of a model's linear maps over options.calibration, by the rule asked for or the best.

    Raises UsageError when there is no calibration text.
    """
    batches = options.calibration
    if not batches:
        raise UsageError("int8-static needs texts to measure ranges on: --calibration FILE")
    seen = seen_values(wrapped, batches)
    if options.ranges != "best":
        return ranges_by(seen, options.ranges, options.ranges)
    rows = np.cumsum([len(batch[0]) for batch in batches])
    judged = batches[: int(np.searchsorted(rows, JUDGED_ROWS)) + 1]
    wanted = _answers(wrapped, judged)

    def error(ranges: Ranges, numerics: Numerics) -> float:
        from stillroom.export.static_int8 import in_static_int8

        with in_static_int8(wrapped, ranges, numerics):
            return float(np.square(_answers(wrapped, judged) - wanted).mean())

    inputs_only = replace(numerics, outputs=False)
    before = min(RULES, key=lambda rule: error(ranges_by(seen, rule, rule), inputs_only))
    if not numerics.outputs:
        return ranges_by(seen, before, before)
    after = min(RULES, key=lambda rule: error(ranges_by(seen, before, rule), numerics))
    return ranges_by(seen, before, after)


def ranges_by(seen: dict[str, tuple[SeenValues, SeenValues]], before: str, after: str) -> Ranges:
    """The ranges by one rule for inputs and one for outputs."""
    return {
        name: LinearRanges(RULES[before](given), RULES[after](result))
        for name, (given, result) in seen.items()
    }


def _answers(wrapped: nn.Module, batches: Sequence[Batch]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return np.concatenate([wrapped(*map(torch.from_numpy, batch)).numpy() for batch in batches])
