"""The range of a tensor's values over any number of texts, in constant memory; five rules to cut it.

A static scheme has 256 steps for a range. What lies outside is cut off, what lies inside is rounded to a
step: the rules weigh one against the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.errors import UsageError

BINS = 2048  # eight for each of the 256 steps
COUNTED = 2**16  # values of one tensor that are counted; of a larger one some, evenly spread
STRIDES = (1, 5, 7, 11, 13, 17, 23, 31, 43, 61, 89, 127)  # primes to widths of models: all channels are met
LEAST_SPAN = 1e-9  # of a tensor that is 0 so far
MEMORY = 0.99  # of the moving average: how much of it stays when another text comes
TAIL = 1e-4  # share of all values that the percentile rule may cut off at either end
SHRINKS = np.linspace(0.2, 1.0, 33)  # shares of an end that the mse and entropy rules try
STEPS = 255


Range = tuple[float, float]  # least and largest value, 0 between them or not


@dataclass(frozen=True)
class LinearRanges:
    """Of what goes into a linear map and what comes out of it.

    divisor: fp32 [in], by which its input is divided beforehand, its weights taking the factor; input is the
    range after that. correction: fp32 [out], added to its bias. None for either: nothing is changed.
    """

    input: Range
    output: Range
    divisor: np.ndarray | None = None
    correction: np.ndarray | None = None


Ranges = Mapping[str, LinearRanges]  # by the name of the linear map


def ranges_to_dict(ranges: Ranges) -> dict[str, Any]:
    """Ranges as JSON."""
    return {name: {"input": found.input, "output": found.output} for name, found in ranges.items()}


def ranges_from_dict(facts: Any) -> Ranges:
    """Read ranges back. Raises UsageError for anything that is not such a table of finite numbers."""
    try:
        found = {name: LinearRanges(_ends(row["input"]), _ends(row["output"])) for name, row in facts.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the learned ranges are not what was written ({error}): train it again") from None
    return found


def _ends(pair: Any) -> Range:
    low, high = (float(end) for end in pair)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"a range from {low} to {high}")
    return low, high


class SeenValues:
    """Counts of a tensor's values in BINS bins of [-span, span]; span doubles when a value lies outside.

    Of large tensors about COUNTED values at a time are counted; the ends are those of all.

    low, high: the least and the largest value. mean_low, mean_high: moving averages of each text's.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.span = 0.0
        self.low = self.high = self.mean_low = self.mean_high = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count the values of another text. Raises ValueError for one that is not finite."""
        low, high = float(values.min()), float(values.max())
        largest = max(-low, high)
        if not np.isfinite(largest):
            raise ValueError(f"a value that is not finite: {largest}")
        if not self.span:
            self.span, self.low, self.high = max(largest, LEAST_SPAN), low, high
            self.mean_low, self.mean_high = low, high
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.mean_low = MEMORY * self.mean_low + (1 - MEMORY) * low
        self.mean_high = MEMORY * self.mean_high + (1 - MEMORY) * high
        while self.span < largest:
            quarter = BINS // 4
            self.counts[quarter:-quarter] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:quarter] = self.counts[-quarter:] = 0
            self.span *= 2
        stride = next(
            stride for stride in STRIDES if stride * COUNTED >= values.size or stride == STRIDES[-1]
        )
        at = ((values.reshape(-1)[::stride] + self.span) * (BINS / 2 / self.span)).astype(np.int32)
        self.counts += np.bincount(np.minimum(at, BINS - 1), minlength=BINS)

    def centres(self) -> np.ndarray:
        """The value in the middle of each bin, float64 [BINS]."""
        return (np.arange(BINS) + 0.5) * (2 * self.span / BINS) - self.span


def least_and_most(seen: SeenValues) -> Range:
    """Nothing is cut off."""
    return seen.low, seen.high


def moving_average(seen: SeenValues) -> Range:
    """What a text reaches on average, the later ones counting more."""
    return seen.mean_low, seen.mean_high


def percentile(seen: SeenValues) -> Range:
    """All but a ten-thousandth of the values at either end."""
    share = np.cumsum(seen.counts) / max(1, seen.counts.sum())
    low = seen.centres()[int(np.searchsorted(share, TAIL))]
    high = seen.centres()[min(BINS - 1, int(np.searchsorted(share, 1 - TAIL)))]
    return max(seen.low, low), min(seen.high, high)


def least_squares(seen: SeenValues) -> Range:
    """The ends, each drawn in by itself, with the least mean squared error of rounding and cutting off."""
    values = seen.centres()
    used = seen.counts > 0
    counts, values = seen.counts[used], values[used]
    best, least = (seen.low, seen.high), np.inf
    for low in _drawn_in(seen.low):
        for high in _drawn_in(seen.high):
            error = float((counts * (values - rounded(values, low, high)) ** 2).sum())
            if error < least:
                best, least = (low, high), error
    return best


def least_entropy(seen: SeenValues) -> Range:
    """The cut, at the same distance from 0 on both sides, that changes the distribution least.

    By Kullback-Leibler divergence,
    as TensorRT does (https://on-demand.gputechconf.com/gtc/2017/presentation/s7310-8-bit-inference-with-tensorrt.pdf).
    """
    values, best, least = seen.centres(), (seen.low, seen.high), np.inf
    for share in SHRINKS:
        cut = share * max(-seen.low, seen.high)
        low, high = max(min(seen.low, 0.0), -cut), min(max(seen.high, 0.0), cut)
        inside = (values >= low) & (values <= high)
        if not inside.any() or not seen.counts[inside].any():
            continue
        kept = seen.counts[inside].astype(np.float64)
        whole = kept.copy()
        whole[0] += seen.counts[values < low].sum()
        whole[-1] += seen.counts[values > high].sum()
        steps = np.round((values[inside] - low) / max(high - low, 1e-12) * STEPS).astype(int)
        filled = kept > 0
        sums = np.bincount(steps, weights=kept, minlength=STEPS + 1)
        bins = np.bincount(steps[filled], minlength=STEPS + 1)
        coarse = np.where(filled, sums[steps] / np.maximum(bins[steps], 1), 0.0)
        wanted, got = whole / whole.sum(), np.maximum(coarse / coarse.sum(), 1e-12)
        seen_bins = wanted > 0
        divergence = float((wanted[seen_bins] * np.log(wanted[seen_bins] / got[seen_bins])).sum())
        if divergence < least:
            best, least = (low, high), divergence
    return best


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as 256 even steps from low to high tell them, 0 being one of the steps."""
    step = max(max(high, 0.0) - min(low, 0.0), 1e-12) / STEPS
    zero = np.round(-min(low, 0.0) / step)
    return np.asarray((np.clip(np.round(values / step) + zero, 0, STEPS) - zero) * step)


def _drawn_in(end: float) -> np.ndarray:
    return end * SHRINKS if end else np.zeros(1)


# name -> the range, low and high, that a static scheme gets
RULES: dict[str, Callable[[SeenValues], Range]] = {
    "minmax": least_and_most,
    "moving-average": moving_average,
    "percentile": percentile,
    "entropy": least_entropy,
    "mse": least_squares,
}
