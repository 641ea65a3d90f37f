"""The noise of a run: one subject takes part twice (A/A), and what sets the two apart is no difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stillroom.benchmarks.measure import Measurement, Subject
from stillroom.benchmarks.statistics import Samples, by_process, noise_floor

AGAIN = "A/A"


def with_again(subjects: Sequence[Subject]) -> list[Subject]:
    """The subjects, and the last of them once more under another name."""
    return [*subjects, replace(subjects[-1], name=AGAIN)] if subjects else []


def noise_facts(measured: Mapping[str, Measurement], subject: str) -> dict[str, Any] | None:
    """What the A/A pair of a measurement says, per length; None when either of the pair failed.

    difference: of the second median from the first, as a share. floor: see statistics.noise_floor.
    """
    if AGAIN not in measured or subject not in measured:
        return None
    pair = measured[subject], measured[AGAIN]
    rounds = len(pair[0].load_samples_ms)

    def samples(measurement: Measurement, length: int) -> Samples:
        return by_process(measurement.samples_ms[length], rounds)

    by_length = []
    for length in sorted(pair[0].samples_ms):
        first, second = (samples(one, length) for one in pair)
        everyone = [samples(one, length) for one in measured.values()]
        p50_ms = [float(np.median(first)), float(np.median(second))]
        by_length.append(
            {
                "length": length,
                "p50_ms": p50_ms,
                "difference": p50_ms[1] / p50_ms[0] - 1,
                "floor": noise_floor(everyone, (first, second)),
            }
        )
    return {"subject": subject, "rounds": rounds, "by_length": by_length}


def floor_at(document: Mapping[str, Any], length: int) -> float:
    """The noise floor of a results or bench document at a length, as a share; 0 where none was measured."""
    found = (document.get("noise") or {"by_length": []})["by_length"]
    return next((float(entry["floor"]) for entry in found if entry["length"] == length), 0.0)
