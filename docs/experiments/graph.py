"""Which graph is fastest? python docs/experiments/graph.py runs/demo/student

Exports one model with and without the native Attention operator and the shortened last layer, in fp32 and
int8, and times all of them side by side, each in fresh processes. The findings are in docs/log.md.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.measure import Subject, measure, percentiles
from stillroom.benchmarks.workload import Workload
from stillroom.export import onnx_graph
from stillroom.export.encoder import plain_attention
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.options import ExportOptions
from stillroom.student import load_student
from stillroom.tokens import load_tokenizer

GRAPHS = {"native Attention": onnx_graph.native_attention, "matmul and softmax": plain_attention}
LENGTHS = (64, 128)


def main(model: Path) -> None:
    task = load_student(model).task
    ids = load_tokenizer(model, task.max_length).encode(GOLDEN_TEXTS[-1]).ids
    with tempfile.TemporaryDirectory() as scratch:
        subjects: list[Subject] = []
        for scheme in ("fp32", "int8-dynamic"):
            for graph, attention in GRAPHS.items():
                for shorten in (True, False):
                    name = f"{scheme}, {graph}, {'first token only' if shorten else 'whole last layer'}"
                    out = Path(scratch) / str(len(subjects))
                    out.mkdir()
                    onnx_graph.convert(model, task, scheme, out, ExportOptions(shorten=shorten), attention)
                    subjects.append(Subject(name, "onnx", str(out), task.inputs))
        workload = Workload(tuple(np.resize(ids, max(LENGTHS)).tolist()), LENGTHS, 5, 40, 5, 2)
        found = measure(subjects, workload)
    print("| graph | p50 at 64, ms | p50 at 128, ms |\n| --- | ---: | ---: |")
    for name, measured in found.items():
        medians = [percentiles(measured.samples_ms[length])["p50"] for length in LENGTHS]
        print(f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} |")
    machine = describe_machine(workload.threads)
    versions = ", ".join(f"{tool} {machine['versions'][tool]}" for tool in ("torch", "onnx", "onnxruntime"))
    print(f"\n{machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, 2 threads, {versions}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
