"""The model families stillroom reads, and where each keeps its layers. One table, one row per family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stillroom.errors import UsageError


@dataclass(frozen=True)
class Family:
    """Attribute names inside a Hugging Face ...ForSequenceClassification model of this family.

    base: the encoder. layers: the list of layers, as a path from the base. query, key, value, attention_out,
    up, down: a layer's linear maps, as paths from the layer. answer: the linear map that gives the logits, as
    a path from the model. intermediate_size: what the config calls the width between up and down.
    first_position_after_pad: positions count from pad_token_id + 1 (RoBERTa) instead of 0.
    """

    base: str
    layers: str
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_out: str = "attention.output.dense"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    answer: str = "classifier"
    intermediate_size: str = "intermediate_size"
    first_position_after_pad: bool = False


_ROBERTA = Family("roberta", "encoder.layer", answer="classifier.out_proj", first_position_after_pad=True)
FAMILIES = {
    "bert": Family("bert", "encoder.layer"),
    "distilbert": Family(
        "distilbert",
        "transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_out="attention.out_lin",
        up="ffn.lin1",
        down="ffn.lin2",
        intermediate_size="hidden_dim",
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
}


def family_of(model_type: str) -> Family:
    """The family of a config.json's model_type. Raises UsageError naming those that are known."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(FAMILIES)
        raise UsageError(f"model_type {model_type!r} is not supported: expected one of {known}") from None


def longest_input(config: Any) -> int:
    """How many tokens a model of this config can read, special tokens included."""
    positions = int(config.max_position_embeddings)
    if family_of(config.model_type).first_position_after_pad:
        positions -= int(config.pad_token_id) + 1
    return positions
