"""The model families stillroom reads, and where each keeps its layers. One table, one row per family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stillroom.errors import UsageError


@dataclass(frozen=True)
class Family:
    """Attribute names inside a Hugging Face ...ForSequenceClassification model of this family.

    base: the encoder. layers: the list of layers, as a path from the base.
    first_position_after_pad: positions count from pad_token_id + 1 (RoBERTa) instead of 0.
    """

    base: str
    layers: str
    first_position_after_pad: bool = False


FAMILIES = {
    "bert": Family("bert", "encoder.layer"),
    "distilbert": Family("distilbert", "transformer.layer"),
    "roberta": Family("roberta", "encoder.layer", first_position_after_pad=True),
    "xlm-roberta": Family("roberta", "encoder.layer", first_position_after_pad=True),
    "camembert": Family("roberta", "encoder.layer", first_position_after_pad=True),
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
