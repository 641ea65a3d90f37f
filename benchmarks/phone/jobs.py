"""What is to be run on a phone or an emulated core: each file, its goldens and the ids it is timed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.artifact import Artifact
from stillroom.benchmarks.phone.adb_runner import Reply
from stillroom.benchmarks.workload import tokenizer_near
from stillroom.errors import UsageError
from stillroom.export.bundle import artifact_at, holds_artifact
from stillroom.export.golden import GOLDEN_TEXTS, GOLDEN_TOLERANCE, golden_vectors
from stillroom.export.targets import open_artifact
from stillroom.files import read_json
from stillroom.numerics import compare_logits
from stillroom.student import load_student
from stillroom.tokens import load_tokenizer

ONNXRUNTIME = ("onnx", "ort")  # what the runner opens
MAX_GOLDENS = 64


@dataclass(frozen=True)
class Job:
    """One file. goldens: empty when it is not run; reason says why then."""

    name: str
    artifact: Artifact
    goldens: tuple[dict[str, Any], ...]
    timed_ids: tuple[int, ...]
    reason: str


def prepare_jobs(
    folders: Sequence[Path], lengths: Sequence[int], place: str = "adb", targets: Sequence[str] = ONNXRUNTIME
) -> tuple[list[Job], list[dict[str, str]]]:
    """The files to run, and for each folder that is none of ours or no artifact its name and why not.

    place: what runs them, in words. targets: whose files it can run.

    The goldens are a bundle's own, or computed here with the very file. Raises UsageError when a length is
    beyond what a file reads or there is no tokenizer.
    """
    jobs: list[Job] = []
    skipped: list[dict[str, str]] = []
    for folder in folders:
        if not holds_artifact(folder):
            load_student(folder)  # raises what is wrong with it when it is no model folder either
            reason = f"not run: {place} runs exported files, this is a model"
            skipped.append({"name": str(folder), "reason": reason})
            continue
        artifact = artifact_at(folder)
        if artifact.target not in targets:
            reason = f"not run: {place} runs files of {', '.join(targets)} so far, not of {artifact.target}"
            jobs.append(Job(str(folder), artifact, (), (), reason))
            continue
        if artifact.lengths and not set(lengths) <= set(artifact.lengths):
            made = ", ".join(map(str, artifact.lengths))
            reason = f"not run: it was made for {made} tokens only, name these with --length"
            jobs.append(Job(str(folder), artifact, (), (), reason))
            continue
        if max(lengths) > artifact.task.max_length:
            raise UsageError(
                f"--length {max(lengths)}: {folder} reads at most {artifact.task.max_length} tokens"
            )
        tokenizer = load_tokenizer(tokenizer_near([folder]), artifact.task.max_length)
        if (folder / "golden.json").is_file():
            goldens = _checked(read_json(folder / "golden.json"), artifact, folder)
        else:
            goldens = golden_vectors(tokenizer, open_artifact(artifact, 1), artifact.task)
        ids = np.resize(tokenizer.encode(GOLDEN_TEXTS[-1]).ids, max(lengths))
        kept = tuple(golden for golden in goldens[:MAX_GOLDENS] if _fits(golden, artifact))
        jobs.append(Job(str(folder), artifact, kept, tuple(map(int, ids)), ""))
    return jobs, skipped


def _checked(goldens: Any, artifact: Artifact, folder: Path) -> list[dict[str, Any]]:
    """The parts of a bundle's goldens that are used here. Raises UsageError when they do not fit its task."""
    try:
        return [
            {
                "input_ids": [int(token) for token in golden["input_ids"]],
                "token_type_ids": [int(kind) for kind in golden.get("token_type_ids", [])],
                "logits": [
                    float(value) for value, _ in zip(golden["logits"], artifact.task.labels, strict=True)
                ],
            }
            for golden in goldens
        ]
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise UsageError(f"{folder / 'golden.json'} holds no golden vectors of its task") from None


def _fits(golden: dict[str, Any], artifact: Artifact) -> bool:
    """A file made for fixed lengths is asked only what needs no padding."""
    return not artifact.lengths or len(golden["input_ids"]) in artifact.lengths


def agreement_of(job: Job, reply: Reply) -> dict[str, Any]:
    """How far the device's logits are from the host's goldens, beside what is allowed.

    allowed: the smaller of the file's own tolerance and that of a replay (GOLDEN_TOLERANCE).
    """
    allowed = min(job.artifact.tolerance["max_abs_error"], GOLDEN_TOLERANCE)
    expected = np.array([golden["logits"] for golden in job.goldens])
    found = compare_logits(expected, np.array(reply.logits), job.artifact.task.kind)
    return {
        "texts": found.rows,
        "max_abs_error": found.max_abs_error,
        "allowed_error": allowed,
        "flip_rate": found.flip_rate,
        "holds": found.max_abs_error <= allowed and found.decided_flip_rate == 0,
    }
