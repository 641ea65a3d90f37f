"""The one table of targets, and export(): a model folder -> an artifact in a format and a scheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from stillroom.artifact import Artifact, save_artifact
from stillroom.errors import UsageError
from stillroom.export import (
    coreml_package,
    executorch_coreml,
    executorch_program,
    onnx_graph,
    ort_format,
    torch_model,
    torchscript,
)
from stillroom.export.options import ExportOptions, check_rounding
from stillroom.export.portable import Portable, by_construction
from stillroom.files import require_replaceable, sha256_of, size_of, staged_folder
from stillroom.model_folder import check_model_folder
from stillroom.quiet import quiet
from stillroom.scheme import SCHEMES, rounds_weights
from stillroom.student import load_student
from stillroom.task import TaskSpec


class Predict(Protocol):
    """Inputs in the task's order, each int64 [batch, length] -> logits float32 [batch, labels]."""

    def __call__(self, *inputs: np.ndarray) -> np.ndarray: ...


# Write the converted model of a folder, for a task and in a scheme, into a folder; None, or what was seen of
# how it answers on other CPUs.
Convert = Callable[[Path, TaskSpec, str, Path, ExportOptions], Portable | None]


@dataclass(frozen=True)
class Target:
    """A file format with its runtime. needs: modules that convert and load import.

    runtime: the package that opens the file. runtime_may_be_older: than the one the file was made for.
    batch: it takes several rows at once. lengths: how many input lengths a file may be made for, beside any.
    proof, differs: see Artifact. note: what people should know before they choose it.
    """

    file: str
    schemes: tuple[str, ...]
    needs: tuple[str, ...]
    runtime: str
    convert: Convert
    load: Callable[[Path, int], Predict]
    import_runtime: Callable[[], None]
    tool_versions: Callable[[], dict[str, str]]
    batch: bool
    lengths: int
    runtime_may_be_older: bool = True
    proof: str = "run"
    differs: str = ""
    note: str = ""


TARGETS = {
    "onnx": Target(
        file=onnx_graph.FILE,
        schemes=("fp32", "fp16", "int8-dynamic", "int8-static", "int4"),
        needs=("torch", "transformers", "onnx", "onnxscript", "onnxruntime"),
        runtime="onnxruntime",
        convert=onnx_graph.convert,
        load=onnx_graph.load,
        import_runtime=onnx_graph.import_runtime,
        tool_versions=onnx_graph.tool_versions,
        batch=True,
        lengths=1,
    ),
    "ort": Target(
        file=ort_format.FILE,
        schemes=("fp32", "fp16", "int8-dynamic", "int8-static"),  # its format has no 4-bit tensors
        needs=("torch", "transformers", "onnx", "onnxscript", "onnxruntime"),
        runtime="onnxruntime",
        convert=ort_format.convert,
        load=ort_format.load,
        import_runtime=onnx_graph.import_runtime,
        tool_versions=onnx_graph.tool_versions,
        batch=True,
        lengths=1,
        runtime_may_be_older=False,
        differs="onnxruntime writes other bytes in every run; the ONNX file it is made from is the same",
    ),
    "torchscript": Target(
        file=torchscript.FILE,
        schemes=torchscript.SCHEMES,
        needs=("torch", "transformers"),
        runtime="torch",
        convert=torchscript.convert,
        load=torchscript.load,
        import_runtime=torchscript.import_runtime,
        tool_versions=torchscript.tool_versions,
        batch=True,
        lengths=0,
        differs="a second export in the same process numbers its classes on; in a new one it is the same",
        note="deprecated by PyTorch in favour of ExecuTorch",
    ),
    "executorch": Target(
        file=executorch_program.FILE,
        schemes=executorch_program.SCHEMES,
        needs=("torch", "transformers", "executorch", "torchao"),
        runtime="executorch",
        convert=executorch_program.convert,
        load=executorch_program.load,
        import_runtime=executorch_program.import_runtime,
        tool_versions=executorch_program.tool_versions,
        batch=False,
        lengths=1,
        runtime_may_be_older=False,
    ),
    "executorch_coreml": Target(
        file=executorch_coreml.FILE,
        schemes=executorch_coreml.SCHEMES,
        needs=("torch", "transformers", "executorch", "coremltools"),
        runtime="executorch",
        convert=executorch_coreml.convert,
        load=executorch_coreml.load,
        import_runtime=executorch_coreml.import_runtime,
        tool_versions=executorch_coreml.tool_versions,
        batch=False,
        lengths=1,
        runtime_may_be_older=False,
        proof=executorch_coreml.proof(),
        differs="ExecuTorch names the package inside by a random identifier",
    ),
    "coreml": Target(
        file=coreml_package.FILE,
        schemes=tuple(coreml_package.OLDEST_IOS),
        needs=("torch", "transformers", "coremltools"),
        runtime="coremltools",
        convert=coreml_package.convert,
        load=coreml_package.load,
        import_runtime=coreml_package.import_runtime,
        tool_versions=coreml_package.tool_versions,
        batch=False,
        lengths=coreml_package.MAX_LENGTHS,
        proof=coreml_package.proof(),
    ),
}


DEFAULTS = ExportOptions()


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


def export(
    model: str | Path, target: str, scheme: str, out: str | Path, options: ExportOptions = DEFAULTS
) -> Artifact:
    """Convert a model folder into out (replaced whole, or left as it was) and describe it there.

    Raises UsageError for an unknown cell, options that it has not, a folder that is not a model, or a
    missing package.
    """
    model, out, row = Path(model), Path(out), find_target(target, scheme)
    require_replaceable(out, "artifact.json")
    student = load_student(model)
    check_lengths(target, options.lengths, student.task.max_length)
    if rounds_weights(scheme):
        check_rounding(options)
    task = replace(student.task, max_length=(options.lengths or (student.task.max_length,))[-1])
    # A file made for shorter texts than its source reads is measured on what it will read of them.
    texts = tuple(tuple(array[:, : task.max_length] for array in batch) for batch in options.calibration)
    options = replace(options, calibration=texts)
    shapes = check_model_folder(model).tensors
    with staged_folder(out) as partial:
        with quiet():
            seen = row.convert(model, task, scheme, partial, options)
        portable = asdict(seen or by_construction(target, scheme, options))
        artifact = Artifact(
            folder=partial,
            file=row.file,
            target=target,
            scheme=scheme,
            task=task,
            size_bytes=size_of(partial / row.file),
            sha256=sha256_of(partial / row.file),
            parameters=sum(int(np.prod(shape)) for shape in shapes.values()),
            source_sha256=student.weights_sha256,
            lengths=options.lengths,
            proof=row.proof,
            differs=row.differs,
            tool_versions=row.tool_versions(),
            tolerance=asdict(SCHEMES[scheme].tolerance),
            portable=portable.pop("portable"),
            portable_evidence=portable,
        )
        save_artifact(artifact)
        if options.text_input:
            from stillroom.export.text_input import write_text_model

            write_text_model(artifact, model)
    return replace(artifact, folder=out)


def check_lengths(target: str, lengths: Sequence[int], max_length: int) -> None:
    """Raise UsageError for lengths that a target cannot have or the model cannot read."""
    most = TARGETS[target].lengths
    if len(lengths) > most:
        can = f"at most {most}" if most else "none: its files take any length"
        raise UsageError(f"{len(lengths)} fixed lengths: {target} can have {can}")
    if any(not 2 <= length <= max_length for length in lengths) or list(lengths) != sorted(set(lengths)):
        raise UsageError(f"lengths {list(lengths)}: expected rising numbers from 2 to {max_length} tokens")


def import_runtime(target: str) -> None:
    """Import what loading this target needs ("torch" is the model folder itself)."""
    (torch_model if target == "torch" else TARGETS[target]).import_runtime()


def opens_here(target: str) -> bool:
    """False for a file that this machine can make but not open."""
    return TARGETS[target].proof != executorch_coreml.NOT_RUN


def open_artifact(artifact: Artifact, threads: int) -> Predict:
    """Open an artifact for inputs of any length it takes, with token_type_ids or without."""
    predict = load_predictor(artifact.target, artifact.folder, threads, artifact.lengths)
    return completing(predict, len(artifact.task.inputs))


def load_predictor(target: str, folder: Path, threads: int, lengths: Sequence[int] = ()) -> Predict:
    """Open an artifact folder, or for "torch" a model folder, as one plain callable.

    lengths: those the file was made for; inputs are padded to the next of them.
    """
    if target == "torch":
        return torch_model.load(folder, threads)
    if target not in TARGETS:
        raise UsageError(f"no target {target!r}: there are {', '.join(TARGETS)}")
    predict = TARGETS[target].load(folder, threads)
    return padding(predict, tuple(lengths)) if lengths else predict


def padding(predict: Predict, lengths: tuple[int, ...]) -> Predict:
    """The same for inputs of any length up to the longest of lengths: zeros behind, which the mask hides."""

    def padded(*inputs: np.ndarray) -> np.ndarray:
        width = inputs[0].shape[1]
        fits = [length for length in lengths if length >= width]
        if not fits:
            raise ValueError(f"{width} tokens: this file takes at most {lengths[-1]}")
        return predict(*(np.pad(array, ((0, 0), (0, fits[0] - width))) for array in inputs))

    return padded


def completing(predict: Predict, count: int) -> Predict:
    """The same with token_type_ids or without, whether the model has count = 3 inputs or 2.

    Where it has them, none means the first text: zeros. Where it has not, zeros are left out, and others are
    a ValueError: the model could not tell two texts apart.
    """

    def completed(*inputs: np.ndarray) -> np.ndarray:
        if count == 3 and len(inputs) == 2:
            inputs = (*inputs, np.zeros_like(inputs[0]))
        if count == 2 and len(inputs) == 3:
            if inputs[2].any():
                raise ValueError("token_type_ids other than 0: this model does not read them")
            inputs = inputs[:2]
        return predict(*inputs)

    return completed
