"""A results document like that of a real run, with invented numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.measure import Measurement
from stillroom.benchmarks.results import RowFacts, result_row
from stillroom.benchmarks.workload import Workload
from stillroom.kinds import KINDS

WORKLOAD = Workload(
    token_ids=tuple(range(1, 129)),
    lengths=(16, 64, 128),
    rounds=5,
    samples=12,
    warmup=3,
    threads=2,
    evaluation=((101, 7, 102), (101, 7, 8, 102)) * 500,
)
TEACHER_ACCURACY = 0.9306


def invented_measurement(name: str, p50_ms: float, load_ms: float, resident_bytes: int) -> Measurement:
    """Samples about p50_ms at the longest length, with a tail and a difference between processes."""
    generator = np.random.default_rng(len(name))
    shape = (WORKLOAD.rounds, WORKLOAD.samples)

    def samples(length: int) -> tuple[float, ...]:
        per_process = generator.normal(1, 0.02, (WORKLOAD.rounds, 1))
        tail = generator.exponential(0.03, shape)
        return tuple(float(ms) for ms in (p50_ms * (length / 128) ** 1.1 * (per_process + tail)).ravel())

    def per_process(value: float) -> tuple[float, ...]:
        return tuple(float(sample) for sample in value * generator.normal(1, 0.05, WORKLOAD.rounds))

    return Measurement(
        name=name,
        import_samples_ms=per_process(90),
        load_samples_ms=per_process(load_ms),
        first_samples_ms=per_process(p50_ms * 1.7),
        samples_ms={length: samples(length) for length in WORKLOAD.lengths},
        peak_rss_bytes=(resident_bytes,) * WORKLOAD.rounds,
        baseline_rss_bytes=(60_000_000,) * WORKLOAD.rounds,
        page_cache="dropped",
        cpu_ms={length: per_process(p50_ms * (length / 128) * 1.8) for length in WORKLOAD.lengths},
        runtime_bytes=36_000_000,
        evaluation_samples_ms=(p50_ms * 0.3,) * len(WORKLOAD.evaluation),
    )


def row(
    facts: tuple[str, str, str | None, str, str],
    size_mb: float,
    accuracy: float,
    flips: float | None,
    error: float | None,
    timing: tuple[float, float, int],
) -> dict[str, Any]:
    """facts: name, role, source, target, scheme. timing: p50 ms, load ms, peak resident MB."""
    name, role, source, target, scheme = facts
    return result_row(
        RowFacts(
            name=name,
            role=role,
            source=source,
            target=target,
            scheme=scheme,
            parameters=22_700_000 if role == "teacher" else 17_300_000,
            size_bytes=int(size_mb * 1e6),
            scores={"accuracy": accuracy, "macro_f1": accuracy - 0.0031},
            flip_rate=flips,
            max_abs_error=error,
            quality={
                "calibration_error": 0.031,
                "against": {
                    "teacher": {
                        "retention_low": 0.97,
                        "retention_high": 1.01,
                        "gained": 20,
                        "lost": 27,
                        "p_value": 0.38,
                    }
                },
                "flips_by_label": {
                    "negative": {"rows": 889, "flips": 3},
                    "positive": {"rows": 932, "flips": 5},
                },
            },
        ),
        "accuracy",
        TEACHER_ACCURACY,
        invented_measurement(name, timing[0], timing[1], timing[2] * 1_000_000),
    )


@pytest.fixture
def invent_run(sample_results: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Makes another run: its name, kind, seed, and per row its first score and its evaluation pass.

    scores: row name -> score, for the rows the run shall have. passes_ms: row name -> milliseconds.
    """

    def invent(
        scores: dict[str, float],
        name: str = "demo",
        kind: str = "text-classification",
        seed: int = 0,
        passes_ms: dict[str, float] | None = None,
        rows: int = 1000,
    ) -> dict[str, Any]:
        results = copy.deepcopy(sample_results)
        results["recipe"] = {"name": name, "seed": seed, "student": {"epochs": 3}}
        results["task"]["kind"] = kind
        if kind == "regression":
            results["task"]["labels"] = ["score"]
        results["workload"]["evaluation_rows"] = rows
        results["tokenization_samples_ms"] = None
        for section in ("models", "artifacts"):
            results[section] = [found for found in results[section] if found["name"] in scores]
            for found in results[section]:
                score = scores[found["name"]]
                found["scores"] = {metric: 0.5 for metric in KINDS[kind].scores} | {KINDS[kind].metric: score}
                found["retention"] = score / scores["teacher"]
                found["evaluation_pass_ms"] = (passes_ms or {}).get(found["name"])
                found["evaluation_samples_ms"] = None
        return results

    return invent


@pytest.fixture
def sample_results() -> dict[str, Any]:
    models = [
        row(
            ("teacher", "teacher", None, "torch", "fp32"),
            90.9,
            TEACHER_ACCURACY,
            None,
            None,
            (21.4, 310, 512),
        ),
        row(
            ("student-plain", "baseline", "teacher", "torch", "fp32"),
            69.4,
            0.9012,
            0.071,
            6.2,
            (11.2, 240, 470),
        ),
        row(("student", "student", "teacher", "torch", "fp32"), 69.4, 0.9209, 0.031, 2.4, (11.0, 240, 468)),
    ]
    artifacts = [
        row(
            ("teacher-onnx-fp32", "teacher", "teacher", "onnx", "fp32"),
            91.1,
            TEACHER_ACCURACY,
            0,
            3e-6,
            (17.6, 130, 240),
        ),
        row(("onnx-fp32", "student", "student", "onnx", "fp32"), 69.5, 0.9209, 0, 2.1e-6, (8.8, 98, 190)),
        row(
            ("onnx-int8-dynamic", "student", "student", "onnx", "int8-dynamic"),
            17.5,
            0.9203,
            0.0044,
            0.31,
            (3.1, 41, 104),
        ),
    ]
    return {
        "schema_version": 3,
        "stillroom_version": "0.1.0",
        "recipe": {"name": "demo", "seed": 1},
        "created": "2026-01-02T03:04:05+00:00",
        "task": {"labels": ["negative", "positive"], "max_length": 128, "kind": "text-classification"},
        "data": {
            "rows_read": 11000,
            "dropped_low_confidence": 0,
            "dropped_duplicates": 179,
            "conflicting_duplicates": 3,
            "train_rows": 8000,
            "validation_rows": 1000,
            "test_rows": 1821,
            "train_rows_before_cap": 8000,
            "labels": {"negative": {"train": 3900, "test": 889}, "positive": {"train": 4100, "test": 932}},
            "fixed_answer": "positive",
            "fixed_answer_score": 0.512,
        },
        "models": models,
        "artifacts": artifacts,
        "workload": WORKLOAD.to_dict(),
        "noise": {
            "subject": "onnx-int8-dynamic",
            "rounds": 5,
            "by_length": [
                {"length": length, "p50_ms": [3.1, 3.12], "difference": 0.0065, "floor": 0.02}
                for length in WORKLOAD.lengths
            ],
        },
        "tokenization_samples_ms": [0.04] * len(WORKLOAD.evaluation),
        "sweeps": [
            {
                "name": name,
                "threads": threads,
                "length": length,
                "batch_size": batch,
                "p50_ms": ms,
                "p95_ms": 1.1 * ms,
                "rows_per_s": 1000 * batch / ms,
                "samples_ms": [ms] * 4,
            }
            for name in ("onnx-fp32", "onnx-int8-dynamic")
            for threads, length, batch, ms in [
                (1, 16, 1, 1.0),
                (1, 128, 1, 6.0),
                (2, 16, 1, 0.6),
                (2, 128, 1, 3.1),
                (2, 128, 4, 11.0),
            ]
        ],
        "limits": {
            "peaks": {
                "threads": 2,
                "fp32_operations_per_s": [3.0e11, 3.2e11],
                "int8_operations_per_s": [1.0e12, 1.1e12],
                "bandwidth_bytes_per_s": [4.0e10, 4.4e10],
            },
            "profiles": {
                "onnx-int8-dynamic": {
                    "fp32_operations": 90_000_000,
                    "int8_operations": 980_000_000,
                    "traffic_bytes": 18_800_000,
                    "operators_ms": 2.9,
                    "top": [{"operator": "DynamicQuantizeMatMul", "calls": 12, "ms": 1.4, "share": 0.48}],
                }
            },
        },
        "sensitivity": [
            {"group": "layer 0, attention", "mean_squared_error": 0.004},
            {"group": "everything", "mean_squared_error": 0.02},
        ],
        "parity": {
            "onnx-int8-dynamic": [
                {"case": "test split, one by one", "max_abs_error": 0.31, "flip_rate": 0.0044, "passed": True}
            ]
        },
        "emulated": [
            {
                "name": "onnx-int8-dynamic",
                "core": "a76",
                "status": "ok",
                "runtime": "1.32.0",
                "texts": 32,
                "max_abs_error": 0.006,
                "flips": 0,
                "tokens": 64,
                "instructions": 35_330_000,
            }
        ],
        "app": {
            "artifact": "onnx-int8-dynamic",
            "abi": "arm64-v8a",
            "runtime": "onnxruntime 1.29.0",
            "parts_bytes": {
                "dex": 240_000,
                "runtime": 32_000_000,
                "model": 17_530_000,
                "tokenizer": 110_000,
                "resources": 30_000,
                "other": 50_000,
            },
        },
        "estimates": [
            {
                "name": "onnx-int8-dynamic",
                "phone": "2016 budget",
                "cores": "2x big",
                "instructions": False,
                "low_ms": 27.5,
                "high_ms": 110.0,
                "bound": "compute",
            }
        ],
        "tolerances": {
            "teacher-onnx-fp32": {"max_abs_error": 1e-4, "decided_flip_rate": 0.0},
            "onnx-fp32": {"max_abs_error": 1e-4, "decided_flip_rate": 0.0},
            "onnx-int8-dynamic": {"max_abs_error": 2.0, "decided_flip_rate": 0.01},
        },
        "machine": describe_machine(threads=2),
        "seconds": {"teacher": 300.0, "student": 120.0, "baseline": 90.0},
        "notes": ["Numbers invented for a test."],
    }
