"""The graph we export: the model's own weights in the plainest arithmetic that gives the same logits.

Three things differ from the Hugging Face forward pass, none of them in the answer:
- the additive mask is finite and built here (transformers' mask code breaks several exporters, and a mask of
  -3.4e38 ruins static quantization);
- position and token-type embeddings are added once, at export, where they cannot change;
- the last layer is computed for the first token only, the one token a classification head reads. Keys and
  values still see the whole text. For 3 layers that removes about a quarter of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.families import family_of

MASKED = -10000.0  # exp() of it is 0 in fp32 and fp16, and it still fits fp16

# (query, key, value: [batch, tokens, hidden]; bias: [batch, 1, 1, tokens]; heads) -> [batch, queries, hidden]
Attention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


def plain_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention in matmul and softmax (https://arxiv.org/abs/1706.03762)."""
    batch, _, hidden = query.shape
    query = query.view(batch, -1, heads, hidden // heads).transpose(1, 2)
    key = key.view(batch, -1, heads, hidden // heads).permute(0, 2, 3, 1)
    value = value.view(batch, -1, heads, hidden // heads).transpose(1, 2)
    weights = torch.softmax(query @ key * (hidden // heads) ** -0.5 + bias, dim=-1)
    return (weights @ value).transpose(1, 2).reshape(batch, -1, hidden)


@dataclass(frozen=True)
class LayerParts:
    """The modules of one layer, whatever its family calls them."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    attention_out: nn.Module
    attention_norm: nn.Module
    up: nn.Module
    activation: nn.Module
    down: nn.Module
    output_norm: nn.Module


def layer_parts(model_type: str, layer: Any) -> LayerParts:
    """Find the modules of one Hugging Face encoder layer."""
    if model_type == "distilbert":
        attention, ffn = layer.attention, layer.ffn
        return LayerParts(
            attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin, layer.sa_layer_norm,
            ffn.lin1, ffn.activation, ffn.lin2, layer.output_layer_norm,
        )  # fmt: skip
    own, out = layer.attention.self, layer.attention.output
    return LayerParts(
        own.query, own.key, own.value, out.dense, out.LayerNorm,
        layer.intermediate.dense, layer.intermediate.intermediate_act_fn,
        layer.output.dense, layer.output.LayerNorm,
    )  # fmt: skip


class EncoderLayer(nn.Module):
    """One transformer layer. first_only: answer for the first token alone."""

    def __init__(self, parts: LayerParts, heads: int, attention: Attention, first_only: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = parts.query, parts.key, parts.value
        self.attention_out, self.attention_norm = parts.attention_out, parts.attention_norm
        self.up, self.activation, self.down = parts.up, parts.activation, parts.down
        self.output_norm = parts.output_norm
        self.heads, self.attend, self.first_only = heads, attention, first_only

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """states [batch, length, hidden] -> the same, or [batch, 1, hidden] when first_only."""
        asking = states[:, :1] if self.first_only else states
        context = self.attend(self.query(asking), self.key(states), self.value(states), bias, self.heads)
        attended = self.attention_norm(self.attention_out(context) + asking)
        return torch.as_tensor(self.output_norm(self.down(self.activation(self.up(attended))) + attended))


class ExportModel(nn.Module):
    """input_ids, attention_mask[, token_type_ids], each int64 [batch, length] -> logits [batch, labels].

    max_length: tokens; positions beyond it are left out. shorten: compute the last layer for the first token
    only (see the module's docstring).
    """

    def __init__(
        self,
        model: Any,
        inputs: tuple[str, ...],
        max_length: int,
        attention: Attention = plain_attention,
        shorten: bool = True,
    ) -> None:
        super().__init__()
        config, family = model.config, family_of(model.config.model_type)
        base = getattr(model, family.base)
        layers: Any = base
        for name in family.layers.split("."):
            layers = getattr(layers, name)
        self.words, self.norm = base.embeddings.word_embeddings, base.embeddings.LayerNorm
        self.pad_id = int(config.pad_token_id) if family.first_position_after_pad else None
        first, rows = (0, max_length) if self.pad_id is None else (self.pad_id, max_length + 1)
        positions = base.embeddings.position_embeddings.weight.detach()[first : first + rows].clone()
        kinds = getattr(base.embeddings, "token_type_embeddings", None)
        self.kinds = kinds if "token_type_ids" in inputs else None
        if kinds is not None and self.kinds is None:
            positions += kinds.weight.detach()[0]
        self.positions = nn.Parameter(positions, requires_grad=False)
        last = len(layers) - 1
        self.layers = nn.ModuleList(
            EncoderLayer(
                layer_parts(config.model_type, layer), int(config.num_attention_heads), attention,
                first_only=shorten and index == last,
            )
            for index, layer in enumerate(layers)
        )  # fmt: skip
        self.head = _head(model)
        self.eval()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        bias = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * MASKED
        if self.pad_id is None:
            positions = self.positions[: input_ids.shape[1]]
        else:  # RoBERTa counts real tokens only, from 1; a padding token, even one in the text, is at 0
            real = (input_ids != self.pad_id).to(torch.int64)
            positions = self.positions[torch.cumsum(real, dim=1) * real]
        embedded = self.words(input_ids) + positions
        if self.kinds is not None:
            embedded = embedded + self.kinds(token_type_ids)
        states = self.norm(embedded)
        for layer in self.layers:
            states = layer(states, bias)
        return torch.as_tensor(self.head(states))


class _DistilBertHead(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.first, self.last = model.pre_classifier, model.classifier

    def forward(self, states: Tensor) -> Tensor:
        return torch.as_tensor(self.last(torch.relu(self.first(states[:, 0]))))


def _head(model: Any) -> nn.Module:
    """states [batch, length, hidden] -> logits [batch, labels], reading the first token."""
    if model.config.model_type == "distilbert":
        return _DistilBertHead(model)
    if model.config.model_type == "bert":
        return nn.Sequential(model.bert.pooler, model.classifier)
    head: nn.Module = model.classifier  # the RoBERTa family's head takes the first token itself
    return head
