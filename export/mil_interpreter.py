"""Compute a saved Core ML package without a Mac, operation by operation.

The package is read back as it lies on disk: its program (MIL), its weights, and their decompression. Every
value that the program declares as fp16 is rounded to fp16; sums inside one operation are fp32. That proves
graph, weights and compression. It says nothing about Apple's runtime, its Neural Engine, or speed.
The operations themselves are in mil_operations.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillroom.errors import CheckFailed, UsageError, first_line
from stillroom.export.mil_operations import OPERATIONS

Interpreter = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def interpreter_of(package: Path) -> Interpreter:
    """Read a .mlpackage; return a function of inputs by name -> outputs by name.

    Raises UsageError when it cannot be read, CheckFailed naming an operation, or an argument of one, that is
    not known here.
    """
    function = read_program(package)
    constants: dict[str, Any] = {}
    steps = []
    for operation in function.operations:
        if operation.op_type == "const" or operation.op_type.startswith("constexpr_"):
            constants.update(_constants(operation))
        else:
            steps.append((operation, _known(operation)))

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {**constants, **{name: torch.from_numpy(array) for name, array in inputs.items()}}
        for operation, compute in steps:
            given = {
                name: [values[one.name] for one in value]
                if isinstance(value, list | tuple)
                else values[value.name]
                for name, value in operation.inputs.items()
                if value is not None
            }
            (output,) = operation.outputs
            values[output.name] = _rounded(compute(**given), output)
        return {output.name: values[output.name].numpy() for output in function.outputs}

    return run


def read_program(package: Path) -> Any:
    """The package's main function, with its weights. Raises UsageError when it cannot be read."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.proto import Model_pb2

    inside, spec = package / "Data" / "com.apple.CoreML", Model_pb2.Model()
    try:
        # Not by load_spec, which rewrites the package's manifest.
        spec.ParseFromString((inside / "model.mlmodel").read_bytes())
        weights = inside / "weights"
        return load(spec, spec.specificationVersion, file_weights_dir=str(weights)).functions["main"]
    except Exception as error:  # the reader raises whatever it stumbles over
        raise UsageError(f"{package} could not be read as a Core ML program: {first_line(error)}") from None


def _constants(operation: Any) -> dict[str, Any]:
    """Values of a constant, or of weights to be decompressed, by name."""
    found = operation.outputs[0].val
    if found is None:  # constexpr_...: coremltools' own decompression
        found = operation.materialized_val_inference()
    all_found = found if isinstance(found, tuple) else (found,)
    return {output.name: _tensor(value) for output, value in zip(operation.outputs, all_found, strict=True)}


def _tensor(value: Any) -> Any:
    """Numbers as tensors: floats in fp32, integers in int32. Strings as they are."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    kinds: dict[str, Any] = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.bool_}
    return torch.from_numpy(array.astype(kinds[array.dtype.kind]))


def _known(operation: Any) -> Callable[..., torch.Tensor]:
    kind = operation.op_type
    if kind not in OPERATIONS:
        raise CheckFailed(f"Core ML operation {kind!r} ({operation.name}) is unknown to the interpreter")
    given = {name for name, value in operation.inputs.items() if value is not None}
    if strange := given - inspect.signature(OPERATIONS[kind]).parameters.keys():
        raise CheckFailed(
            f"Core ML operation {kind!r}: argument {min(strange)!r} is unknown to the interpreter"
        )
    return OPERATIONS[kind]


def _rounded(value: torch.Tensor, output: Any) -> torch.Tensor:
    """As the program stores it: fp16 where it says so."""
    from coremltools.converters.mil.mil import types

    return value.half().float() if output.dtype == types.fp16 else value
