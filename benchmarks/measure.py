"""Time, cold start and memory of models, each in fresh processes of its own.

One process per subject and round (measure_child.py), the subjects taking turns, so that a machine which
slows down or warms up does so for all of them.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stillroom.benchmarks.workload import Workload
from stillroom.errors import CheckFailed, UsageError
from stillroom.progress import progress_bar

# -P keeps the working directory off sys.path: a stray numpy.py there must not be what is measured.
CHILD_COMMAND = (sys.executable, "-P", "-m", "stillroom.benchmarks.measure_child")
EVALUATION_ROW_TIMEOUT_S = 2  # what a row of the evaluation pass adds to the time a process is given


@dataclass(frozen=True)
class Subject:
    """What is measured: a folder, the target that loads it and the model's input names in order.

    lengths: those the file was made for, to which its inputs are padded; none for any.
    """

    name: str
    target: str
    folder: str
    inputs: tuple[str, ...]
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """Raw samples of one subject; percentiles derive from them. Times are milliseconds.

    One value per process (round), in round order: import_samples_ms (importing the runtime),
    load_samples_ms (folder to callable, the import not included), first_samples_ms (first inference,
    at the longest length), peak_rss_bytes (the process as a whole), baseline_rss_bytes (resident after
    the runtime's import, before the model is loaded). samples_ms: length in tokens -> warm samples of
    all rounds, in round order. page_cache: "dropped" when the system was asked to forget the subject's
    files before every process, otherwise "warm". cpu_ms: length -> CPU time of a warm call, all threads
    together, one mean per process. runtime_bytes: files of the native libraries that the runtime brought into
    the process; None where the system does not tell. evaluation_samples_ms: the calls of one pass over the
    workload's evaluation rows at batch 1, in the first process; none when there were none.
    """

    name: str
    import_samples_ms: tuple[float, ...]
    load_samples_ms: tuple[float, ...]
    first_samples_ms: tuple[float, ...]
    samples_ms: dict[int, tuple[float, ...]]
    peak_rss_bytes: tuple[int, ...]
    baseline_rss_bytes: tuple[int, ...]
    page_cache: str
    cpu_ms: dict[int, tuple[float, ...]]
    runtime_bytes: int | None
    evaluation_samples_ms: tuple[float, ...] = ()


def measure(
    subjects: Sequence[Subject],
    workload: Workload,
    timeout_s: float = 300,
    command: Sequence[str] = CHILD_COMMAND,
    failures: dict[str, str] | None = None,
) -> dict[str, Measurement]:
    """Measure every subject in workload.rounds fresh processes each; subject name -> Measurement.

    Rounds are interleaved and each begins with another subject, so that a machine which slows down or
    warms up does so for all of them. The evaluation pass is part of the first round alone. timeout_s is per
    process, and more by EVALUATION_ROW_TIMEOUT_S per row of the pass; command starts the child. failures,
    where given, takes the reason of each subject that fails, by name; the others go on without it.
    Raises UsageError on a wrong subject, CheckFailed when a process crashes, hangs, answers with
    anything but its measurements, or when a model's logits are not finite, unless failures is given.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) != len(names):
        raise UsageError(f"subjects must have different names, got {', '.join(names)}")
    for subject in subjects:
        if not Path(subject.folder).is_dir():
            raise UsageError(f"{subject.name}: no such folder: {subject.folder}")
    replies: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with progress_bar(len(subjects) * workload.rounds, "measuring", "process") as bar:
        for round_index in range(workload.rounds):
            asked = workload if round_index == 0 else replace(workload, evaluation=())
            for subject in rotated(subjects, round_index):
                bar.update()
                if failures is not None and subject.name in failures:
                    continue
                page_cache = drop_page_cache(Path(subject.folder))
                try:
                    reply = run_process(subject, asked, timeout_s, command)
                except CheckFailed as error:
                    if failures is None:
                        raise
                    failures[subject.name] = str(error).removeprefix(f"{subject.name}: ")
                    continue
                replies[subject.name].append({**reply, "page_cache": page_cache})
    return {name: _collect(name, replies[name], workload) for name in names if name not in (failures or {})}


def rotated(subjects: Sequence[Subject], round_index: int) -> list[Subject]:
    """The order of one round: the list, begun at another subject each round."""
    start = round_index % len(subjects) if subjects else 0
    return [*subjects[start:], *subjects[:start]]


def drop_page_cache(folder: Path) -> str:
    """Ask the system to forget the cached content of every file below folder: "dropped" or "warm"."""
    if not hasattr(os, "posix_fadvise"):
        return "warm"
    try:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # pages not yet written out are not dropped
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    except OSError:  # a file system without it: the result says "warm", and so does the report
        return "warm"
    return "dropped"


def run_process(
    subject: Subject, workload: Workload, timeout_s: float, command: Sequence[str] = CHILD_COMMAND
) -> dict[str, Any]:
    """Measure a subject in one fresh process and return its reply. Raises CheckFailed as measure does."""
    sent = replace(workload, token_ids=workload.token_ids[: max(workload.lengths)], evaluation=())
    request = {"subject": asdict(subject), "workload": asdict(sent)}
    timeout_s += EVALUATION_ROW_TIMEOUT_S * len(workload.evaluation)
    reply = ask(subject.name, [request, workload.evaluation], timeout_s, command)
    try:
        return _checked_reply(reply, workload)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckFailed(
            f"{subject.name}: its process ended with exit code 0 but printed something other than its "
            f"measurements: {json.dumps(reply)[:80]!r}"
        ) from None


def ask(name: str, request: Sequence[Any], timeout_s: float, command: Sequence[str]) -> Any:
    """Start a process, send it a line of JSON for each part of request and return its reply, from JSON.

    It is killed at timeout_s. Raises CheckFailed, beginning with name, when it fails or does not answer.
    """
    try:
        printed = finished(command, timeout_s, "".join(f"{json.dumps(part)}\n" for part in request))
    except CheckFailed as error:
        raise CheckFailed(f"{name}: {error}") from None
    try:
        return json.loads(printed)
    except ValueError:
        raise CheckFailed(
            f"{name}: its process ended with exit code 0 but printed something other than its "
            f"measurements: {printed[:80]!r}"
        ) from None


def finished(
    command: Sequence[str],
    timeout_s: float,
    given: str = "",
    environment: Mapping[str, str] | None = None,
    data_bytes: int | None = None,
) -> str:
    """What a process printed, given this text, in time and with at most so much private writable memory.

    Raises CheckFailed with its signal or its last words when it fails, or when it is stopped at timeout_s.
    """

    def limit_memory() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes or 0, data_bytes or 0))

    try:
        process = subprocess.run(
            command,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **(environment or {})},
            preexec_fn=None if data_bytes is None else limit_memory,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"its process did not finish within {timeout_s:g} s and was stopped") from None
    if process.returncode:
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        last_line = lines[-1][:400] if lines else "nothing on standard error"
        raise CheckFailed(f"its process ended with {_ending(process.returncode)}: {last_line}")
    return process.stdout


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"exit code {exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:  # a real-time signal has no name
        return f"exit code {exit_code}"


def _checked_reply(reply: dict[str, Any], workload: Workload) -> dict[str, Any]:
    """The reply in the parent's types. Raises ValueError, TypeError or KeyError when it is no reply."""
    samples = {int(length): [float(ms) for ms in values] for length, values in reply["samples_ms"].items()}
    cpu_ms = {int(length): float(ms) for length, ms in reply["cpu_ms"].items()}
    checked = {
        "import_ms": float(reply["import_ms"]),
        "load_ms": float(reply["load_ms"]),
        "first_ms": float(reply["first_ms"]),
        "peak_rss_bytes": int(reply["peak_rss_bytes"]),
        "baseline_rss_bytes": int(reply["baseline_rss_bytes"]),
    }
    if set(samples) != set(workload.lengths) or {len(row) for row in samples.values()} != {workload.samples}:
        raise ValueError("lengths or number of samples differ from the request")
    passed = [float(ms) for ms in reply["evaluation_samples_ms"]]
    if len(passed) != len(workload.evaluation) or set(cpu_ms) != set(workload.lengths):
        raise ValueError("the pass or the CPU times are not of the rows and lengths that were sent")
    numbers = [*checked.values(), *(ms for row in samples.values() for ms in row), *passed]
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError("a measurement is not a positive number")
    if not all(math.isfinite(ms) and ms >= 0 for ms in cpu_ms.values()):  # its clock may be a coarse one
        raise ValueError("a CPU time is negative or no number")
    runtime_bytes = None if reply["runtime_bytes"] is None else int(reply["runtime_bytes"])
    return {**checked, "samples_ms": samples, "cpu_ms": cpu_ms, "runtime_bytes": runtime_bytes,
            "evaluation_samples_ms": passed}  # fmt: skip


def _collect(name: str, replies: Sequence[dict[str, Any]], workload: Workload) -> Measurement:
    def every(key: str) -> tuple[Any, ...]:
        return tuple(reply[key] for reply in replies)

    return Measurement(
        name=name,
        import_samples_ms=every("import_ms"),
        load_samples_ms=every("load_ms"),
        first_samples_ms=every("first_ms"),
        samples_ms={
            length: tuple(ms for reply in replies for ms in reply["samples_ms"][length])
            for length in workload.lengths
        },
        peak_rss_bytes=every("peak_rss_bytes"),
        baseline_rss_bytes=every("baseline_rss_bytes"),
        page_cache="dropped" if set(every("page_cache")) == {"dropped"} else "warm",
        cpu_ms={length: tuple(reply["cpu_ms"][length] for reply in replies) for length in workload.lengths},
        runtime_bytes=replies[0]["runtime_bytes"],
        evaluation_samples_ms=tuple(replies[0]["evaluation_samples_ms"]),
    )
