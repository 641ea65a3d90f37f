"""A run of some minutes in one process: does it get slower, does its memory grow?"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.benchmarks.measure import Subject, ask
from stillroom.benchmarks.workload import Workload, inputs_at
from stillroom.errors import CheckFailed

COMMAND = (sys.executable, "-P", "-m", "stillroom.benchmarks.sustained")
WINDOWS = 20  # parts of the run whose medians are looked at
START_S = 120  # to start, load and end, beside the seconds asked for


def sustain(
    subject: Subject, workload: Workload, seconds: float, command: Sequence[str] = COMMAND
) -> dict[str, Any]:
    """Call one subject at the workload's longest length without a pause for so many seconds.

    Returns raw samples_ms, and per window at_s, p50_ms and rss_bytes; p50_drift: the median of the last
    quarter over that of the first, minus 1; rss_growth_bytes: between the ends of these quarters.
    Raises CheckFailed as measure.measure does.
    """
    request = {
        "subject": asdict(subject),
        "token_ids": workload.token_ids[: max(workload.lengths)],
        "threads": workload.threads,
        "batch_size": workload.batch_size,
        "warmup": workload.warmup,
        "seconds": seconds,
    }
    reply = ask(subject.name, [request], seconds + START_S, command)
    try:
        windows = [
            {"at_s": float(at), "p50_ms": float(p50), "rss_bytes": int(rss)}
            for at, p50, rss in reply["windows"]
        ]
        samples = [float(ms) for ms in reply["samples_ms"]]
        quarter = max(1, len(samples) // 4)
        drift = float(np.median(samples[-quarter:]) / np.median(samples[:quarter]) - 1)
        growth = windows[-1]["rss_bytes"] - windows[max(0, len(windows) // 4 - 1)]["rss_bytes"]
    except (KeyError, TypeError, ValueError, IndexError):
        raise CheckFailed(f"{subject.name}: its process printed something other than its samples") from None
    return {
        "name": subject.name,
        "seconds": seconds,
        "length": max(workload.lengths),
        "threads": workload.threads,
        "batch_size": workload.batch_size,
        "windows": windows,
        "p50_drift": drift,
        "rss_growth_bytes": growth,
        "samples_ms": samples,
    }


def run_child(request: dict[str, Any]) -> dict[str, Any]:
    """The child's side: samples until the time is over."""
    from stillroom.benchmarks.measure_child import resident_bytes
    from stillroom.export.targets import import_runtime, load_predictor

    subject = request["subject"]
    import_runtime(subject["target"])
    predict = load_predictor(
        subject["target"], Path(subject["folder"]), request["threads"], subject["lengths"]
    )
    ids = tuple(request["token_ids"])
    workload = Workload(ids, (len(ids),), 1, 1, 0, request["threads"], request["batch_size"])
    arguments = [*inputs_at(workload, len(ids), subject["inputs"]).values()]
    for _ in range(request["warmup"]):
        predict(*arguments)
    samples: list[float] = []
    windows: list[tuple[float, float, int]] = []
    began = time.perf_counter()
    for window in range(1, WINDOWS + 1):
        first = len(samples)
        until = began + request["seconds"] * window / WINDOWS
        while len(samples) == first or time.perf_counter() < until:
            start_ns = time.perf_counter_ns()
            logits = predict(*arguments)
            samples.append((time.perf_counter_ns() - start_ns) / 1e6)
        if not np.isfinite(logits).all():
            raise CheckFailed("logits that are not finite")
        windows.append((time.perf_counter() - began, float(np.median(samples[first:])), resident_bytes()[0]))
    return {"windows": windows, "samples_ms": samples}


if __name__ == "__main__":
    from stillroom.benchmarks.measure_child import answer

    sys.exit(answer(lambda: run_child(json.loads(sys.stdin.readline()))))
