"""Masked-LM models: their folders, and a form of them that answers only where it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.distill.special_tokens import SpecialTokens, read_special_tokens, special_names
from stillroom.distill.teacher import fast_tokenizer
from stillroom.families import family_of, longest_input
from stillroom.files import write_atomic, write_json
from stillroom.model_folder import (
    ModelFolder,
    check_model_folder,
    check_vocabulary,
    has_masked_lm_head,
    require_masked_lm_head,
)
from stillroom.student import FILL_MASK, SCHEMA_VERSION, load_config, load_pretrained

# What a masked-LM head's tensors are called in BERT, in RoBERTa and its like, and in DistilBERT.
HEADS = ("cls.predictions.", "lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.")


@dataclass(frozen=True)
class MaskedSource:
    """A model folder that fits its tokenizer. longest: tokens it can read, special ones included."""

    folder: Path
    checked: ModelFolder
    tokenizer_json: str
    special: SpecialTokens
    longest: int

    @property
    def has_head(self) -> bool:
        """Whether it can fill masks as it is."""
        return has_masked_lm_head(self.checked)


class AtPositions(nn.Module):
    """A masked-LM model whose head, the costly part, answers at given positions only.

    A module, so that what wraps a model's forward (bf16, averaged gradients) wraps this. Rows are full: there
    is no padding and no attention mask.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [positions, vocabulary] and last hidden states [rows, length, hidden].

        input_ids: int64 [rows, length]. positions: int64, into the rows one after the other.
        """
        base = getattr(self.model, family_of(self.model.config.model_type).base)
        hidden = base(input_ids=input_ids).last_hidden_state
        return head_logits(self.model, hidden.flatten(0, 1)[positions]), hidden


def head_logits(model: Any, states: Tensor) -> Tensor:
    """Logits [n, vocabulary] of last hidden states [n, hidden]."""
    if model.config.model_type == "distilbert":
        states = model.vocab_layer_norm(model.activation(model.vocab_transform(states)))
        return torch.as_tensor(model.vocab_projector(states))
    return torch.as_tensor((model.cls if hasattr(model, "cls") else model.lm_head)(states))


def open_masked_source(folder: Path) -> MaskedSource:
    """Check a model folder and its tokenizer. Raises UsageError when they are not whole or do not fit."""
    checked = check_model_folder(folder)
    tokenizer_json = fast_tokenizer(folder)
    special = read_special_tokens(tokenizer_json, f"{folder}: the tokenizer")
    check_vocabulary(checked, special.vocabulary_size, special.vocabulary_size - 1)
    longest = longest_input(load_config(folder))
    return MaskedSource(folder, checked, tokenizer_json, special, longest)


def load_masked_lm(source: MaskedSource, new_head_seed: int | None = None) -> Any:
    """The folder's ...ForMaskedLM model, fp32, in eval mode.

    new_head_seed: draws a head for an encoder that has none; without it that is an error. Raises UsageError.
    """
    if new_head_seed is None:
        require_masked_lm_head(source.checked)
    else:
        torch.manual_seed(new_head_seed)
    return load_pretrained("AutoModelForMaskedLM", source.folder, () if source.has_head else HEADS)


def freeze_what_answers_nothing(model: Any) -> None:
    """Where word embeddings and decoder are not tied, the decoder adds a bias of its own, not this one."""
    if not model.config.tie_word_embeddings:
        for name, parameter in model.named_parameters():
            if name in ("cls.predictions.bias", "lm_head.bias"):
                parameter.requires_grad = False


def save_masked_lm(
    folder: Path, model: Any, special: SpecialTokens, max_length: int, lineage: dict[str, Any]
) -> None:
    """Write model, tokenizer and stillroom.json into folder (not atomic: call inside staged_folder)."""
    model.save_pretrained(folder)
    write_atomic(folder / "tokenizer.json", special.tokenizer_json)
    tokenizer_facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # which reads tokenizer.json and changes nothing
        "model_max_length": longest_input(model.config),
        "model_input_names": ["input_ids", "attention_mask"],
        **special_names(special),
    }
    write_json(folder / "tokenizer_config.json", tokenizer_facts)
    task = {"kind": FILL_MASK, "max_length": max_length, "inputs": ["input_ids", "attention_mask"]}
    write_json(
        folder / "stillroom.json", {"schema_version": SCHEMA_VERSION, "task": task, "lineage": lineage}
    )
