"""Ranges of activations, measured on real text without padding, in the model that is exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.export.equalise import corrected, divisors
from stillroom.export.sensitivity import without_groups
from stillroom.observe import NOTHING, answers, linear_maps, ranges_by, reaches, seen_values
from stillroom.progress import say
from stillroom.ranges import RULES, Ranges, SeenValues, ranges_from_dict
from stillroom.student import Student, load_model, load_student

if TYPE_CHECKING:
    from torch import nn

    from stillroom.export.options import ExportOptions
    from stillroom.export.static_int8 import Numerics

JUDGED_ROWS = 128  # of the calibration text, on which the rules are compared


@dataclass(frozen=True)
class Simulated:
    """A model folder as an ExportModel, still in fp32, with the ranges to round it by; kind: of its task."""

    wrapped: Any
    ranges: Ranges
    numerics: Numerics
    kind: str


def simulated(folder: Path, options: ExportOptions, numerics: Numerics) -> Simulated:
    """Open a model folder to be rounded here. Raises UsageError as ranges_for does."""
    from stillroom.export.encoder import ExportModel

    source, model = load_student(folder), load_model(folder)
    wrapped = ExportModel(model, source.task.inputs, source.task.max_length)
    ranges = ranges_for(source, model, wrapped, options, numerics)
    return Simulated(wrapped, ranges, numerics, source.task.kind)


def ranges_for(
    source: Student, model: Any, wrapped: nn.Module, options: ExportOptions, numerics: Numerics
) -> Ranges:
    """Ranges of the linear maps of an ExportModel, which wraps the model of a source.

    Those measured on options.calibration; without it, or where they are preferred, those the source has
    learned in training; none for what options.keep.
    Raises UsageError when there are neither, and for a group that is not there.
    """
    learned = source.lineage.get("ranges")
    if not learned or (options.calibration and not options.prefer_learned):
        return without_groups(wrapped, measured_ranges(wrapped, options, numerics), options.keep)
    by_name, names = ranges_from_dict(learned), {id(module): name for name, module in model.named_modules()}
    wanted = {name: names[id(module)] for name, module in linear_maps(wrapped).items()}
    if missing := sorted(set(wanted.values()) - set(by_name)):
        raise UsageError(f"{source.folder} has learned no range for {missing[0]}: train it again")
    ranges = {name: by_name[learned_as] for name, learned_as in wanted.items()}
    return without_groups(wrapped, ranges, options.keep)


def measured_ranges(wrapped: nn.Module, options: ExportOptions, numerics: Numerics) -> Ranges:
    """Ranges of a model's linear maps over options.calibration, by the rule asked for or the best.

    The best: of all rules, then with scales migrated, then with biases corrected (equalise.py), whatever
    changes the answers to JUDGED_ROWS rows least. Raises UsageError when there is no calibration text.
    """
    from stillroom.export.static_int8 import in_static_int8

    batches = options.calibration
    if not batches:
        raise UsageError("int8-static needs texts to measure ranges on: --calibration FILE")
    seen = seen_values(wrapped, batches)
    if options.ranges != "best":
        return ranges_by(seen, options.ranges, options.ranges)
    rows = np.cumsum([len(batch[0]) for batch in batches])
    judged = batches[: int(np.searchsorted(rows, JUDGED_ROWS)) + 1]
    wanted = answers(wrapped, judged)

    def error(ranges: Ranges, numerics: Numerics = numerics) -> float:
        with in_static_int8(wrapped, ranges, numerics):
            return float(np.square(answers(wrapped, judged) - wanted).mean())

    found = _by_the_best_rule(seen, error, numerics)
    tried = {"ranges by the best rule": (error(found), found)}
    moved = divisors(wrapped, reaches(wrapped, batches))
    seen = seen_values(wrapped, batches, "calibrate again", moved)
    migrated = _by_the_best_rule(seen, error, numerics, moved)
    tried["scales migrated"] = (error(migrated), migrated)
    _, found = min(tried.values(), key=lambda pair: pair[0])
    better = corrected(wrapped, found, numerics, judged)
    tried["biases corrected"] = (error(better), better)
    say(
        "  mean squared error of the logits: "
        + ", ".join(f"{far:.3g} {name}" for name, (far, _) in tried.items())
    )
    return min(tried.values(), key=lambda pair: pair[0])[1]


def _by_the_best_rule(
    seen: Mapping[str, tuple[SeenValues, SeenValues]],
    error: Callable[[Ranges, Numerics], float],
    numerics: Numerics,
    moved: Mapping[str, np.ndarray] = NOTHING,
) -> Ranges:
    """The rule for what goes into linear maps, then the one for what comes out, with the least error each."""

    def ranges(rule: str) -> Ranges:
        found = ranges_by(seen, rule, rule)
        return {name: replace(one, divisor=moved.get(name)) for name, one in found.items()}

    by_rule = {rule: ranges(rule) for rule in RULES}
    inputs_only = replace(numerics, outputs=False)
    best = by_rule[min(RULES, key=lambda rule: error(by_rule[rule], inputs_only))]
    if not numerics.outputs:
        return best
    mixed = {
        rule: {name: replace(best[name], output=by_rule[rule][name].output) for name in best}
        for rule in RULES
    }
    return mixed[min(RULES, key=lambda rule: error(mixed[rule], numerics))]
