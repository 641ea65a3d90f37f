"""Parity of an artifact with the model it was made from: real text, several lengths and paddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.artifact import Artifact
from stillroom.export.targets import TARGETS, load_predictor, open_artifact
from stillroom.numerics import Agreement, compare_logits
from stillroom.observe import Batch
from stillroom.progress import progress_bar
from stillroom.task import TaskSpec
from stillroom.tokens import Tokens, padded_inputs, spread_rows

SAMPLE_ROWS = 64  # of the test split, for the cases that change length or padding
CUT_LENGTHS = (1, 2, 17, 64)  # tokens
RANDOM_ROWS = 16
WHOLE, UNPADDED, THREE = "test split, one by one", "sample, unpadded", "three at a time, padded"
OTHER_INPUTS = {2: "with token_type_ids", 3: "without token_type_ids"}  # by how many inputs the model has
SAMPLING_CONFIDENCE = 0.99


Batches = tuple[Batch, ...]  # one inference each


@dataclass(frozen=True)
class Case:
    """One way of feeding the model, and how far its answers were from the source's."""

    name: str
    agreement: Agreement
    worst_text: str
    passed: bool


@dataclass(frozen=True)
class Verification:
    """artifact: its name. logits: float32 [rows, labels] of the first way of feeding: the test split."""

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
    """One way of feeding texts. batches: the model's inputs, one inference each.

    wanted: the source's logits [rows, labels], in that order. texts: of the rows, to name the worst.
    """

    name: str
    batches: Batches
    wanted: np.ndarray
    texts: tuple[str, ...]

    def fits(self, artifact: Artifact) -> bool:
        """Can the artifact be fed so? Some take one row only, some no more tokens than they were made for."""
        rows, tokens = (max(batch[0].shape[axis] for batch in self.batches) for axis in (0, 1))
        longest = artifact.lengths[-1] if artifact.lengths else artifact.task.max_length
        return (rows == 1 or TARGETS[artifact.target].batch) and tokens <= longest


def feedings(
    source: Path, task: TaskSpec, tokens: Tokens, texts: Sequence[str], logits: np.ndarray | None = None
) -> tuple[Feeding, ...]:
    """What the source model, run by torch, answers to the rows of a test split in every way of feeding.

    texts: of the rows. logits: the source's [rows, labels], if they are known already.
    """
    import torch

    expected = load_predictor("torch", source, torch.get_num_threads())

    def fed(name: str, batches: Batches, rows: np.ndarray, given: Batches = ()) -> Feeding:
        """given: what the artifact gets instead of batches, which the source gets."""
        wanted = np.concatenate([expected(*batch) for batch in batches])
        return Feeding(name, given or batches, wanted, tuple(texts[row] for row in rows))

    every, sample = np.arange(len(tokens)), spread_rows(len(tokens), SAMPLE_ROWS)
    lengths = sorted({*(cut for cut in CUT_LENGTHS if cut < task.max_length), task.max_length})
    one_by_one, unpadded = (batches_of(tokens, rows, task) for rows in (every, sample))
    first_text, given = other_inputs(unpadded)
    noise = random_inputs(tokens, task)
    whole = fed(WHOLE, one_by_one, every) if logits is None else None
    return (
        whole or Feeding(WHOLE, one_by_one, np.asarray(logits), tuple(texts)),
        *(fed(padded_to(length), batches_of(tokens, sample, task, length), sample) for length in lengths),
        fed(THREE, batches_of(tokens, sample, task, rows_each=3), sample),
        fed(UNPADDED, unpadded, sample),
        fed(OTHER_INPUTS[len(task.inputs)], first_text, sample, given),
        Feeding(
            "random token ids",
            noise,
            np.concatenate([expected(*batch) for batch in noise]),
            ("(random ids)",) * len(noise),
        ),
    )


def golden_feedings(
    task: TaskSpec, tokens: Tokens, texts: Sequence[str], logits: np.ndarray
) -> tuple[Feeding, ...]:
    """The ways of feeding a bundle's golden texts, whose answers are known, that should not change them.

    texts, logits [rows, labels]: of the rows.
    """
    rows, longest = np.arange(len(tokens)), int(tokens.lengths.max())
    unpadded = batches_of(tokens, rows, task)
    _, given = other_inputs(unpadded)
    lengths = sorted({*(cut for cut in CUT_LENGTHS if longest <= cut < task.max_length), task.max_length})
    ways = {
        UNPADDED: unpadded,
        **{padded_to(length): batches_of(tokens, rows, task, length) for length in lengths},
        THREE: batches_of(tokens, rows, task, rows_each=3),
    }
    if len(task.inputs) == 2:  # with three, leaving one out may change the answer to a pair
        ways[OTHER_INPUTS[2]] = given
    return tuple(Feeding(name, batches, logits, tuple(texts)) for name, batches in ways.items())


def padded_to(length: int) -> str:
    """Name of the way of feeding that brings every text to a length in tokens."""
    return f"cut or padded to {length} tokens"


def batches_of(
    tokens: Tokens, rows: np.ndarray, task: TaskSpec, length: int | None = None, rows_each: int = 1
) -> Batches:
    """Rows as a model's inputs, so many an inference: cut or padded to a length, or as long as they are."""
    groups = [rows[at : at + rows_each] for at in range(0, len(rows), rows_each)]
    return tuple(tuple(padded_inputs(tokens, group, task.inputs, length).values()) for group in groups)


def other_inputs(batches: Batches) -> tuple[Batches, Batches]:
    """The same texts for the model, as of one text each, and for a caller who knows its inputs wrong.

    That caller leaves token_type_ids out where the model has them, and gives them where it has not.
    """
    if len(batches[0]) == 3:
        return tuple((ids, mask, np.zeros_like(ids)) for ids, mask, _ in batches), tuple(
            batch[:2] for batch in batches
        )
    return batches, tuple((*batch, np.zeros_like(batch[0])) for batch in batches)


def random_inputs(tokens: Tokens, task: TaskSpec) -> Batches:
    """Texts that nobody wrote, of ids up to the largest that is in tokens; what real text does not reach."""
    random = np.random.default_rng(0)
    found = []
    for length in np.linspace(2, task.max_length, RANDOM_ROWS).astype(int):
        ids = random.integers(0, int(tokens.ids.max()) + 1, (1, length))
        ids[ids == tokens.pad_id] = tokens.ids[0]  # padding where nothing is padded has no right answer
        kinds = (ids, np.ones_like(ids), np.zeros_like(ids))
        found.append(kinds[: len(task.inputs)])
    return tuple(found)


def verify(name: str, artifact: Artifact, fed: Sequence[Feeding], threads: int) -> Verification:
    """Compare an artifact with its source in every way of feeding that it can take, and with itself."""
    predict = open_artifact(artifact, threads)
    fed = [feeding for feeding in fed if feeding.fits(artifact)]
    answers, cases = {}, []
    with progress_bar(sum(len(feeding.batches) for feeding in fed), f"verify {name}", "inference") as bar:
        for feeding in fed:
            found = []
            for batch in feeding.batches:
                found.append(predict(*batch))
                bar.update(1)
            answers[feeding.name] = np.concatenate(found)
            cases.append(_case(feeding.name, artifact, feeding.wanted, answers[feeding.name], feeding.texts))
    padded = padded_to(artifact.task.max_length)
    (texts,) = (feeding.texts for feeding in fed if feeding.name == UNPADDED)
    cases.append(_case("padded against unpadded", artifact, answers[UNPADDED], answers[padded], texts))
    return Verification(name, tuple(cases), answers[fed[0].name])


def _case(name: str, artifact: Artifact, wanted: np.ndarray, got: np.ndarray, texts: Sequence[str]) -> Case:
    agreement = compare_logits(wanted, got, artifact.task.kind)
    return Case(name, agreement, texts[agreement.worst_row], within(agreement, artifact.tolerance))


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
