"""Percentiles, their bootstrap intervals, and when two latencies differ by more than this machine's noise.

Samples are held as arrays [processes, calls]: calls of one process share its memory layout and its moment, so
every interval draws processes first and calls within them second (a cluster bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stillroom.errors import UsageError

Samples = npt.NDArray[np.float64]  # milliseconds, [processes, calls]

PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
RESAMPLES = 1000
AT_ONCE = 50  # resamples held in memory
INTERVAL = (2.5, 97.5)  # per cent: 95 % of the resampled values
# Two-sided 97.5 % quantiles of Student's t by degrees of freedom: numpy has none, and scipy is no dependency.
STUDENT_T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23,
             12: 2.18, 15: 2.13, 20: 2.09, 30: 2.04, 60: 2.00}  # fmt: skip
NO_DIFFERENCE = "no difference"


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """p50, p90, p95 and p99 by linear interpolation, not rounded. Raises UsageError on no samples."""
    if not samples:
        raise UsageError("no samples to take percentiles of")
    found = np.percentile(np.asarray(samples, dtype=np.float64), list(PERCENTILES.values()), method="linear")
    return {name: float(value) for name, value in zip(PERCENTILES, found, strict=True)}


def by_process(samples: Sequence[float], processes: int) -> Samples:
    """Samples of all processes in turn, the same number from each, as [processes, calls]."""
    return np.asarray(samples, dtype=np.float64).reshape(processes, -1)


def intervals(samples: Samples) -> dict[str, list[float]]:
    """95 % interval [low, high] of every percentile, by the cluster bootstrap; same samples, same answer."""
    processes, calls = samples.shape
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        chosen = generator.integers(processes, size=(AT_ONCE, processes, 1))
        within = generator.integers(calls, size=(AT_ONCE, processes, calls))
        drawn.append(np.percentile(samples[chosen, within], list(PERCENTILES.values()), axis=(1, 2)))
    low, high = np.percentile(np.concatenate(drawn, axis=1), INTERVAL, axis=1)
    return {name: [float(low[at]), float(high[at])] for at, name in enumerate(PERCENTILES)}


def latency(samples: Sequence[float], processes: int) -> dict[str, Any]:
    """Percentiles of samples, every process's in turn, with their 95 % intervals."""
    return {**percentiles(samples), "intervals": intervals(by_process(samples, processes))}


def ratio_of_medians(above: Samples, below: Samples) -> Ratio:
    """Median of one over median of the other, each drawn on its own: what is between rounds counts too."""
    generator = np.random.default_rng(0)  # a report made twice says the same
    ratios = _resampled_medians(above, generator) / _resampled_medians(below, generator)
    low, high = np.percentile(ratios, INTERVAL)
    return Ratio(float(np.median(above) / np.median(below)), float(low), float(high))


def _resampled_medians(samples: Samples, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Medians in milliseconds of RESAMPLES draws from samples [processes, calls]."""
    processes, calls = samples.shape
    drawn = generator.integers(processes, size=(RESAMPLES, processes, 1))
    within = generator.integers(calls, size=(RESAMPLES, processes, calls))
    return np.asarray(np.median(samples[drawn, within], axis=(1, 2)), dtype=np.float64)


def noise_floor(interleaved: Sequence[Samples], again: tuple[Samples, Samples]) -> float:
    """The share by which the medians of one and the same file may differ in this run.

    interleaved: samples of every subject, whose processes took turns. again: those of one subject that took
    part twice (A/A). The larger of two: how far the A/A pair is apart, and what scatter between rounds
    makes likely in 95 of 100 pairs (a t interval; the logarithms of the processes' medians, after taking out
    what is the subject's and, drift being everyone's, the round's).
    """
    apart = abs(float(np.log(np.median(again[0]) / np.median(again[1]))))
    medians = np.log([np.median(samples, axis=1) for samples in interleaved])  # [subjects, rounds]
    subjects, rounds = medians.shape
    freedom = (subjects - 1) * (rounds - 1)
    if freedom < 1:
        return float(np.expm1(apart))
    left = medians - medians.mean(axis=0) - medians.mean(axis=1, keepdims=True) + medians.mean()
    deviation = float(np.sqrt((left**2).sum() / freedom))
    return float(np.expm1(max(apart, student_t(freedom) * deviation * np.sqrt(2 / rounds))))


def student_t(freedom: int) -> float:
    """Student's t, 97.5 % quantile, of the next fewer degrees of freedom in the table: never too low."""
    return STUDENT_T[max(known for known in STUDENT_T if known <= freedom)]


def verdict(ratio: Ratio, floor: float) -> str:
    """ "faster" (the ratio is above 1: the second takes less time), "slower", or "no difference".

    No difference: 1 lies within the interval, or the ratio within the noise floor.
    """
    if ratio.low <= 1 <= ratio.high or abs(np.log(ratio.value)) <= np.log1p(floor):
        return NO_DIFFERENCE
    return "faster" if ratio.value > 1 else "slower"
