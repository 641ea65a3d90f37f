"""Target "ort": onnxruntime's own file format, for an app whose onnxruntime was built with fewer operators.

The graph is the ONNX target's, optimized once and for all for onnxruntime on ARM. Beside it lies the list of
operators and types it needs, which an app build of onnxruntime takes (--include_ops_by_config).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.export import onnx_graph
from stillroom.extras import require

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions
    from stillroom.export.portable import Portable
    from stillroom.export.targets import Predict
    from stillroom.task import TaskSpec

FILE = "model.ort"
OPERATORS_FILE = "required_operators.config"


def convert(
    model_folder: Path, task: TaskSpec, scheme: str, out: Path, options: ExportOptions
) -> Portable | None:
    """Write out/model.ort and out/required_operators.config; as onnx_graph.convert otherwise."""
    require("onnxruntime")
    import onnxruntime
    from onnxruntime.tools.ort_format_model import create_config_from_models

    with tempfile.TemporaryDirectory() as scratch:
        source, operators = Path(scratch) / onnx_graph.FILE, Path(scratch) / OPERATORS_FILE
        evidence = onnx_graph.convert(model_folder, task, scheme, Path(scratch), options)
        settings = onnxruntime.SessionOptions()
        # One more level, layouts, would suit this CPU alone and unpack fp16 weights to fp32.
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        settings.optimized_model_filepath = str(out / FILE)
        settings.add_session_config_entry("session.save_model_format", "ORT")
        settings.log_severity_level = 3
        onnxruntime.InferenceSession(str(source), settings, providers=["CPUExecutionProvider"])
        create_config_from_models([out / FILE], operators, enable_type_reduction=True)
        lines = operators.read_text("utf-8").splitlines(keepends=True)
        own = "".join(line for line in lines if not line.startswith("#"))  # the rest names a scratch folder
        (out / OPERATORS_FILE).write_text(own, "utf-8")
    return evidence


def load(folder: Path, threads: int) -> Predict:
    """Open folder/model.ort. Raises UsageError when onnxruntime refuses it."""
    return onnx_graph.open_session(folder / FILE, threads)
