"""Target "onnx": convert a model to ONNX with torch.onnx, load the file with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError, first_line
from stillroom.extras import require, version_of
from stillroom.student import load_model, load_student

if TYPE_CHECKING:
    from torch import Tensor

    from stillroom.export.encoder import Attention, ExportModel
    from stillroom.export.options import ExportOptions
    from stillroom.export.portable import Portable
    from stillroom.export.rounding import Rounded
    from stillroom.export.targets import Predict
    from stillroom.task import TaskSpec

FILE = "model.onnx"
SCHEMES = ("fp32", "fp16", "int8-dynamic", "int8-static", "int4")
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
) -> Portable | None:
    """Write out/model.onnx for any batch, and any length or the one options say; config and tokenizer too.

    Returns what calibration text has shown of int8 without VNNI. Raises UsageError for an unknown scheme.
    """
    require("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    from stillroom.export.encoder import ExportModel
    from stillroom.export.hugging_face import write_hugging_face_files
    from stillroom.export.onnx_quantize import QUANTIZE

    if scheme not in SCHEMES:
        raise UsageError(f"onnx has no scheme {scheme!r}: there are {', '.join(SCHEMES)}")
    model = load_model(model_folder)
    wrapped = ExportModel(model, task.inputs, task.max_length, attention, options.shorten)
    write_hugging_face_files(model_folder, task, out)
    evidence, ranges = None, None
    if scheme.startswith("int8"):
        from stillroom.export.calibration import ranges_for
        from stillroom.export.int8_embedding import Int8Embedding
        from stillroom.export.portable import by_emulation
        from stillroom.export.static_int8 import PORTABLE_STEPS, Numerics, use_static_int8

        steps = PORTABLE_STEPS if options.portable else 127
        numerics = Numerics(options.signed and scheme == "int8-static", weight_steps=steps, flat=True)
        computable = ExportModel(model, task.inputs, task.max_length, shorten=options.shorten)
        if scheme == "int8-static":
            ranges = ranges_for(load_student(model_folder), model, computable, options, numerics)
        if options.calibration and not (options.portable or numerics.signed):
            evidence = by_emulation(computable, ranges, numerics, task.kind, options.calibration)
    if ranges is not None:
        use_static_int8(wrapped, ranges, numerics)
        wrapped.words = Int8Embedding(wrapped.words.weight)
    if scheme not in QUANTIZE:
        export_graph(wrapped, task, out / FILE, options.lengths)
        return evidence
    weights = _rounded_weights(model, task, wrapped, options) if scheme == "int4" else {}
    fp32 = out / "fp32.onnx"
    export_graph(wrapped, task, fp32, options.lengths)
    QUANTIZE[scheme](fp32, out / FILE, options)
    if weights:
        from stillroom.export.onnx_int4 import store_rounded

        store_rounded(fp32, out / FILE, weights)
    fp32.unlink()
    return evidence


def _rounded_weights(
    model: Any, task: TaskSpec, wrapped: ExportModel, options: ExportOptions
) -> dict[str, Rounded]:
    """Round what int4 stores in 4 bits, in place; none where onnxruntime's tool shall round it to nearest."""
    from stillroom.export.encoder import ExportModel
    from stillroom.export.options import rounds_to_nearest
    from stillroom.export.rounding import WORDS, round_to_blocks
    from stillroom.observe import linear_maps

    if rounds_to_nearest(options):
        return {}
    computable = ExportModel(model, task.inputs, task.max_length, shorten=options.shorten)
    # The head is a Gemm, which stays in fp32. Both models have the same weights.
    names = [WORDS, *(name for name in linear_maps(wrapped) if name.startswith("layers."))]
    return round_to_blocks(computable, options, names, signed=True)


def export_graph(wrapped: ExportModel, task: TaskSpec, path: Path, lengths: tuple[int, ...]) -> None:
    """Write an ExportModel as an ONNX file for any batch, and any length or the one given."""
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
    _keep_layer_norms_apart(program.model.graph)
    program.save(path)


def _keep_layer_norms_apart(graph: Any) -> None:
    """Write the additions before LayerNormalization as Sum, which onnxruntime leaves alone.

    It fuses an Add with a LayerNormalization into an operator of its own, which takes four times as long on
    a CPU as the two of them do (docs/log.md).
    """
    for node in graph.all_nodes():
        added = node.inputs[0].producer() if node.op_type == "LayerNormalization" else None
        if added is not None and added.op_type == "Add":
            added.op_type = "Sum"


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


def new_session(path: Path, threads: int, operators: str = "", profile: str = "") -> Any:
    """An onnxruntime.InferenceSession of a file. operators: a library of more of them, "" for none.

    profile: how the name of a profile begins that is written when the session's profiling ends, "" for none.

    Raises UsageError when onnxruntime refuses the file.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = bool(profile)
    if profile:
        options.profile_file_prefix = profile
    try:
        if operators:
            options.register_custom_ops_library(operators)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise UsageError(f"{path} could not be opened by onnxruntime: {first_line(error)}") from None
