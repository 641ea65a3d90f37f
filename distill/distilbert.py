"""A BERT as a DistilBERT, which has no token types and no pooler: same answers, another class.

DistilBERT (https://arxiv.org/abs/1910.01108) is what apps and libraries know; a student trained as BERT on
single texts has only ever seen token type 0, whose embedding is a constant that the positions can carry.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stillroom.errors import UsageError

LAYER_NORM_EPS = 1e-12  # written into DistilBERT's code
ACTIVATIONS = ("gelu", "relu")

# parts of a layer in BERT -> in DistilBERT
LAYER_PARTS = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
# tensors of the masked-LM head in BERT -> in DistilBERT
HEAD_PARTS = {
    "cls.predictions.transform.dense.weight": "vocab_transform.weight",
    "cls.predictions.transform.dense.bias": "vocab_transform.bias",
    "cls.predictions.transform.LayerNorm.weight": "vocab_layer_norm.weight",
    "cls.predictions.transform.LayerNorm.bias": "vocab_layer_norm.bias",
    "cls.predictions.decoder.weight": "vocab_projector.weight",
    "cls.predictions.decoder.bias": "vocab_projector.bias",
}


def distilbert_from_bert(model: Any) -> Any:
    """A DistilBertForMaskedLM or DistilBertModel with the answers of a BertForMaskedLM or BertModel.

    For inputs of token type 0; the pooler is dropped. The weights are copies, in eval mode. Raises UsageError
    for a model that DistilBERT cannot express.
    """
    from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertModel

    check_expressible(model.config)
    with_head = hasattr(model, "cls")
    base = model.bert if with_head else model
    prefix = "distilbert." if with_head else ""
    config = model.config
    converted: Any = (DistilBertForMaskedLM if with_head else DistilBertModel)(
        DistilBertConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            n_layers=config.num_hidden_layers,
            n_heads=config.num_attention_heads,
            dim=config.hidden_size,
            hidden_dim=config.intermediate_size,
            dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            activation=config.hidden_act,
            initializer_range=config.initializer_range,
            pad_token_id=config.pad_token_id,
            tie_word_embeddings=config.tie_word_embeddings,
        )
    )
    weights = {f"{prefix}{name}": tensor for name, tensor in _base_weights(base).items()}
    if with_head:
        state = model.state_dict()
        weights |= {new: state[old] for old, new in HEAD_PARTS.items()}
    converted.load_state_dict(weights, strict=True)
    return converted.eval()


def check_expressible(config: Any) -> None:
    """Raise UsageError unless a DistilBERT can give the answers of a model of this config."""

    def refuse(what: str, seen: object, wanted: str) -> None:
        raise UsageError(
            f"form distilbert: {what} is {seen}, DistilBERT has {wanted}: set form=same, which keeps "
            "the teacher's architecture"
        )

    if config.model_type != "bert":
        refuse("model_type", repr(config.model_type), "a BERT's layers only")
    if config.hidden_act not in ACTIVATIONS:
        refuse("hidden_act", repr(config.hidden_act), " or ".join(ACTIVATIONS))
    if config.layer_norm_eps != LAYER_NORM_EPS:
        refuse("layer_norm_eps", config.layer_norm_eps, f"{LAYER_NORM_EPS:g}")
    if config.hidden_size % config.num_attention_heads:
        refuse("hidden_size", config.hidden_size, f"a multiple of its {config.num_attention_heads} heads")
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions != "absolute":
        refuse("position_embedding_type", repr(positions), "absolute positions only")
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        refuse("is_decoder or add_cross_attention", True, "an encoder only")


def _base_weights(base: Any) -> dict[str, Tensor]:
    """DistilBertModel's tensors from a BertModel's."""
    embeddings = base.embeddings
    with torch.no_grad():
        positions = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
    weights: dict[str, Tensor] = {
        "embeddings.word_embeddings.weight": embeddings.word_embeddings.weight,
        "embeddings.position_embeddings.weight": positions,
        "embeddings.LayerNorm.weight": embeddings.LayerNorm.weight,
        "embeddings.LayerNorm.bias": embeddings.LayerNorm.bias,
    }
    for index, layer in enumerate(base.encoder.layer):
        for old, new in LAYER_PARTS.items():
            part = layer.get_submodule(old)
            weights[f"transformer.layer.{index}.{new}.weight"] = part.weight
            weights[f"transformer.layer.{index}.{new}.bias"] = part.bias
    return weights
