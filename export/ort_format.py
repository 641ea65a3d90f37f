"""Target "ort": onnxruntime's own file format, for an app whose onnxruntime was built with fewer operators.

The graph is the ONNX target's, optimized once and for all for onnxruntime on ARM. Beside it lies the list of
operators and types it needs, which an app build of onnxruntime takes (--include_ops_by_config).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.export import onnx_graph
from stillroom.extras import require

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions
    from stillroom.export.targets import Predict
    from stillroom.task import TaskSpec

FILE = "model.ort"
OPERATORS_FILE = "required_operators.config"


def convert(model_folder: Path, task: TaskSpec, scheme: str, out: Path, options: ExportOptions) -> None:
    """Write out/model.ort and out/required_operators.config. Raises UsageError for an unknown scheme."""
    require("onnxruntime")
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    from stillroom.export.quiet import quiet

    with tempfile.TemporaryDirectory() as scratch:
        onnx_graph.convert(model_folder, task, scheme, Path(scratch), options)
        with quiet():
            convert_onnx_models_to_ort(
                Path(scratch) / onnx_graph.FILE,
                Path(scratch) / "ort",
                optimization_styles=[OptimizationStyle.Fixed],
                target_platform="arm",  # leaves out layouts that only x86 has
                enable_type_reduction=True,
            )
        made = Path(scratch) / "ort"
        shutil.copyfile(made / "model.ort", out / FILE)
        (operators,) = made.glob("*.config")
        lines = operators.read_text("utf-8").splitlines(keepends=True)
        own = "".join(line for line in lines if not line.startswith("#"))  # the rest names a scratch folder
        (out / OPERATORS_FILE).write_text(own, "utf-8")


def load(folder: Path, threads: int) -> Predict:
    """Open folder/model.ort. Raises UsageError when onnxruntime refuses it."""
    return onnx_graph.open_session(folder / FILE, threads)
