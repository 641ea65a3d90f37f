"""Target "executorch": a .pte program for ExecuTorch's XNNPACK delegate, made with torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError, first_line
from stillroom.extras import require, version_of
from stillroom.files import write_json
from stillroom.scheme import INT4_BLOCK
from stillroom.student import load_model, load_student

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions
    from stillroom.export.targets import Predict
    from stillroom.task import TaskSpec

FILE = "model.pte"
RECORD_FILE = "model.etrecord"  # for ExecuTorch's profiler: names operators in the source
DELEGATION_FILE = "delegation.json"
SCHEMES = ("fp32", "int8-dynamic", "int8-static", "int4")


def tool_versions() -> dict[str, str]:
    """The tools whose version can change the file, or how it runs."""
    return {name: version_of(name) for name in ("torch", "transformers", "executorch", "torchao")}


def convert(model_folder: Path, task: TaskSpec, scheme: str, out: Path, options: ExportOptions) -> None:
    """Write out/model.pte: int64 inputs [1, tokens], logits float32 [1, labels]; and what it delegates.

    Raises UsageError for a scheme it does not know, and "int8-static" without calibration text.
    """
    if scheme not in SCHEMES:
        raise UsageError(f"executorch has no scheme {scheme!r}: there are {', '.join(SCHEMES)}")
    require("torch", "transformers", "executorch", "torchao")
    import torch

    from stillroom.export.encoder import ExportModel
    from stillroom.export.int8_embedding import Int8Embedding

    model = load_model(model_folder)
    wrapped = ExportModel(model, task.inputs, task.max_length, shorten=options.shorten)
    if scheme == "int8-static":
        from stillroom.export.calibration import ranges_for
        from stillroom.export.static_int8 import Numerics, use_static_int8

        numerics = Numerics(signed=True, outputs=True)  # as XNNPACK computes
        ranges = ranges_for(load_student(model_folder), model, wrapped, options, numerics)
        use_static_int8(wrapped, ranges, numerics)
    if scheme != "fp32":
        wrapped.words = Int8Embedding(wrapped.words.weight)
    example, axes = example_of(task, options)
    with torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        if scheme == "int4":
            _round_to_int4(wrapped, options)
        program = torch.export.export(wrapped, example, dynamic_shapes=axes)
        if scheme == "int8-dynamic":
            program = _quantized_as_it_comes(program, example, axes)
        lower(program, XnnpackPartitioner(), out)


def example_of(task: TaskSpec, options: ExportOptions) -> tuple[tuple[Any, ...], Any]:
    """Inputs to trace a model with, and which of their axes may vary: None or the tokens of each."""
    import torch

    length = options.lengths[0] if options.lengths else task.max_length
    example = tuple(torch.ones(1, length, dtype=torch.long) for _ in task.inputs)
    if options.lengths:
        return example, None
    return example, tuple({1: torch.export.Dim("length", min=2, max=task.max_length)} for _ in task.inputs)


def lower(program: Any, partitioner: Any, out: Path) -> None:
    """Write an exported program with what a partitioner takes of it delegated, its record and delegation."""
    from executorch.exir import to_edge_transform_and_lower

    from stillroom.export.delegation import delegation_of

    lowered = to_edge_transform_and_lower(program, partitioner=[partitioner], generate_etrecord=True)
    delegation = delegation_of(lowered.exported_program().graph_module)  # before memory planning
    found = lowered.to_executorch()
    found.save(str(out / FILE))
    found.get_etrecord().save(str(out / RECORD_FILE))
    write_json(out / DELEGATION_FILE, delegation)


def _quantized_as_it_comes(program: Any, example: Any, axes: Any) -> Any:
    """PT2E: the matrix products of an exported graph in 8 bits, activations in the range of each text."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    setting = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer = XNNPACKQuantizer().set_operator_type(torch.ops.aten.linear.default, setting)
    prepared = prepare_pt2e(program.module(), quantizer)
    prepared(*example)
    return torch.export.export(convert_pt2e(prepared), example, dynamic_shapes=axes)


def _round_to_int4(wrapped: Any, options: ExportOptions) -> None:
    """8da4w: weights in 4 bits, a scale for each 32; activations in 8 bits a token, as they come."""
    import torch
    from torchao.quantization import (
        Int8DynamicActivationIntxWeightConfig,
        IntxUnpackedToInt8Tensor,
        quantize_,
    )
    from torchao.quantization.granularity import PerGroup

    from stillroom.export.options import rounds_to_nearest
    from stillroom.export.rounding import round_to_blocks
    from stillroom.observe import linear_maps

    if not rounds_to_nearest(options):
        # XNNPACK takes no scale below 0 and keeps scales as bfloat16, which ours are.
        found = round_to_blocks(wrapped, options, list(linear_maps(wrapped)), signed=False)
        for name, rounded in found.items():
            zeros = torch.zeros_like(rounded.scales, dtype=torch.int8)
            weight = IntxUnpackedToInt8Tensor(
                rounded.steps, rounded.scales, zeros, torch.int4, (1, INT4_BLOCK), torch.float32,  # type: ignore[attr-defined]
                "int8_asym_per_token",
            )  # fmt: skip
            wrapped.get_submodule(name).weight = torch.nn.Parameter(weight, requires_grad=False)
        return
    setting = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=PerGroup(INT4_BLOCK),
    )
    quantize_(wrapped, setting, filter_fn=lambda module, _: _has_groups(module))


def _has_groups(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.Linear) and module.in_features % INT4_BLOCK == 0


def import_runtime() -> None:
    """Load ExecuTorch's runtime, so that its import can be timed apart from loading a model."""
    require("executorch")
    import executorch.runtime  # noqa: F401  (the import is the point)


def load(folder: Path, threads: int) -> Predict:
    """Open folder/model.pte. Raises UsageError when the runtime refuses it."""
    require("torch", "executorch")
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    _unsafe_reset_threadpool(threads)
    try:
        method = Runtime.get().load_program(folder / FILE).load_method("forward")
    except (RuntimeError, OSError) as error:
        raise UsageError(
            f"{folder / FILE} could not be opened by ExecuTorch {version_of('executorch')}: "
            f"{first_line(error)}"
        ) from None

    def predict(*inputs: np.ndarray) -> np.ndarray:
        (logits,) = method.execute([torch.from_numpy(array) for array in inputs])
        return np.array(logits.numpy())  # a copy: the program's memory is reused

    return predict
