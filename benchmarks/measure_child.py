"""The child's side of a measurement: one model in this process, asked and answered in JSON.

It reads one request on standard input, and on a second line the rows of the evaluation pass, and writes one
reply on standard output. See measure.py, which starts it.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from stillroom.benchmarks.workload import Workload, inputs_at, inputs_of
from stillroom.errors import CheckFailed, StillroomError
from stillroom.progress import say

Predictor = Callable[..., npt.NDArray[Any]]
LoadPredictor = Callable[[str, Path, int, Sequence[int]], Predictor]
Value = TypeVar("Value")


def resident_bytes() -> tuple[int, int]:
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


def _mapped_libraries() -> dict[str, int] | None:
    """Native libraries mapped into this process: path -> size of the file; None off Linux."""
    if sys.platform != "linux":
        return None
    text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    paths = {line[line.index("/") :] for line in text.splitlines() if "/" in line}
    libraries = (Path(path) for path in paths if re.search(r"\.so(\.[\d.]+)?$", path))
    return {str(path): path.stat().st_size for path in libraries if path.is_file()}


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
    before = _mapped_libraries()
    import_ms, _ = _timed(import_runtime, subject["target"])
    baseline_bytes, _ = resident_bytes()
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
    cpu_ms: dict[int, float] = {}
    for length, arguments in inputs.items():
        for _ in range(workload.warmup):
            inference_ms(arguments)
        started_ns = time.process_time_ns()  # of all threads; those that wait by spinning use CPU time too
        samples_ms[length] = [inference_ms(arguments) for _ in range(workload.samples)]
        cpu_ms[length] = (time.process_time_ns() - started_ns) / 1e6 / workload.samples
    _, peak_bytes = resident_bytes()
    after = _mapped_libraries()
    pass_ms = [inference_ms([*inputs_of(ids, subject["inputs"]).values()]) for ids in read_evaluation()]
    return {
        "import_ms": import_ms,
        "load_ms": load_ms,
        "first_ms": first_ms,
        "samples_ms": samples_ms,
        "cpu_ms": cpu_ms,
        "runtime_bytes": None
        if before is None or after is None
        else sum(size for path, size in after.items() if path not in before),
        "evaluation_samples_ms": pass_ms,
        "peak_rss_bytes": peak_bytes,
        "baseline_rss_bytes": baseline_bytes,
    }


def answer(work: Callable[[], Any]) -> int:
    """Write what work returns to standard output as JSON, the child's side of measure.ask; its exit code.

    Runtimes print to file descriptor 1 from native code, so the reply has a descriptor of its own. Python's
    collector is off meanwhile: an app has none, so its pauses do not belong in the samples. The reason for a
    failure goes to standard error.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as reply_file:
        os.dup2(2, 1)
        gc.disable()
        try:
            reply = work()
        except StillroomError as error:
            say(str(error))
            return error.exit_code
        json.dump(reply, reply_file)
    return 0


def child_main(import_runtime: Callable[[str], None], load_predictor: LoadPredictor) -> int:
    """The child's side of measure.run_process; its exit code."""

    def work() -> dict[str, Any]:
        request = json.loads(sys.stdin.readline())
        return run_child(request, import_runtime, load_predictor, lambda: json.loads(sys.stdin.readline()))

    return answer(work)


if __name__ == "__main__":
    from stillroom.export.targets import import_runtime, load_predictor

    sys.exit(child_main(import_runtime, load_predictor))
