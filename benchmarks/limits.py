"""What this machine could do at best, measured, and how much of that a file reaches (a roofline).

Williams, Waterman and Patterson 2009, https://doi.org/10.1145/1498765.1498785: no call can take less than its
arithmetic at the peak of the machine's matrix products, nor less than its memory traffic at full bandwidth.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.apart import apart
from stillroom.benchmarks.measure import Subject
from stillroom.benchmarks.profile import profile_file
from stillroom.benchmarks.workload import Workload, inputs_at
from stillroom.export.onnx_graph import new_session
from stillroom.export.targets import TARGETS
from stillroom.extras import require

SHAPES = ((128, 768, 3072), (512, 1024, 4096), (1024, 2048, 2048))  # rows, inputs, outputs
REPEATS = 7
CALLS = 3
COPIED_BYTES = 128 * 2**20  # far beyond the caches


def best_seconds(call: Callable[[], Any], calls: int = CALLS) -> float:
    """The fastest of a few calls: what interrupts one of them is not the kernel's."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def product(shape: tuple[int, int, int], kind: str, threads: int, folder: Path) -> Callable[[], Any]:
    """One product in onnxruntime with constant weights, packed beforehand. kind: "fp32", or "int8": uint8
    activations by int8 weights, scaled to fp32."""
    require("onnx")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rows, inputs, outputs = shape
    random = np.random.default_rng(0)
    given: dict[str, np.ndarray]
    if kind == "fp32":
        constants = {"b": random.standard_normal((inputs, outputs)).astype(np.float32)}
        given, element = {"a": random.standard_normal((rows, inputs)).astype(np.float32)}, TensorProto.FLOAT
        node = helper.make_node("MatMul", ["a", "b"], ["y"])
    else:
        constants = {
            "b": random.integers(-127, 128, (inputs, outputs)).astype(np.int8),
            "sa": np.array(0.02, np.float32), "sb": np.full(outputs, 0.01, np.float32),
            "za": np.array(128, np.uint8), "zb": np.zeros(outputs, np.int8),
        }  # fmt: skip
        given, element = {"a": random.integers(0, 256, (rows, inputs)).astype(np.uint8)}, TensorProto.UINT8
        names = ["a", "b", "sa", "sb", "za", "zb"]
        node = helper.make_node("MatMulIntegerToFloat", names, ["y"], domain="com.microsoft")
    graph = helper.make_graph(
        [node], "product",
        [helper.make_tensor_value_info("a", element, [rows, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    path = folder / f"{kind}-{rows}-{inputs}-{outputs}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    session = new_session(path, threads)
    return lambda: session.run(None, given)


def machine_peaks(threads: int) -> dict[str, Any]:
    """Peaks of this machine with so many threads, as raw samples: REPEATS of each, taken in turn.

    fp32_operations_per_s, int8_operations_per_s: the fastest of three large products in onnxruntime, two
    operations for each multiplication with its addition. bandwidth_bytes_per_s: copying 128 MB a thread
    outside the caches, reads and writes both counted.
    """
    found: dict[str, list[float]] = {
        "fp32_operations_per_s": [],
        "int8_operations_per_s": [],
        "bandwidth_bytes_per_s": [],
    }
    source = [np.ones(COPIED_BYTES // 8) for _ in range(threads)]
    copies = [np.empty_like(array) for array in source]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(threads) as pool:
        products = {
            kind: [(shape, product(shape, kind, threads, Path(scratch))) for shape in SHAPES]
            for kind in ("fp32", "int8")
        }
        for _ in range(REPEATS):
            for kind, calls in products.items():
                best = max(2 * int(np.prod(shape)) / best_seconds(call) for shape, call in calls)
                found[f"{kind}_operations_per_s"].append(float(best))
            seconds = best_seconds(lambda: list(pool.map(np.copyto, copies, source)))
            found["bandwidth_bytes_per_s"].append(2 * COPIED_BYTES * threads / seconds)
    return {"threads": threads, **found}


def beside_limit(p50_ms: float, profile: dict[str, Any], peaks: dict[str, Any]) -> dict[str, float]:
    """The least time a call could take by arithmetic and by memory, in ms, and which share of p50_ms that is.

    The larger of the two bounds it; peaks are medians of their samples.
    """
    peak = {name: float(np.median(samples)) for name, samples in peaks.items() if name != "threads"}
    compute_ms = 1e3 * (
        profile["fp32_operations"] / peak["fp32_operations_per_s"]
        + profile["int8_operations"] / peak["int8_operations_per_s"]
    )
    memory_ms = 1e3 * profile["traffic_bytes"] / peak["bandwidth_bytes_per_s"]
    return {
        "compute_limit_ms": compute_ms,
        "memory_limit_ms": memory_ms,
        "reached": max(compute_ms, memory_ms) / p50_ms,
        "peak_fp32_fraction": 1e3 * profile["fp32_operations"] / p50_ms / peak["fp32_operations_per_s"],
        "peak_int8_fraction": 1e3 * profile["int8_operations"] / p50_ms / peak["int8_operations_per_s"],
        "bandwidth_fraction": 1e3 * profile["traffic_bytes"] / p50_ms / peak["bandwidth_bytes_per_s"],
    }


def limits_beside(subjects: Sequence[Subject], workload: Workload) -> dict[str, Any]:
    """limits_of for those of the subjects that onnxruntime runs at any length, in a process of its own.

    With the workload's threads, at its longest length.
    """
    files = [
        (subject.name, str(Path(subject.folder) / TARGETS[subject.target].file))
        for subject in subjects
        if subject.target in TARGETS
        and TARGETS[subject.target].runtime == "onnxruntime"
        and subject.inputs == subjects[0].inputs
        and not subject.lengths
    ]
    inputs = [*inputs_at(workload, max(workload.lengths), subjects[0].inputs).values()]
    (found,) = apart(limits_of, [(files, inputs, workload.threads)])
    return dict(found)


def limits_of(files: Sequence[tuple[str, str]], inputs: Sequence[np.ndarray], threads: int) -> dict[str, Any]:
    """Peaks of the machine and a profile of each file (name, path); to be called in a process of its own."""
    return {
        "peaks": machine_peaks(threads),
        "profiles": {name: profile_file(Path(path), inputs, threads) for name, path in files},
    }
