"""Parity of an artifact with the model it was made from: real text, several lengths and paddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.artifact import Artifact
from stillroom.export.targets import load_predictor
from stillroom.numerics import Agreement, compare_logits
from stillroom.progress import progress_bar
from stillroom.task import TaskSpec
from stillroom.tokens import Tokens, padded_inputs

SAMPLE_ROWS = 64  # of the test split, for the cases that change length or padding
CUT_LENGTHS = (1, 2, 17, 64)  # tokens
SAMPLING_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Case:
    """One way of feeding the model, and how far its answers were from the source's."""

    name: str
    agreement: Agreement
    worst_text: str
    passed: bool


@dataclass(frozen=True)
class Verification:
    """artifact: its name. logits: float32 [rows, labels] over the whole test split, one row at a time."""

    artifact: str
    cases: tuple[Case, ...]
    logits: np.ndarray

    def facts(self) -> list[dict[str, Any]]:
        """The cases as JSON."""
        return [{"artifact": self.artifact, **asdict(case)} for case in self.cases]


def within(agreement: Agreement, tolerance: dict[str, float]) -> bool:
    """True when the error is in bounds and the decided flips are no evidence of a rate above the allowed."""
    allowed = allowed_flips(tolerance["decided_flip_rate"], agreement.rows)
    flips = round(agreement.decided_flip_rate * agreement.rows)
    return agreement.max_abs_error <= tolerance["max_abs_error"] and flips <= allowed


def allowed_flips(rate: float, rows: int) -> int:
    """The most flips that a file which flips at this rate shows in 99 of 100 samples of so many rows.

    The quantile of the binomial distribution: in few rows chance alone goes beyond rate * rows.
    """
    if rate in (0.0, 1.0):
        return round(rate * rows)
    below = 0.0
    for flips in range(rows):
        ways = math.lgamma(rows + 1) - math.lgamma(flips + 1) - math.lgamma(rows - flips + 1)
        below += math.exp(ways + flips * math.log(rate) + (rows - flips) * math.log1p(-rate))
        if below >= SAMPLING_CONFIDENCE:
            return flips
    return rows


@dataclass(frozen=True)
class Feeding:
    """One way of feeding the rows. groups: rows of each batch. length: forced width in tokens, or None.

    wanted: the source's logits, in the order of the groups.
    """

    name: str
    groups: tuple[np.ndarray, ...]
    length: int | None
    wanted: np.ndarray


def feedings(source: Path, task: TaskSpec, tokens: Tokens, logits: np.ndarray) -> tuple[Feeding, ...]:
    """What the source model, run by torch, answers to the rows of a test split in every way of feeding.

    logits: the source's logits [rows, labels] over tokens, known already.
    """
    import torch

    expected = load_predictor("torch", source, torch.get_num_threads())
    sample = np.linspace(0, len(tokens) - 1, min(SAMPLE_ROWS, len(tokens))).round().astype(int)
    one_by_one = tuple(np.array([row]) for row in range(len(tokens)))
    found = [Feeding("test split, one by one", one_by_one, None, logits)]
    singly = tuple(sample[at : at + 1] for at in range(len(sample)))
    for length in sorted({*(cut for cut in CUT_LENGTHS if cut < task.max_length), task.max_length}):
        wanted = expected(*padded_inputs(tokens, sample, task.inputs, length).values())
        found.append(Feeding(f"cut or padded to {length} tokens", singly, length, wanted))
    threes = tuple(sample[at : at + 3] for at in range(0, len(sample), 3))
    wanted = np.concatenate(
        [expected(*padded_inputs(tokens, group, task.inputs).values()) for group in threes]
    )
    found.append(Feeding("three at a time, padded", threes, None, wanted))
    return tuple(found)


def verify(
    name: str, artifact: Artifact, fed: Sequence[Feeding], tokens: Tokens, texts: Sequence[str], threads: int
) -> Verification:
    """Compare an artifact with its source in every way of feeding. texts: of the rows, to name the worst."""
    predict = load_predictor(artifact.target, artifact.folder, threads)
    cases, logits = [], []
    with progress_bar(sum(len(feeding.groups) for feeding in fed), f"verify {name}", "inference") as bar:
        for feeding in fed:
            found = []
            for group in feeding.groups:
                found.append(
                    predict(*padded_inputs(tokens, group, artifact.task.inputs, feeding.length).values())
                )
                bar.update(1)
            logits.append(np.concatenate(found))
            agreement = compare_logits(feeding.wanted, logits[-1], artifact.task.kind)
            worst = texts[np.concatenate(feeding.groups)[agreement.worst_row]]
            cases.append(Case(feeding.name, agreement, worst, within(agreement, artifact.tolerance)))
    return Verification(name, tuple(cases), logits[0])


def failure(verification: Verification, tolerance: dict[str, float]) -> str:
    """The first case out of bounds in one line, with the worst text; "" when all hold."""
    for case in verification.cases:
        if not case.passed:
            far = case.agreement
            allowed = allowed_flips(tolerance["decided_flip_rate"], far.rows)
            return (
                f"{verification.artifact}: {case.name}: max abs error {far.max_abs_error:.4g} "
                f"(allowed {tolerance['max_abs_error']:g}), decided label flips {far.decided_flip_rate:.2%} "
                f"(allowed {tolerance['decided_flip_rate']:.2%}, in {far.rows} rows {allowed}); "
                f"worst text: {case.worst_text[:200]!r}"
            )
    return ""
