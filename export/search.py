"""One winner under a budget: what may be tried, in which order, and who wins, from what was measured.

Pure functions: nothing here exports or measures (src/stillroom/step_search.py does), so the same
measurements give the same winner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stillroom.errors import UsageError
from stillroom.export.targets import TARGETS

ALIKE = 0.02  # files whose sizes, or times, differ by less are the same to a user: the more faithful wins
PARTS_KEPT = 3  # so many of the most sensitive parts are left in fp32, one after the other
VOCABULARIES = (8000, 4000)  # tokens, beside the whole and what the training rows need
TRIM = -1  # as a vocabulary: what the training rows need


@dataclass(frozen=True)
class Candidate:
    """A file that may be made. keep: groups left in fp32 (sensitivity.py).

    vocabulary: tokens at most, or TRIM. max_length: tokens read of a text. layers: of the student. 0 for
    these: as the run's student has it.
    """

    target: str
    scheme: str
    keep: tuple[str, ...] = ()
    vocabulary: int = 0
    max_length: int = 0
    layers: int = 0

    @property
    def name(self) -> str:
        """Unique, and fit for a file name."""
        vocabulary = "trim" if self.vocabulary == TRIM else str(self.vocabulary)
        parts = [
            f"{self.target}-{self.scheme}",
            *(f"fp32 {group}" for group in self.keep),
            *([f"vocabulary {vocabulary}"] if self.vocabulary else []),
            *([f"length {self.max_length}"] if self.max_length else []),
            *([f"layers {self.layers}"] if self.layers else []),
        ]
        return "+".join(part.replace(" ", "-") for part in parts)

    @property
    def model(self) -> Candidate:
        """What it has in common with all files of the same model."""
        return replace(self, target="", scheme="", keep=())


@dataclass(frozen=True)
class Found:
    """What is known of a candidate; None: not measured, because a cheaper check had failed.

    size_bytes: of the file, or of its weights alone where it was not even made. retention: the score divided
    by that of the run's student in fp32; flip_rate: of its labels; both on validation rows. p90_ms: at the
    longest input it takes. rss_bytes: peak, over the process before the file was opened. problem: why it
    could not be measured, "" if it could.
    """

    size_bytes: int | None = None
    made: bool = False
    retention: float | None = None
    flip_rate: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p90_rounds_ms: tuple[float, ...] = ()
    rss_bytes: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Limits:
    """What a winner must hold, the cheapest to check first; None: no limit. All at most, but retention."""

    size_bytes: float | None = None
    retention: float | None = None
    flip_rate: float | None = None
    p90_ms: float | None = None
    rss_bytes: float | None = None


# limit -> its option, unit, and what one unit is
WORDS = {
    "size_bytes": ("--max-size-mb", "MB", 1e6),
    "p90_ms": ("--max-p90-ms", "ms", 1.0),
    "rss_bytes": ("--max-rss-mb", "MB", 1e6),
    "retention": ("--min-retention", "", 1.0),
    "flip_rate": ("--max-flips", "", 1.0),
}
# of scheme.PREFERENCES -> what is to be small, among those that hold all limits
SMALL: dict[str, Callable[[Found], float]] = {
    "size": lambda found: found.size_bytes or 0,
    "speed": lambda found: found.p50_ms or 0,
    "agreement": lambda found: found.flip_rate or 0,
}

Tried = Mapping[Candidate, Found]


def excesses(found: Found, limits: Limits) -> dict[str, float]:
    """For each limit that a candidate was measured against: by what share it is missed; 0 or less: held."""
    shares = {}
    for name, limit in asdict(limits).items():
        value = getattr(found, name)
        if limit is not None and value is not None:
            at_least = name == "retention"
            worse, better = (limit, value) if at_least else (value, limit)
            shares[name] = worse / better - 1 if better > 0 else float("inf")
    return shares


def missed(found: Found, limits: Limits) -> list[str]:
    """The limits a candidate is known to miss, the first found first."""
    return [name for name, share in excesses(found, limits).items() if share > 0]


def holds(found: Found, limits: Limits) -> bool:
    """True for a candidate that was measured in full and misses nothing."""
    return found.rss_bytes is not None and not found.problem and not missed(found, limits)


def ranked(tried: Tried, limits: Limits, prefer: str) -> list[Candidate]:
    """Candidates that could be measured, best first: those that hold all limits before those that miss one.

    Of those that hold, the preferred; those within ALIKE of each other count as equal, and the more faithful
    comes first, or the one that reads longer texts. Of the others, those that miss by less.
    """

    def key(candidate: Candidate) -> tuple[Any, ...]:
        found = tried[candidate]
        worst = max([0.0, *excesses(found, limits).values()])
        return (worst, not holds(found, limits), SMALL[prefer](found), candidate.name)

    order = sorted((candidate for candidate in tried if not tried[candidate].problem), key=key)
    best = [candidate for candidate in order if holds(tried[candidate], limits)]
    if not best:
        return order
    least = SMALL[prefer](tried[best[0]])
    alike = [it for it in best if SMALL[prefer](tried[it]) <= least * (1 + ALIKE)]
    alike.sort(key=lambda it: (tried[it].flip_rate, it.max_length > 0, tried[it].size_bytes, it.name))
    return alike + [candidate for candidate in order if candidate not in alike]


def first_round(targets: Sequence[str]) -> list[Candidate]:
    """Every scheme of some targets. Raises UsageError for a target that cannot be timed here."""
    timed = [name for name, row in TARGETS.items() if row.proof == "run"]
    for target in targets:
        if target not in timed:
            raise UsageError(f"--targets {target}: expected some of {', '.join(timed)}, which can run here")
    return [Candidate(target, scheme) for target in targets for scheme in TARGETS[target].schemes]


def parts_round(
    tried: Tried, limits: Limits, prefer: str, sensitive: Callable[[], Sequence[str]]
) -> list[Candidate]:
    """Static int8 with its most sensitive parts left in fp32, where that could help: it costs size and time.

    sensitive: measures the groups, the most sensitive first; called only if needed.
    """
    static = [it for it in ranked(tried, limits, prefer) if it.scheme == "int8-static"]
    faults = {"retention", "flip_rate"}
    unfaithful = all(faults & set(missed(tried[it], limits)) for it in static)
    if not static or not (unfaithful or prefer == "agreement"):
        return []
    groups = list(sensitive())
    return [
        replace(candidate, keep=tuple(groups[:count]))
        for candidate in static
        for count in range(1, min(PARTS_KEPT, len(groups)) + 1)
    ]


def further_round(
    tried: Tried, limits: Limits, prefer: str, field: str, values: Sequence[int]
) -> list[Candidate]:
    """The best of so far with other values of a field: "vocabulary", "max_length" or "layers"."""
    best = ranked(tried, limits, prefer)[:1]
    found = [_with(candidate, field, value) for candidate in best for value in values]
    return [candidate for candidate in found if candidate not in tried]


def _with(candidate: Candidate, field: str, value: Any) -> Candidate:
    return replace(candidate, **{field: value})


def verdict(found: Found, limits: Limits) -> str:
    """A candidate in words: "holds all", or what it misses, or what went wrong."""
    if found.problem:
        return found.problem
    lines = []
    for name in missed(found, limits):
        option, unit, one = WORDS[name]
        value, limit = getattr(found, name) / one, getattr(limits, name) / one
        what = "weights alone " if name == "size_bytes" and not found.made else ""
        lines.append(f"{what}{value:.4g} {unit} misses {option} {limit:.4g}".replace("  ", " "))
    return "; ".join(lines) or ("holds all" if holds(found, limits) else "not measured in full")


def nobody(tried: Tried, limits: Limits, prefer: str) -> str:
    """Why there is no winner: the limit that nothing met, with the best there was, and the nearest miss."""
    known = {candidate: found for candidate, found in tried.items() if not found.problem}
    if not known:
        return f"none of {len(tried)} files could be measured: see the table"
    lines = []
    for name, limit in asdict(limits).items():
        values = [getattr(found, name) for found in known.values() if getattr(found, name) is not None]
        if limit is None or not values:
            continue
        best = max(values) if name == "retention" else min(values)
        if best < limit if name == "retention" else best > limit:
            option, unit, one = WORDS[name]
            lines.append(
                f"nothing met {option} {limit / one:.4g}: the best was {best / one:.4g} {unit}".strip()
            )
    nearest = ranked(known, limits, prefer)[0]
    return "; ".join(
        [*(lines or ["no file met all limits at once"]), f"nearest miss: {nearest.name}, "
         f"{verdict(known[nearest], limits)}"]
    )  # fmt: skip
