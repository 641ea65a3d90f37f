"""Target "onnx": convert a model to ONNX with torch.onnx, load the file with onnxruntime."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.errors import UsageError, first_line
from stillroom.extras import require, version_of
from stillroom.student import load_model

if TYPE_CHECKING:
    from torch import Tensor

    from stillroom.export.encoder import Attention, ExportModel
    from stillroom.export.targets import Predict
    from stillroom.task import TaskSpec

FILE = "model.onnx"
OPSET = 23  # the first with a native Attention operator, which onnxruntime computes without transposes


def tool_versions() -> dict[str, str]:
    """The tools whose version can change the file, or how it runs."""
    return {name: version_of(name) for name in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")}


def native_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, heads: int) -> Tensor:
    """ONNX's own Attention operator (opset 23): [batch, tokens, hidden] in and out."""
    import torch

    mask = bias.expand(-1, -1, query.shape[1], -1)  # onnxruntime does not broadcast over the queries
    return torch.onnx.ops.attention(query, key, value, mask, q_num_heads=heads, kv_num_heads=heads)[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' chatter about optional packages and deprecations; errors still raise."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def convert(
    model_folder: Path,
    task: TaskSpec,
    scheme: str,
    out: Path,
    *,
    shorten: bool = True,
    attention: Attention = native_attention,
) -> None:
    """Write out/model.onnx with dynamic batch and length. Raises UsageError for a scheme it does not know."""
    if scheme not in ("fp32", "int8-dynamic"):
        raise UsageError(f"onnx has no scheme {scheme!r}")
    require("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    from stillroom.export.encoder import ExportModel

    wrapped = ExportModel(load_model(model_folder), task.inputs, task.max_length, attention, shorten)
    with _quiet():
        if scheme == "fp32":
            _export_fp32(wrapped, task, out / FILE)
            return
        fp32 = out / "fp32.onnx"
        _export_fp32(wrapped, task, fp32)
        _quantize_int8_dynamic(fp32, out / FILE)
        fp32.unlink()


def _export_fp32(wrapped: ExportModel, task: TaskSpec, path: Path) -> None:
    import torch

    # Two rows of several tokens, so that the exporter sees nothing it could take for a constant.
    example = torch.ones(2, min(16, task.max_length), dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=task.max_length)}
    program = torch.onnx.export(
        wrapped,
        tuple(example.clone() for _ in task.inputs),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(task.inputs),
        output_names=["logits"],
        dynamic_shapes=tuple(axes for _ in task.inputs),
        external_data=False,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of the machine that exported
    program.save(path)


def _quantize_int8_dynamic(source: Path, out: Path) -> None:
    """Signed 8-bit weights per output channel; activations unsigned 8-bit, scaled as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        out,
        per_channel=True,
        weight_type=QuantType.QInt8,
        # Attention is left out: rewriting it gives a QAttention that does not load.
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
    )


def import_runtime() -> None:
    """Load onnxruntime, so that its import can be timed apart from loading a model."""
    require("onnxruntime")
    import onnxruntime  # noqa: F401  (the import is the point)


def load(folder: Path, threads: int) -> Predict:
    """Open folder/model.onnx. Raises UsageError when onnxruntime refuses it."""
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(folder / FILE), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise UsageError(f"{folder / FILE} could not be opened by onnxruntime: {first_line(error)}") from None
    names = [entry.name for entry in session.get_inputs()]

    def predict(*inputs: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["logits"], dict(zip(names, inputs, strict=True)))[0])

    return predict
