"""How faithful are sentence embeddings in static int8? python docs/experiments/embeddings.py RUN [OUT.json]

MiniLM (the demo's pretrained encoder) with its last hidden states averaged over each text, exported to ONNX
in fp32 and in static int8, both run by onnxruntime: the cosine between the two embeddings of each of 1,000
texts of RUN's test split; ranges are measured on its training rows. "onnxruntime's own": quantize_static as
it comes (QDQ, every operator, ranges minmax) on the same fp32 file, calibrated on training rows padded to the
longest.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from stillroom.benchmarks.machine import describe_machine
from stillroom.export.calibration import measured_ranges
from stillroom.export.encoder import ExportModel
from stillroom.export.int8_embedding import Int8Embedding
from stillroom.export.onnx_graph import export_graph, native_attention, open_session
from stillroom.export.options import ExportOptions
from stillroom.export.static_int8 import Numerics, use_static_int8
from stillroom.extras import resolve_source
from stillroom.files import write_json
from stillroom.observe import calibration_of
from stillroom.recipe import load_recipe
from stillroom.step_data import encode
from stillroom.steps import Run
from stillroom.student import load_model
from stillroom.task import TaskSpec
from stillroom.tokens import padded_inputs

LENGTH, TEXTS, CALIBRATION = 128, 1000, 512
TASK = TaskSpec(("no", "yes"), LENGTH, ("input_ids", "attention_mask"))
RULES = ("minmax", "mse", "best")


class Mean(torch.nn.Module):
    """states [1, tokens, hidden] -> their mean [1, hidden]: texts are run one by one, without padding."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states.mean(dim=1)


def pooled(model: Any, **chosen: Any) -> ExportModel:
    """The encoder with a mean in the place of its head."""
    wrapped = ExportModel(model, TASK.inputs, LENGTH, shorten=False, **chosen)
    wrapped.head = Mean()
    return wrapped


class Padded(CalibrationDataReader):  # type: ignore[misc]
    """Calibration texts as most people feed them: all padded to the longest."""

    def __init__(self, inputs: dict[str, np.ndarray]) -> None:
        self.rows = iter([{name: array[at : at + 1] for name, array in inputs.items()} for at in range(64)])

    def get_next(self) -> Any:
        return next(self.rows, None)


def stock(fp32: Path, out: Path, inputs: dict[str, np.ndarray]) -> None:
    """onnxruntime's quantize_static as its documentation calls it."""
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(out), Padded(inputs), per_channel=True)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths)


def main() -> None:
    run, source = Run(Path(sys.argv[1])), resolve_source(load_recipe("demo").teacher.source)
    teacher = run.folder / "teacher"  # its tokenizer is MiniLM's
    tokens, _ = encode(run, teacher, TASK, "test")
    batches = [tuple(padded_inputs(tokens, [row], TASK.inputs).values()) for row in range(TEXTS)]
    training, _ = encode(run, teacher, TASK, "train")
    calibration = calibration_of(training, TASK.inputs, CALIBRATION)
    model, numerics, found = load_model(source, num_labels=2), Numerics(flat=True), {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def embeddings(path: Path) -> np.ndarray:
            predict = open_session(path, 2)
            return np.concatenate([predict(*batch) for batch in batches])

        fp32 = folder / "fp32.onnx"
        export_graph(pooled(model, attention=native_attention), TASK, fp32, ())
        wanted = embeddings(fp32)
        padded = padded_inputs(training, np.arange(64), TASK.inputs)
        stock(fp32, folder / "stock.onnx", padded)
        found["onnxruntime's own"] = cosines(wanted, embeddings(folder / "stock.onnx"))
        for rule in RULES:
            ranges = measured_ranges(
                pooled(model), ExportOptions(calibration=calibration, ranges=rule), numerics
            )
            rounded = pooled(model, attention=native_attention)
            use_static_int8(rounded, ranges, numerics)
            rounded.words = Int8Embedding(rounded.words.weight)
            export_graph(rounded, TASK, folder / f"{rule}.onnx", ())
            found[rule] = cosines(wanted, embeddings(folder / f"{rule}.onnx"))
    for name, values in found.items():
        print(f"{name:<20} cosine to fp32: mean {values.mean():.4f}, least {values.min():.4f} of {TEXTS:,}")
    if len(sys.argv) > 2:
        rows = {name: {"mean": float(it.mean()), "least": float(it.min())} for name, it in found.items()}
        write_json(Path(sys.argv[2]), {"machine": describe_machine(2), "texts": TEXTS, "cosine": rows})


if __name__ == "__main__":
    main()
