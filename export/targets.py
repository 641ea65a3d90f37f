"""The one table of targets, and export(): a model folder -> an artifact in a format and a scheme."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from stillroom.artifact import Artifact, save_artifact
from stillroom.errors import UsageError
from stillroom.export import onnx_graph, torch_model
from stillroom.files import require_replaceable, sha256_file, staged_folder
from stillroom.model_folder import check_model_folder
from stillroom.scheme import SCHEMES
from stillroom.student import load_student
from stillroom.task import TaskSpec


class Predict(Protocol):
    """Inputs in the task's order, each int64 [batch, length] -> logits float32 [batch, labels]."""

    def __call__(self, *inputs: np.ndarray) -> np.ndarray: ...


class Convert(Protocol):
    """Write the converted model of a folder into out."""

    def __call__(
        self, model_folder: Path, task: TaskSpec, scheme: str, out: Path, *, shorten: bool
    ) -> None: ...


@dataclass(frozen=True)
class Target:
    """A file format with its runtime. Modules named in needs are what convert and load import."""

    name: str
    file: str
    schemes: tuple[str, ...]
    needs: tuple[str, ...]
    convert: Convert
    load: Callable[[Path, int], Predict]
    import_runtime: Callable[[], None]
    tool_versions: Callable[[], dict[str, str]]


TARGETS = {
    "onnx": Target(
        "onnx",
        onnx_graph.FILE,
        ("fp32", "int8-dynamic"),
        ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"),
        onnx_graph.convert,
        onnx_graph.load,
        onnx_graph.import_runtime,
        onnx_graph.tool_versions,
    ),
}


def find_target(target: str, scheme: str) -> Target:
    """Look a cell of the table up. Raises UsageError naming the cells there are."""
    cells = [f"{name}-{known}" for name, row in TARGETS.items() for known in row.schemes]
    if target not in TARGETS or scheme not in TARGETS[target].schemes:
        raise UsageError(f"cannot export {target}-{scheme}: there are {', '.join(cells)}")
    return TARGETS[target]


def split_name(name: str) -> tuple[str, str]:
    """ "onnx-int8-dynamic" -> ("onnx", "int8-dynamic"). Raises UsageError for a cell that is not there."""
    target, _, scheme = name.partition("-")
    find_target(target, scheme)
    return target, scheme


def export(model: str | Path, target: str, scheme: str, out: str | Path, *, shorten: bool = True) -> Artifact:
    """Convert a model folder into out (replaced whole, or left as it was) and describe it there.

    shorten=False keeps the last layer's unused tokens, as other exporters do: the teacher's reference file.
    Raises UsageError for an unknown cell, a folder that is not a model, or a missing package.
    """
    model, out, row = Path(model), Path(out), find_target(target, scheme)
    require_replaceable(out, "artifact.json")
    student = load_student(model)
    shapes = check_model_folder(model).tensors
    with staged_folder(out) as partial:
        row.convert(model, student.task, scheme, partial, shorten=shorten)
        artifact = Artifact(
            folder=partial,
            file=row.file,
            target=target,
            scheme=scheme,
            task=student.task,
            size_bytes=(partial / row.file).stat().st_size,
            sha256=sha256_file(partial / row.file),
            parameters=sum(int(np.prod(shape)) for shape in shapes.values()),
            source_sha256=student.weights_sha256,
            tool_versions=row.tool_versions(),
            tolerance=asdict(SCHEMES[scheme].tolerance),
        )
        save_artifact(artifact)
    return replace(artifact, folder=out)


def import_runtime(target: str) -> None:
    """Import what loading this target needs ("torch" is the model folder itself)."""
    (torch_model if target == "torch" else TARGETS[target]).import_runtime()


def load_predictor(target: str, folder: Path, threads: int) -> Predict:
    """Open an artifact folder, or for "torch" a model folder, as one plain callable."""
    if target == "torch":
        return torch_model.load(folder, threads)
    if target not in TARGETS:
        raise UsageError(f"no target {target!r}: there are {', '.join(TARGETS)}")
    return TARGETS[target].load(folder, threads)
