"""Word embeddings in 8 bits for runtimes whose own quantized embedding does not do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Embedding(nn.Module):
    """int8 rows with one scale a row; computed by two lookups and a product, which every runtime has.

    torch's quantized embedding fails for batches, torchao's at lowering to ExecuTorch.
    """

    def __init__(self, weight: Tensor) -> None:
        """weight: [vocabulary, hidden]. A row is off by at most half a 127th of its largest value."""
        super().__init__()
        scale = weight.detach().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        self.rows: Tensor
        self.scale: Tensor
        self.register_buffer("rows", torch.round(weight.detach() / scale).to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """ids int64 [...] -> fp32 [..., hidden]"""
        return F.embedding(ids, self.rows).to(torch.float32) * F.embedding(ids, self.scale)
