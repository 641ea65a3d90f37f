"""How much of an ExecuTorch program its delegate computes, and what is left to the portable operators."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

BOOKKEEPING = {"getitem", "sym_size", "alloc"}  # not computations


def delegation_of(graph_module: Any) -> dict[str, Any]:
    """Nodes and floating-point operations of a lowered program that are delegated, and the rest by name.

    flops: two per multiply-add of the matrix products, at the longest input; everything else is next to
    nothing beside them.
    """
    inside, outside = [], []
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and node.name.startswith("lowered_module_"):
            inside += _calls(getattr(graph_module, node.target).original_module.graph)
        elif node.op == "call_function" and "call_delegate" not in str(node.target):
            outside.append(node)
    left = [node for node in outside if _name(node) not in BOOKKEEPING]
    delegated_flops, left_flops = (sum(map(flops_of, nodes)) for nodes in (inside, left))
    return {
        "delegated_nodes": len(inside),
        "left_nodes": len(left),
        "delegated_node_share": len(inside) / max(1, len(inside) + len(left)),
        "delegated_flops": delegated_flops,
        "left_flops": left_flops,
        "delegated_flop_share": delegated_flops / max(1, delegated_flops + left_flops),
        "left": dict(Counter(map(_name, left)).most_common()),
    }


def flops_of(node: Any) -> int:
    """Of one matrix product in a graph; 0 for anything else."""
    name = _name(node)
    shapes = [_shape(argument) for argument in node.args]
    if name in ("linear", "mm", "bmm", "matmul") and len(shapes) >= 2:
        return 2 * math.prod(_shape(node)) * shapes[0][-1]
    if name == "addmm":
        return 2 * math.prod(_shape(node)) * shapes[1][-1]
    return 0


def _calls(graph: Any) -> list[Any]:
    return [node for node in graph.nodes if node.op == "call_function"]


def _name(node: Any) -> str:
    """ "aten.addmm.default" -> "addmm" """
    parts = str(getattr(node.target, "__name__", node.target)).split(".")
    return parts[-2] if len(parts) > 1 else parts[0]


def _shape(value: Any) -> list[int]:
    """Of a node's tensor, an unknown size at its upper bound."""
    found = getattr(value, "meta", {}).get("val")
    return [_largest(size) for size in getattr(found, "shape", ())]


def _largest(size: Any) -> int:
    if isinstance(size, int):
        return size
    bounds = size.node.shape_env.bound_sympy(size.node.expr)
    return int(bounds.upper)
