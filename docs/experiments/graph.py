"""Which ONNX graph is fastest in each scheme? python docs/experiments/graph.py MODEL [OUT.json]

Exports one model folder in every scheme as several graphs and times all of them side by side, each in fresh
processes: the native Attention operator of opset 23; the same with its LayerNormalizations where
onnxruntime fuses them with the addition before; matmul and softmax; and "fused", what torch's older exporter
and onnxruntime's transformer optimizer make of the model (Attention, SkipLayerNormalization, BiasGelu), for
which there is no static scheme. Static ranges and errors are of the golden texts.
"p50 ratio": to the native graph's p50 in the same round, median and range over the rounds. The findings are
in docs/log.md.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.measure import Measurement, Subject, measure
from stillroom.benchmarks.statistics import percentiles
from stillroom.benchmarks.workload import Workload
from stillroom.export import onnx_graph, onnx_quantize
from stillroom.export.encoder import ExportModel, plain_attention
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.options import ExportOptions
from stillroom.export.targets import TARGETS, load_predictor
from stillroom.files import write_json
from stillroom.quiet import quiet
from stillroom.student import load_model, load_student
from stillroom.task import TaskSpec
from stillroom.tokens import load_tokenizer

NATIVE = "native Attention"
NORMS_FUSED = "native, LayerNormalization fused"
GRAPHS = (NATIVE, NORMS_FUSED, "matmul and softmax", "fused")
LENGTHS = (64, 128)
THREADS, ROUNDS, SAMPLES = 2, 5, 40


def fusable_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, heads: int
) -> torch.Tensor:
    """The form of attention that onnxruntime's optimizer knows from BERT's first PyTorch code."""
    size = query.shape[-1] // heads

    def split(states: torch.Tensor) -> torch.Tensor:
        return states.view(states.size(0), -1, heads, size).permute(0, 2, 1, 3)

    scores = torch.matmul(split(query), split(key).transpose(-1, -2)) / size**0.5 + bias
    context = torch.matmul(torch.softmax(scores, -1), split(value)).permute(0, 2, 1, 3).contiguous()
    return context.view(context.size(0), -1, heads * size)


def fused_fp32(model: Path, task: TaskSpec, out: Path) -> None:
    """The older exporter's graph after onnxruntime's optimizer."""
    from onnxruntime.transformers.optimizer import optimize_model

    loaded: Any = load_model(model)
    wrapped = ExportModel(loaded, task.inputs, task.max_length, fusable_attention).eval()
    names = list(task.inputs)
    torch.onnx.export(
        wrapped,
        tuple(torch.ones(2, 16, dtype=torch.long) for _ in names),
        str(out),
        dynamo=False,
        opset_version=17,
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
    )
    config = loaded.config
    heads, hidden = int(config.num_attention_heads), int(config.hidden_size)
    optimize_model(str(out), "bert", num_heads=heads, hidden_size=hidden).save_model_to_file(str(out))
    infer_types(out)


def infer_types(path: Path) -> None:
    """Note in a file the types of what its contrib operators return: the fp16 converter asks for them."""
    import onnx
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    onnx.save(SymbolicShapeInference.infer_shapes(onnx.load(path), auto_merge=True), path)


def let_norms_fuse(path: Path) -> None:
    """Write the additions before LayerNormalization as Add, as they came from torch."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Sum":
            node.op_type = "Add"
    onnx.save(model, path)


def int8_dynamic_with_attention(source: Path, out: Path, options: ExportOptions) -> None:
    """As onnx_quantize.int8_dynamic, and the fused Attention operator as QAttention."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        out,
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=[*onnx_quantize.WITH_WEIGHTS, "Attention"],
    )


def export(model: Path, task: TaskSpec, scheme: str, graph: str, out: Path, options: ExportOptions) -> None:
    """Write out/model.onnx: one scheme of one graph."""
    out.mkdir()
    if not graph.startswith("fused"):
        attention = onnx_graph.native_attention if graph == NATIVE else plain_attention
        onnx_graph.convert(model, task, scheme, out, options, attention)
        if graph == NORMS_FUSED:
            let_norms_fuse(out / onnx_graph.FILE)
        return
    quantize = {**onnx_quantize.QUANTIZE, "int8-dynamic": int8_dynamic_with_attention}
    with quiet():
        fused_fp32(model, task, out / "fp32.onnx")
        if scheme == "fp32":
            (out / "fp32.onnx").rename(out / onnx_graph.FILE)
        else:
            quantize[scheme](out / "fp32.onnx", out / onnx_graph.FILE, options)
            (out / "fp32.onnx").unlink()


def p50_ms(found: Measurement, length: int) -> list[float]:
    """The p50 of every round."""
    samples = found.samples_ms[length]
    return [percentiles(samples[at : at + SAMPLES])["p50"] for at in range(0, len(samples), SAMPLES)]


def main(model: Path, result: Path | None) -> None:
    task = load_student(model).task
    tokenizer = load_tokenizer(model, task.max_length)
    texts = [np.array([tokenizer.encode(text).ids]) for text in GOLDEN_TEXTS]
    rows = tuple((ids, np.ones_like(ids), np.zeros_like(ids))[: len(task.inputs)] for ids in texts)
    options = ExportOptions(calibration=rows)
    expected = load_predictor("torch", model, THREADS)
    wanted = [expected(*row) for row in rows]
    subjects: dict[tuple[str, str], Subject] = {}
    facts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for scheme in TARGETS["onnx"].schemes:
            for graph in GRAPHS[: 3 if scheme == "int8-static" else 4]:
                out = Path(scratch) / f"{scheme} {graph}"
                export(model, task, scheme, graph, out, options)
                got = load_predictor("onnx", out, THREADS)
                errors = [np.abs(got(*row) - right).max() for row, right in zip(rows, wanted, strict=True)]
                facts.append(
                    {
                        "scheme": scheme,
                        "graph": graph,
                        "size_bytes": (out / onnx_graph.FILE).stat().st_size,
                        "max_abs_error": float(max(errors)),
                    }
                )
                subjects[scheme, graph] = Subject(f"{scheme}, {graph}", "onnx", str(out), task.inputs)
        ids = tuple(np.resize(texts[-1][0], max(LENGTHS)).tolist())
        found = measure(
            list(subjects.values()), Workload(ids, LENGTHS, ROUNDS, SAMPLES, warmup=5, threads=THREADS)
        )
    head = [f"p50 at {length}, ms | p50 ratio" for length in LENGTHS]
    print(f"| scheme | graph | MB | max abs error | {' | '.join(head)} |")
    print(f"| --- | --- |{' ---: |' * (2 + 2 * len(LENGTHS))}")
    for row_facts in facts:
        name = f"{row_facts['scheme']}, {row_facts['graph']}"
        native = found[f"{row_facts['scheme']}, {NATIVE}"]
        cells = []
        for length in LENGTHS:
            mine = p50_ms(found[name], length)
            row_facts[f"samples_ms_{length}"] = found[name].samples_ms[length]
            ratios = [own / other for own, other in zip(mine, p50_ms(native, length), strict=True)]
            cells.append(
                f"{median(mine):.2f} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(
            f"| {row_facts['scheme']} | {row_facts['graph']} | {row_facts['size_bytes'] / 1e6:.1f} "
            f"| {row_facts['max_abs_error']:.2g} | {' | '.join(cells)} |"
        )
    machine = describe_machine(THREADS)
    versions = ", ".join(f"{tool} {machine['versions'][tool]}" for tool in ("torch", "onnx", "onnxruntime"))
    print(
        f"\n{machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, {THREADS} threads, {versions}"
    )
    if result is not None:
        write_json(result, {"machine": machine, "model": model.name, "graphs": facts})


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None)
