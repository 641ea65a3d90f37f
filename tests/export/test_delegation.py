"""What a program delegates, counted by hand on models small enough for that."""

from __future__ import annotations

from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from stillroom.export.delegation import delegation_of


class Small(nn.Module):
    """A product, a normalization that XNNPACK has not, and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first = nn.Embedding(11, 8), nn.Linear(8, 16)
        self.norm, self.last = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(torch.relu(self.first(self.table(ids)))))


def lowered(model: nn.Module, example: Any, axes: Any = None, delegate: bool = True) -> Any:
    program = torch.export.export(model.eval(), example, dynamic_shapes=axes)
    partitioners = [XnnpackPartitioner()] if delegate else []
    return to_edge_transform_and_lower(program, partitioner=partitioners).exported_program().graph_module


IDS = torch.zeros(1, 5, dtype=torch.long)
FLOPS_OF_A_TOKEN = 2 * (8 * 16 + 16 * 3)


def test_products_are_delegated_and_the_rest_is_named() -> None:
    found = delegation_of(lowered(Small(), (IDS,)))
    assert found["delegated_flops"] == 5 * FLOPS_OF_A_TOKEN and found["left_flops"] == 0
    assert found["delegated_flop_share"] == 1.0
    assert found["left"]["embedding"] == found["left"]["native_layer_norm"] == 1
    assert found["left_nodes"] == sum(found["left"].values())
    total = found["delegated_nodes"] + found["left_nodes"]
    assert found["delegated_node_share"] == found["delegated_nodes"] / total
    assert found["delegated_nodes"] >= 3  # two products and relu


def test_without_a_delegate_all_is_left() -> None:
    found = delegation_of(lowered(Small(), (IDS,), delegate=False))
    assert (found["delegated_nodes"], found["delegated_flops"], found["delegated_flop_share"]) == (0, 0, 0.0)
    assert found["left_flops"] == 5 * FLOPS_OF_A_TOKEN
    assert {"embedding", "relu", "native_layer_norm"} <= set(found["left"])


def test_a_dynamic_length_counts_at_its_longest() -> None:
    axes = ({1: torch.export.Dim("length", min=2, max=64)},)
    found = delegation_of(lowered(Small(), (IDS,), axes))
    assert found["delegated_flops"] + found["left_flops"] == 64 * FLOPS_OF_A_TOKEN


class Products(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.bmm(left, right)


def test_batched_products_count_every_batch() -> None:
    example = (torch.zeros(3, 4, 5), torch.zeros(3, 5, 7))
    found = delegation_of(lowered(Products(), example))
    assert found["delegated_flops"] + found["left_flops"] == 2 * 3 * 4 * 5 * 7
