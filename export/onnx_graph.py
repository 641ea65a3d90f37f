"""Target "onnx": convert a model to ONNX with torch.onnx, load the file with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError, first_line
from stillroom.extras import require, version_of
from stillroom.student import load_model

if TYPE_CHECKING:
    from torch import Tensor

    from stillroom.export.encoder import Attention, ExportModel
    from stillroom.export.options import ExportOptions
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


def convert(
    model_folder: Path,
    task: TaskSpec,
    scheme: str,
    out: Path,
    options: ExportOptions,
    attention: Attention = native_attention,
) -> None:
    """Write out/model.onnx for any batch, and any length or the one options say; config and tokenizer too.

    Raises UsageError for a scheme it does not know.
    """
    require("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    from stillroom.export.encoder import ExportModel
    from stillroom.export.hugging_face import write_hugging_face_files
    from stillroom.export.onnx_quantize import QUANTIZE

    if scheme not in ("fp32", *QUANTIZE):
        raise UsageError(f"onnx has no scheme {scheme!r}: there are fp32, {', '.join(QUANTIZE)}")
    wrapped = ExportModel(load_model(model_folder), task.inputs, task.max_length, attention, options.shorten)
    write_hugging_face_files(model_folder, task, out)
    if scheme == "fp32":
        _export_fp32(wrapped, task, out / FILE, options.lengths)
        return
    fp32 = out / "fp32.onnx"
    _export_fp32(wrapped, task, fp32, options.lengths)
    QUANTIZE[scheme](fp32, out / FILE, options)
    fp32.unlink()


def _export_fp32(wrapped: ExportModel, task: TaskSpec, path: Path, lengths: tuple[int, ...]) -> None:
    import torch

    # Two rows of several tokens, so that the exporter sees nothing it could take for a constant.
    example = torch.ones(2, lengths[0] if lengths else min(16, task.max_length), dtype=torch.long)
    axes = {0: torch.export.Dim("batch")}
    if not lengths:
        axes[1] = torch.export.Dim("length", max=task.max_length)
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


def import_runtime() -> None:
    """Load onnxruntime, so that its import can be timed apart from loading a model."""
    require("onnxruntime")
    import onnxruntime  # noqa: F401  (the import is the point)


def load(folder: Path, threads: int) -> Predict:
    """Open folder/model.onnx. Raises UsageError when onnxruntime refuses it."""
    return open_session(folder / FILE, threads)


def open_session(path: Path, threads: int) -> Predict:
    """Open a file of onnxruntime's as a callable. Raises UsageError when onnxruntime refuses it."""
    session = new_session(path, threads)
    names = [entry.name for entry in session.get_inputs()]

    def predict(*inputs: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["logits"], dict(zip(names, inputs, strict=True)))[0])

    return predict


def new_session(path: Path, threads: int, operators: str = "") -> Any:
    """An onnxruntime.InferenceSession of a file. operators: a library of more of them, "" for none.

    Raises UsageError when onnxruntime refuses the file.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        if operators:
            options.register_custom_ops_library(operators)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise UsageError(f"{path} could not be opened by onnxruntime: {first_line(error)}") from None
