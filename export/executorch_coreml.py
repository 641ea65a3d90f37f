"""Target "executorch_coreml": a .pte program for ExecuTorch's Core ML delegate, which Apple's systems have.

Made on any machine. Off a Mac nothing can open it: it is "lowered, not run".
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.errors import UsageError
from stillroom.export import executorch_program
from stillroom.export.coreml_package import oldest_ios
from stillroom.extras import require, version_of
from stillroom.student import load_model

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions
    from stillroom.export.targets import Predict
    from stillroom.task import TaskSpec

FILE = executorch_program.FILE
SCHEMES = ("fp16",)
NOT_RUN = "lowered, not run"


def proof() -> str:
    """How load() computes answers on this machine."""
    return "run" if sys.platform == "darwin" else NOT_RUN


def tool_versions() -> dict[str, str]:
    """The tools whose version can change the file, or how it runs."""
    return {name: version_of(name) for name in ("torch", "transformers", "executorch", "coremltools")}


def convert(model_folder: Path, task: TaskSpec, scheme: str, out: Path, options: ExportOptions) -> None:
    """Write out/model.pte: int64 inputs [1, tokens], logits float32 [1, labels]; and what it delegates.

    Raises UsageError for a scheme it does not know, and an iOS version that cannot load it.
    """
    if scheme not in SCHEMES:
        raise UsageError(f"executorch_coreml has no scheme {scheme!r}: there is {', '.join(SCHEMES)}")
    ios = oldest_ios(scheme, options)
    require("torch", "transformers", "executorch", "coremltools")
    import torch

    from stillroom.export.encoder import ExportModel

    wrapped = ExportModel(load_model(model_folder), task.inputs, task.max_length, shorten=options.shorten)
    example, axes = executorch_program.example_of(task, options)
    with torch.no_grad():
        import coremltools
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner

        settings = CoreMLBackend.generate_compile_specs(
            compute_precision=coremltools.precision.FLOAT16,
            minimum_deployment_target=getattr(coremltools.target, f"iOS{ios}"),
        )
        program = torch.export.export(wrapped, example, dynamic_shapes=axes)
        executorch_program.lower(program, CoreMLPartitioner(compile_specs=settings), out)


def import_runtime() -> None:
    """Load ExecuTorch's runtime. Raises UsageError off a Mac."""
    _require_apple(FILE)
    executorch_program.import_runtime()


def load(folder: Path, threads: int) -> Predict:
    """Open folder/model.pte. Raises UsageError off a Mac."""
    _require_apple(folder / FILE)
    return executorch_program.load(folder, threads)


def _require_apple(path: str | Path) -> None:
    if proof() != "run":
        raise UsageError(f"{path} is {NOT_RUN}: its Core ML delegate is on macOS and iOS only")
