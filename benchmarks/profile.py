"""Where a file's time goes, by onnxruntime's own profile, and its arithmetic and memory traffic."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.export.onnx_graph import new_session

CALLS = 20
TOP = 10
# Operators whose work is products, by what they multiply in; of others only the traffic is counted.
FP32_PRODUCTS = ("Gemm", "MatMul", "FusedMatMul", "FusedGemm")
INT8_PRODUCTS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "QGemm", "QLinearMatMul",
                 "MatMulNBits")  # fmt: skip
ATTENTION = {"Attention": "fp32", "QAttention": "int8"}  # query, key, value, and attention itself
ITEM_BYTES = {"float": 4, "float16": 2, "double": 8, "int8": 1, "uint8": 1, "int32": 4, "int64": 8, "bool": 1}


def profile_file(path: Path, inputs: Sequence[np.ndarray], threads: int) -> dict[str, Any]:
    """Run an ONNX or ORT file on inputs CALLS times with onnxruntime's profiler on.

    Returns fp32_operations and int8_operations (two for each multiplication with its addition, of one call),
    traffic_bytes (what all operators read and write: of a table only what is taken from it), operators_ms (of
    one call), and the TOP operators by time: operator, calls, ms, share. The profiler itself costs some
    microseconds an operator. Raises UsageError when onnxruntime refuses the file.
    """
    return summary(kernel_events(path, inputs, threads, CALLS), CALLS)


def kernel_events(path: Path, inputs: Sequence[np.ndarray], threads: int, calls: int) -> list[dict[str, Any]]:
    """What onnxruntime's profiler says of every operator in so many calls of a file, as it writes it."""
    with tempfile.TemporaryDirectory() as scratch:
        session = new_session(path, threads, profile=str(Path(scratch) / "profile"))
        named = dict(zip((entry.name for entry in session.get_inputs()), inputs, strict=True))
        for _ in range(calls):
            session.run(None, named)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return [
        event
        for event in events
        if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time")
    ]


def summary(events: Sequence[dict[str, Any]], calls: int) -> dict[str, Any]:
    """profile_file's answer from the kernel events of so many calls."""
    times: dict[str, list[float]] = defaultdict(list)
    operations = {"fp32": 0, "int8": 0}
    traffic = 0
    for event in events:
        name = event["args"]["op_name"]
        times[name].append(event["dur"] / 1e3)
        traffic += traffic_bytes(event["args"])
        if name in ATTENTION:
            operations[ATTENTION[name]] += attention_operations(event["args"])
        for kind, names in (("fp32", FP32_PRODUCTS), ("int8", INT8_PRODUCTS)):
            if name in names:
                operations[kind] += product_operations(event["args"])
    whole = sum(map(sum, times.values()))
    rows: list[dict[str, Any]] = [
        {"operator": name, "calls": len(ms) // calls, "ms": sum(ms) / calls, "share": sum(ms) / whole}
        for name, ms in times.items()
    ]
    return {
        "fp32_operations": operations["fp32"] // calls,
        "int8_operations": operations["int8"] // calls,
        "traffic_bytes": traffic // calls,
        "operators_ms": whole / calls,
        "top": sorted(rows, key=lambda row: -float(row["ms"]))[:TOP],
    }


def _tensors(shapes: list[dict[str, list[int]]]) -> list[tuple[str, list[int]]]:
    return [next(iter(shape.items())) for shape in shapes if shape]


def product_operations(arguments: dict[str, Any]) -> int:
    """Of one product: two for each element of the output and each of the inner dimension."""
    (_, left), (_, out) = (_tensors(arguments[key])[0] for key in ("input_type_shape", "output_type_shape"))
    return 2 * math.prod(out) * left[-1]


def attention_operations(arguments: dict[str, Any]) -> int:
    """Of onnxruntime's fused attention: input [batch, tokens, hidden], weights [hidden, 3 * hidden]."""
    (_, given), (_, weights) = _tensors(arguments["input_type_shape"])[:2]
    batch, tokens, hidden = given
    mapped = 2 * batch * tokens * hidden * weights[-1]
    return mapped + 4 * batch * tokens * tokens * weights[-1] // 3


def traffic_bytes(arguments: dict[str, Any]) -> int:
    """What one operator reads and writes at most, were nothing kept in a cache."""
    read, written = (_tensors(arguments[key]) for key in ("input_type_shape", "output_type_shape"))
    if "Gather" in arguments["op_name"]:
        read = written  # of a table only what is taken
    return sum(ITEM_BYTES.get(kind, 4) * math.prod(shape) for kind, shape in (*read, *written))
