"""stillroom bench: any artifacts, bundles and model folders, timed side by side on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import stillroom
from stillroom.benchmarks.limits import limits_beside
from stillroom.benchmarks.machine import describe_machine, usable_cores
from stillroom.benchmarks.measure import Measurement, Subject, measure
from stillroom.benchmarks.noise import AGAIN, noise_facts, with_again
from stillroom.benchmarks.results import BENCH_SCHEMA_VERSION, timing_fields, validate_bench
from stillroom.benchmarks.sustained import sustain
from stillroom.benchmarks.sweep import sweep
from stillroom.benchmarks.tokenization import time_tokenizer
from stillroom.benchmarks.workload import Workload, tokenizer_near
from stillroom.errors import CheckFailed, UsageError
from stillroom.export.bundle import artifact_at, holds_artifact
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.targets import TARGETS
from stillroom.files import size_of
from stillroom.student import load_student
from stillroom.task import TaskSpec
from stillroom.tokens import load_tokenizer

WARM_UP = 5
MAX_TEXTS = 2000
MAX_TEXT_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Plan:
    """What stillroom bench is asked for. lengths: None for 64 and 128, or what the models read.

    text_file: UTF-8, a text a line, whose lengths are the workload that end-to-end times are of; None for the
    golden texts. sustained_s: seconds in one process per file, 0 for none. timeout_s: per process.
    """

    lengths: tuple[int, ...] | None = None
    rounds: int = 5
    samples: int = 30
    threads: int = 2
    text_file: Path | None = None
    sweeps: bool = False
    limits: bool = False
    sustained_s: float = 0
    timeout_s: float = 120


@dataclass(frozen=True)
class _Opened:
    subject: Subject
    scheme: str
    size_bytes: int
    task: TaskSpec


def bench(folders: Sequence[Path], plan: Plan, command: str = "") -> dict[str, Any]:
    """Time every folder as plan says; the document of docs/schemas/bench.schema.json.

    A folder that cannot be opened, or whose process crashes or hangs, has a row that says why; the others go
    on. Raises UsageError when none is left, a folder is not there, or a length is beyond what a model reads.
    """
    opened, failures = _open_all(folders)
    if not opened:
        raise UsageError(f"nothing to time: {next(iter(failures.values()))}")
    longest = min(one.task.max_length for one in opened.values())
    lengths = tuple(sorted(set(plan.lengths or [min(length, longest) for length in (64, 128)])))
    if lengths[-1] > longest:
        raise UsageError(f"--length {lengths[-1]}: the shortest max_length of these models is {longest}")
    tokenizer = tokenizer_near(folders)
    texts = _texts(plan.text_file)
    read = load_tokenizer(tokenizer, longest)
    evaluation = tuple(tuple(read.encode(text).ids) for text in texts)
    ids = tuple(int(token) for token in np.resize(read.encode(GOLDEN_TEXTS[-1]).ids, lengths[-1]))
    workload = Workload(ids, lengths, plan.rounds, plan.samples, WARM_UP, plan.threads, evaluation=evaluation)
    subjects = [one.subject for one in opened.values()]
    measured = measure(with_again(subjects), workload, plan.timeout_s, failures=failures)
    failures.pop(AGAIN, None)
    noise = noise_facts(measured, subjects[-1].name)
    alive = [subject for subject in subjects if subject.name in measured]
    sweeps = sweep(alive, ids, usable_cores(), failures) if plan.sweeps else []
    sustained = _sustained(alive, replace(workload, evaluation=()), plan.sustained_s, failures)
    # Only now is known what failed, in a sweep or a run without a pause too.
    rows = [_row(str(folder), opened.get(str(folder)), measured, failures) for folder in folders]
    document = {
        "schema_version": BENCH_SCHEMA_VERSION,
        "stillroom_version": stillroom.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"command": command} if command else {}),
        "rows": rows,
        "workload": workload.to_dict(),
        "noise": noise,
        "tokenization_samples_ms": list(time_tokenizer(tokenizer, longest, [(text, None) for text in texts])),
        "sweeps": sweeps,
        "sustained": sustained,
        "limits": limits_beside(alive, workload) if plan.limits and alive else None,
        "machine": describe_machine(plan.threads),
    }
    validate_bench(document)
    return document


def _open_all(folders: Sequence[Path]) -> tuple[dict[str, _Opened], dict[str, str]]:
    """What can be timed, by folder, and why others cannot."""
    opened, failures = {}, {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"no such folder: {folder}")
        if str(folder) in opened:
            raise UsageError(f"{folder} is given twice")
        try:
            opened[str(folder)] = _open(folder)
        except (UsageError, CheckFailed) as error:  # truncated, changed, or of a runtime that is not here
            failures[str(folder)] = " ".join(str(error).split())
    return opened, failures


def _open(folder: Path) -> _Opened:
    """Check a folder's files against their checksums and say how it is loaded."""
    if not holds_artifact(folder):
        task, weights = load_student(folder).task, folder / "model.safetensors"
        subject = Subject(str(folder), "torch", str(folder), task.inputs)
        return _Opened(subject, "fp32", size_of(weights), task)
    artifact = artifact_at(folder)
    target = TARGETS[artifact.target]
    if target.proof != "run":
        raise UsageError(f"{target.proof}; there is no time to take")
    subject = Subject(str(folder), artifact.target, str(folder), artifact.task.inputs, artifact.lengths)
    return _Opened(subject, artifact.scheme, artifact.size_bytes, artifact.task)


def _texts(path: Path | None) -> list[str]:
    """The lines of a file that hold anything, at most MAX_TEXTS spread over it; golden texts for none."""
    if path is None:
        return [text for text in GOLDEN_TEXTS if text.strip()]
    if not path.is_file():
        raise UsageError(f"--text {path}: no such file")
    if path.stat().st_size > MAX_TEXT_FILE_BYTES:
        raise UsageError(f"--text {path}: over {MAX_TEXT_FILE_BYTES // 2**20} MB, take a sample of its lines")
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError(f"--text {path} is not UTF-8: {error}") from None
    if not lines:
        raise UsageError(f"--text {path}: no text in it, one a line is needed")
    return lines[:: -(-len(lines) // MAX_TEXTS)]


def _row(
    name: str, found: _Opened | None, measured: dict[str, Measurement], failures: dict[str, str]
) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "target": None, "scheme": None, "size_bytes": None}
    if found is not None:
        facts |= {"target": found.subject.target, "scheme": found.scheme, "size_bytes": found.size_bytes}
    return {**facts, "failure": failures.get(name), **timing_fields(measured.get(name))}


def _sustained(
    alive: list[Subject], workload: Workload, seconds: float, failures: dict[str, str]
) -> list[dict[str, Any]]:
    found = []
    for subject in alive if seconds else ():
        try:
            found.append(sustain(subject, workload, seconds))
        except CheckFailed as error:
            failures[subject.name] = str(error).removeprefix(f"{subject.name}: ")
    return found
