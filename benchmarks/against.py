"""report A --against B: what changed between two documents, and whether it is more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stillroom.benchmarks.headline import common_lengths, samples_at
from stillroom.benchmarks.noise import floor_at
from stillroom.benchmarks.results import all_rows, metric_of
from stillroom.benchmarks.seeds import timed_on
from stillroom.benchmarks.statistics import NO_DIFFERENCE, ratio_of_medians, verdict
from stillroom.benchmarks.tables import NOT_MEASURED, Table, number
from stillroom.kinds import SCORE_WORDS

SIZE_NOISE = 0.001  # metadata such as version names
RSS_NOISE = 0.03  # between processes of one and the same file
PEAK_NOISE = 0.15  # beyond which a machine's own peak says that it is not the same machine any more
SIGNIFICANT_Z = 1.96  # two-sided 5 %
REGRESSION = "worse"


@dataclass(frozen=True)
class Change:
    """A figure of a row in A and in B. verdict: "worse", "better", "no difference" or "not compared: ..."."""

    name: str
    figure: str
    a: str
    b: str
    change: str
    verdict: str


def changes(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    """What differs in A from B, row by row of the same name; both valid documents of either kind.

    Sizes and memory count from a fixed share on. Latencies: a bootstrap interval of the ratio of medians
    that leaves 1 out, beyond the noise floor of both documents. Scores and flips: a two-sided test of two
    shares at 5 %, as if each had rows of its own, so rather too careful where both are of the same rows.
    """
    before = {row["name"]: row for row in _rows(b)}
    apart = not_alike(a, b)
    found: list[Change] = []
    for row in _rows(a):
        other = before.pop(row["name"], None)
        if other is None:
            found.append(Change(row["name"], "row", "there", "not there", NOT_MEASURED, "only in A"))
            continue
        found += _size(row, other)
        found += _latencies(row, other, a, b, apart)
        found += _memory(row, other, apart)
        found += _answers(row, other, a, b)
    gone = (Change(name, "row", "not there", "there", NOT_MEASURED, "only in B") for name in before)
    return [*_versions(a, b), *found, *gone]


def _versions(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Change]:
    here, there = (document["machine"]["versions"] for document in (a, b))
    for package in sorted({*here, *there}):
        versions = here.get(package, ""), there.get(package, "")
        if versions[0] != versions[1]:
            yield Change(package, "version", versions[0], versions[1], NOT_MEASURED, "other")


def _rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    return document["rows"] if "rows" in document else all_rows(document)


def not_alike(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Why times of A and B do not compare; "" when they do."""
    here, there = timed_on(a), timed_on(b)  # another version may be what is to be compared
    different = [key for key in here if key != "versions" and here[key] != there[key]]
    if different:
        return f"other {', '.join(different)}"
    if a.get("limits") and b.get("limits"):
        peaks = [float(np.median(doc["limits"]["peaks"]["fp32_operations_per_s"])) for doc in (a, b)]
        if abs(math.log(peaks[0] / peaks[1])) > math.log1p(PEAK_NOISE):
            return f"the machine's own peak was {peaks[0] / 1e9:.0f} GOP/s in A and {peaks[1] / 1e9:.0f} in B"
    return ""


def _said(ratio: float, noise: float) -> str:
    """Of a figure of which less is better."""
    if abs(math.log(ratio)) <= math.log1p(noise):
        return NO_DIFFERENCE
    return REGRESSION if ratio > 1 else "better"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _size(row: dict[str, Any], other: dict[str, Any]) -> Iterator[Change]:
    if row["size_bytes"] and other["size_bytes"]:
        ratio = row["size_bytes"] / other["size_bytes"]
        mine, theirs = (number(one["size_bytes"], 2, 1e-6) for one in (row, other))
        yield Change(row["name"], "size, MB", mine, theirs, _percent(ratio), _said(ratio, SIZE_NOISE))


def _latencies(
    row: dict[str, Any], other: dict[str, Any], a: dict[str, Any], b: dict[str, Any], apart: str
) -> Iterator[Change]:
    for length in sorted(common_lengths(row, other)):
        samples = [samples_at(one, length) for one in (row, other)]
        mine, theirs = (number(float(np.median(one)), 2) for one in samples)
        ratio = ratio_of_medians(*samples)
        words = f"not compared: {apart}"
        if not apart:
            floor = max(floor_at(a, length), floor_at(b, length))
            words = {"faster": REGRESSION, "slower": "better"}.get(verdict(ratio, floor), NO_DIFFERENCE)
        change = f"{_percent(ratio.value)} ({100 * (ratio.low - 1):+.1f} to {100 * (ratio.high - 1):+.1f})"
        yield Change(row["name"], f"p50 at {length}, ms", mine, theirs, change, words)


def _memory(row: dict[str, Any], other: dict[str, Any], apart: str) -> Iterator[Change]:
    if row["peak_rss_bytes"] and other["peak_rss_bytes"]:
        ratio = row["peak_rss_bytes"] / other["peak_rss_bytes"]
        mine, theirs = (number(one["peak_rss_bytes"], 1, 1e-6) for one in (row, other))
        words = f"not compared: {apart}" if apart else _said(ratio, RSS_NOISE)
        yield Change(row["name"], "peak RSS, MB", mine, theirs, _percent(ratio), words)


def _answers(
    row: dict[str, Any], other: dict[str, Any], a: dict[str, Any], b: dict[str, Any]
) -> Iterator[Change]:
    if "models" not in a or "models" not in b:
        return
    metric = metric_of(a)
    words, is_share = SCORE_WORDS[metric]
    if metric != metric_of(b):
        return
    rows = a["data"]["test_rows"], b["data"]["test_rows"]
    shares = row["scores"][metric], other["scores"][metric]
    if is_share:
        mine, theirs = (number(share, 2, 100) for share in shares)
        change = f"{100 * (shares[0] - shares[1]):+.2f} points"
        yield Change(
            row["name"], f"{words}, %", mine, theirs, change, _shares_said(shares, rows, more_is_better=True)
        )
    if row["flip_rate"] is not None and other["flip_rate"] is not None:
        flips = row["flip_rate"], other["flip_rate"]
        mine, theirs = (number(share, 2, 100) for share in flips)
        change = f"{100 * (flips[0] - flips[1]):+.2f} points"
        yield Change(
            row["name"], "flips, %", mine, theirs, change, _shares_said(flips, rows, more_is_better=False)
        )


def _shares_said(shares: tuple[float, float], rows: tuple[int, int], *, more_is_better: bool) -> str:
    """Two shares of so many rows, by the z-test of two proportions."""
    together = (shares[0] * rows[0] + shares[1] * rows[1]) / sum(rows)
    error = math.sqrt(together * (1 - together) * (1 / rows[0] + 1 / rows[1]))
    difference = shares[0] - shares[1]
    if error == 0 or abs(difference) / error < SIGNIFICANT_Z:
        return NO_DIFFERENCE
    return "better" if (difference > 0) == more_is_better else REGRESSION


def change_table(found: list[Change]) -> Table:
    """One line per change."""
    return Table(("name", "figure", "A", "B", "change", "verdict"), tuple(
        (one.name, one.figure, one.a, one.b, one.change, one.verdict) for one in found
    ), 2)  # fmt: skip


def regressions(found: list[Change]) -> list[Change]:
    """Those that are worse, and rows that A lacks."""
    return [one for one in found if one.verdict in (REGRESSION, "only in B")]


def change_facts(found: list[Change]) -> list[dict[str, str]]:
    """The same as JSON values."""
    return [asdict(one) for one in found]
