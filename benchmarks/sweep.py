"""Sweeps: the same files with other threads, lengths and batches, and what that makes in rows a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillroom.benchmarks.measure import Measurement, Subject, measure
from stillroom.benchmarks.statistics import percentiles
from stillroom.benchmarks.workload import Workload
from stillroom.export.targets import TARGETS

ROUNDS = 2
SAMPLES = 16  # per length and process at batch 1; fewer calls, but not fewer than this over 4, for batches
WARM_UP = 2
LENGTHS = (16, 32, 64, 128, 256, 512)
BATCHES = (1, 4, 16)


def thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4 ... and all cores."""
    return tuple(sorted({cores, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)}))


def sweep(
    subjects: Sequence[Subject],
    token_ids: tuple[int, ...],
    cores: int,
    failures: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Every subject at every number of threads and every length up to len(token_ids), then at every batch.

    Subjects made for fixed lengths are left out, and of the batches, which are of the longest length with all
    cores, those that take one row at a time. One dictionary per point: name, threads, length, batch_size,
    samples_ms (raw, per call), p50_ms, p95_ms, rows_per_s (by the median). failures: see measure.
    """
    free = [subject for subject in subjects if not subject.lengths]
    batched = [one for one in free if one.target == "torch" or TARGETS[one.target].batch]
    longest = len(token_ids)
    lengths = (*(length for length in LENGTHS if length < longest), longest)
    points = []
    for threads in thread_counts(cores):
        workload = Workload(token_ids, lengths, ROUNDS, SAMPLES, WARM_UP, threads)
        points += _points(measure(free, workload, failures=failures), workload)
    for batch in BATCHES[1:]:
        calls = max(SAMPLES // 4, SAMPLES // batch)
        workload = Workload(token_ids, (longest,), ROUNDS, calls, WARM_UP, cores, batch)
        points += _points(measure(batched, workload, failures=failures), workload)
    return points


def _points(measured: dict[str, Measurement], workload: Workload) -> list[dict[str, Any]]:
    found = []
    for name, measurement in measured.items():
        for length, samples in measurement.samples_ms.items():
            at = percentiles(samples)
            found.append(
                {
                    "name": name,
                    "threads": workload.threads,
                    "length": length,
                    "batch_size": workload.batch_size,
                    "p50_ms": at["p50"],
                    "p95_ms": at["p95"],
                    "rows_per_s": 1e3 * workload.batch_size / at["p50"],
                    "samples_ms": list(samples),
                }
            )
    return found
