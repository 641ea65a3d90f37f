"""Time, cold start and memory of models, each in fresh processes of its own.

The parent starts `python -m stillroom.benchmarks.measure` once per subject and round; that child reads
one JSON request on standard input, and on a second line the rows of the evaluation pass, and writes one
JSON reply on standard output.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from stillroom.benchmarks.workload import Workload, inputs_at, inputs_of
from stillroom.errors import CheckFailed, StillroomError, UsageError
from stillroom.progress import progress_bar, say

Predictor = Callable[..., npt.NDArray[Any]]
LoadPredictor = Callable[[str, Path, int, Sequence[int]], Predictor]
Value = TypeVar("Value")

# -P keeps the working directory off sys.path: a stray numpy.py there must not be what is measured.
CHILD_COMMAND = (sys.executable, "-P", "-m", "stillroom.benchmarks.measure")
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
    files before every process, otherwise "warm". evaluation_pass_ms: the calls of one pass over the
    workload's evaluation rows at batch 1, added up, in the first process; None when there were none.
    """

    name: str
    import_samples_ms: tuple[float, ...]
    load_samples_ms: tuple[float, ...]
    first_samples_ms: tuple[float, ...]
    samples_ms: dict[int, tuple[float, ...]]
    peak_rss_bytes: tuple[int, ...]
    baseline_rss_bytes: tuple[int, ...]
    page_cache: str
    evaluation_pass_ms: float | None


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 by linear interpolation, not rounded. Raises UsageError on no samples."""
    if not samples:
        raise UsageError("no samples to take percentiles of")
    p50, p90, p99 = np.percentile(np.asarray(samples, dtype=np.float64), [50, 90, 99], method="linear")
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99)}


def measure(
    subjects: Sequence[Subject],
    workload: Workload,
    timeout_s: float = 300,
    command: Sequence[str] = CHILD_COMMAND,
) -> dict[str, Measurement]:
    """Measure every subject in workload.rounds fresh processes each; subject name -> Measurement.

    Rounds are interleaved and each begins with another subject, so that a machine which slows down or
    warms up does so for all of them. The evaluation pass is part of the first round alone. timeout_s is per
    process, and more by EVALUATION_ROW_TIMEOUT_S per row of the pass; command starts the child.
    Raises UsageError on a wrong subject, CheckFailed when a process crashes, hangs, answers with
    anything but its measurements, or when a model's logits are not finite.
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
                page_cache = drop_page_cache(Path(subject.folder))
                reply = run_process(subject, asked, timeout_s, command)
                replies[subject.name].append({**reply, "page_cache": page_cache})
                bar.update()
    return {name: _collect(name, replies[name], workload) for name in names}


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
    request = json.dumps({"subject": asdict(subject), "workload": asdict(sent)})
    timeout_s += EVALUATION_ROW_TIMEOUT_S * len(workload.evaluation)
    try:
        process = subprocess.run(
            command,
            input=f"{request}\n{json.dumps(workload.evaluation)}\n",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(
            f"{subject.name}: its process did not finish within {timeout_s:g} s and was stopped"
        ) from None
    if process.returncode:
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        last_line = lines[-1][:400] if lines else "nothing on standard error"
        raise CheckFailed(
            f"{subject.name}: its process ended with {_ending(process.returncode)}: {last_line}"
        )
    try:
        return _checked_reply(json.loads(process.stdout), workload)
    except (ValueError, TypeError, KeyError, AttributeError):
        start = process.stdout[:80]
        raise CheckFailed(
            f"{subject.name}: its process ended with exit code 0 but printed something other than its "
            f"measurements: {start!r}"
        ) from None


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
    checked = {
        "import_ms": float(reply["import_ms"]),
        "load_ms": float(reply["load_ms"]),
        "first_ms": float(reply["first_ms"]),
        "peak_rss_bytes": int(reply["peak_rss_bytes"]),
        "baseline_rss_bytes": int(reply["baseline_rss_bytes"]),
    }
    if set(samples) != set(workload.lengths) or {len(row) for row in samples.values()} != {workload.samples}:
        raise ValueError("lengths or number of samples differ from the request")
    passed = [float(reply["evaluation_pass_ms"])] if workload.evaluation else []
    numbers = [*checked.values(), *(ms for row in samples.values() for ms in row), *passed]
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError("a measurement is not a positive number")
    return {**checked, "samples_ms": samples, "evaluation_pass_ms": passed[0] if passed else None}


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
        evaluation_pass_ms=replies[0]["evaluation_pass_ms"],
    )


def _resident_bytes() -> tuple[int, int]:
    """Resident memory of this process: now, and at most so far."""
    if sys.platform == "linux":
        # Not ru_maxrss: Linux carries it through fork and exec, so a child of a large parent would
        # report the parent's peak. VmHWM belongs to the address space that exec made.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        found = dict(re.findall(r"^(VmHWM|VmRSS):\s*(\d+) kB$", status, flags=re.MULTILINE))
        if len(found) != 2:
            raise CheckFailed("this kernel's /proc/self/status has no VmHWM: peak memory cannot be measured")
        return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024
    import resource

    # There is no current value to be had here without another package, so both are the peak so far.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def _timed(call: Callable[..., Value], *arguments: Any) -> tuple[float, Value]:
    """Milliseconds one call took, and what it returned."""
    start_ns = time.perf_counter_ns()
    value = call(*arguments)
    return (time.perf_counter_ns() - start_ns) / 1e6, value


def run_child(
    request: dict[str, Any],
    import_runtime: Callable[[str], None],
    load_predictor: LoadPredictor,
    read_evaluation: Callable[[], Sequence[Sequence[int]]] = tuple,
) -> dict[str, Any]:
    """Measure one subject in this process; request is what run_process sends.

    read_evaluation gives the rows of the evaluation pass. It is called after the memory was measured: the
    ids of a large split would be taken for the model's.
    Raises CheckFailed when the model's output is not finite or not [batch size, labels].
    """
    # JSON has no tuples, and a workload is compared and hashed as a value.
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in request["workload"].items()
    }
    workload = Workload(**fields)
    subject = request["subject"]
    import_ms, _ = _timed(import_runtime, subject["target"])
    baseline_bytes, _ = _resident_bytes()
    opening = (subject["target"], Path(subject["folder"]), workload.threads, subject["lengths"])
    load_ms, predict = _timed(load_predictor, *opening)

    def inference_ms(arguments: Sequence[npt.NDArray[np.int64]]) -> float:
        elapsed_ms, output = _timed(predict, *arguments)
        logits = np.asarray(output)
        rows = arguments[0].shape[0]
        if logits.ndim != 2 or logits.shape[0] != rows:
            raise CheckFailed(f"logits of shape {logits.shape}, wanted [{rows}, labels]")
        if not np.isfinite(logits).all():
            raise CheckFailed(f"logits that are not finite, at length {arguments[0].shape[1]}")
        return elapsed_ms

    inputs = {
        length: [*inputs_at(workload, length, subject["inputs"]).values()] for length in workload.lengths
    }
    first_ms = inference_ms(inputs[max(workload.lengths)])
    samples_ms: dict[int, list[float]] = {}
    for length, arguments in inputs.items():
        for _ in range(workload.warmup):
            inference_ms(arguments)
        samples_ms[length] = [inference_ms(arguments) for _ in range(workload.samples)]
    _, peak_bytes = _resident_bytes()
    pass_ms = [inference_ms([*inputs_of(ids, subject["inputs"]).values()]) for ids in read_evaluation()]
    return {
        "import_ms": import_ms,
        "load_ms": load_ms,
        "first_ms": first_ms,
        "samples_ms": samples_ms,
        "evaluation_pass_ms": sum(pass_ms) if pass_ms else None,
        "peak_rss_bytes": peak_bytes,
        "baseline_rss_bytes": baseline_bytes,
    }


def child_main(import_runtime: Callable[[str], None], load_predictor: LoadPredictor) -> int:
    """The child's side of run_process; returns its exit code, the reason for a failure goes to stderr."""
    # Runtimes print to file descriptor 1 from native code; the reply keeps a descriptor of its own.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as reply_file:
        os.dup2(2, 1)
        gc.disable()  # an app has no Python collector, so its pauses do not belong in the samples
        try:
            request = json.loads(sys.stdin.readline())
            reply = run_child(
                request, import_runtime, load_predictor, lambda: json.loads(sys.stdin.readline())
            )
        except StillroomError as error:
            say(str(error))
            return error.exit_code
        json.dump(reply, reply_file)
    return 0


if __name__ == "__main__":
    from stillroom.export.targets import import_runtime, load_predictor

    sys.exit(child_main(import_runtime, load_predictor))
