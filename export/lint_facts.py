"""What lint asks of a file, read from each format."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stillroom.artifact import Artifact
from stillroom.files import read_json


@dataclass(frozen=True)
class Facts:
    """attention_layers: None where a format has no operator for attention. operators: name -> count.

    most_negative: the smallest constant of one element, as a mask's is. left, delegated_flop_share: see
    delegation.py. load_bytes: 0 where it is not known.
    """

    dynamic: bool
    int64_inputs: bool
    fp32_embeddings: bool = False
    attention_layers: int | None = None
    fused_attention: int = 0
    largest_dimension: int = 0
    most_negative: float = 0.0
    opset: int = 0
    operators: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    delegated_flop_share: float = 1.0
    load_bytes: int = 0


def of_onnx(artifact: Artifact) -> Facts:
    """Read the graph."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(artifact.path)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather"} & weights.keys()
    operators: dict[str, int] = {}
    for node in graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    constants = [numpy_helper.to_array(tensor) for tensor in graph.initializer if np.prod(tensor.dims) == 1]
    constants += [
        numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    ]
    softmaxes = operators.get("Softmax", 0)
    fused = operators.get("Attention", 0) + operators.get("MultiHeadAttention", 0)
    inputs = [entry.type.tensor_type for entry in graph.input]
    return Facts(
        dynamic=any(not size.dim_value for tensor in inputs for size in tensor.shape.dim[1:]),
        int64_inputs=any(tensor.elem_type == onnx.TensorProto.INT64 for tensor in inputs),
        fp32_embeddings=any(
            weights[name].data_type == onnx.TensorProto.FLOAT and len(weights[name].dims) == 2
            for name in tables
        ),
        attention_layers=softmaxes + fused,
        fused_attention=fused,
        largest_dimension=max((size for tensor in weights.values() for size in tensor.dims), default=0),
        most_negative=_most_negative(constants),
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        operators=operators,
    )


def of_ort(artifact: Artifact) -> Facts:
    """The format has no reader in Python but the runtime: its list of operators, and what its scheme says."""
    operators: dict[str, int] = {}
    newest = 0
    for line in (artifact.folder / "required_operators.config").read_text("utf-8").splitlines():
        domain, opset, listed = line.split(";", 2)  # ai.onnx;23;Attention,Cast{"inputs": ...},Shape
        newest = max(newest, int(opset)) if domain == "ai.onnx" else newest
        operators |= dict.fromkeys(re.findall(r"[A-Z]\w+", re.sub(r"\{.*?\}\}", "", listed)), 1)
    return Facts(
        dynamic=not artifact.lengths,
        int64_inputs=True,
        fp32_embeddings=artifact.scheme == "fp32",
        opset=newest,
        operators=operators,
    )


def of_torchscript(artifact: Artifact) -> Facts:
    """Its graphs are code; what its scheme says."""
    return Facts(dynamic=True, int64_inputs=True, fp32_embeddings=artifact.scheme == "fp32")


def of_executorch(artifact: Artifact) -> Facts:
    """What was written when it was lowered."""
    delegation = read_json(artifact.folder / "delegation.json")
    return Facts(
        dynamic=not artifact.lengths,
        int64_inputs=True,
        fp32_embeddings=artifact.scheme == "fp32",
        left=delegation["left"],
        delegated_flop_share=delegation["delegated_flop_share"],
    )


def of_coreml(artifact: Artifact) -> Facts:
    """Read the program back."""
    from stillroom.export.mil_interpreter import read_program

    operators: dict[str, int] = {}
    constants, largest = [], 0
    for operation in read_program(artifact.path).operations:
        operators[operation.op_type] = operators.get(operation.op_type, 0) + 1
        for output in operation.outputs:
            if operation.op_type == "const" and np.size(output.val) == 1 and not isinstance(output.val, str):
                constants.append(np.asarray(output.val))
            known = [
                size for size in getattr(output, "shape", ()) or () if isinstance(size, int | np.integer)
            ]
            largest = max([largest, *map(int, known)])
    return Facts(
        dynamic=len(artifact.lengths) != 1,
        int64_inputs=False,
        largest_dimension=largest,
        most_negative=_most_negative(constants),
        operators=operators,
    )


def _most_negative(constants: list[Any]) -> float:
    numbers = [array for array in constants if array.size == 1 and array.dtype.kind == "f"]
    return min((float(array.reshape(())) for array in numbers), default=0.0)
