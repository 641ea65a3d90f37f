"""A BERT turned into a DistilBERT answers as before, also when loaded by transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    RobertaConfig,
)

from stillroom.distill.distilbert import check_expressible, distilbert_from_bert
from stillroom.errors import UsageError

SIZES: dict[str, Any] = {"vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 40,
                         "num_attention_heads": 4, "max_position_embeddings": 32}  # fmt: skip


def random_model(kind: Any, **changes: Any) -> Any:
    """Weights large enough for every part to show in the answers, LayerNorms and biases among them."""
    torch.manual_seed(0)
    model = kind(BertConfig(**{**SIZES, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
            else:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def padded_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 97, (5, 20), generator=generator)
    mask = (torch.arange(20)[None] < torch.tensor([20, 7, 1, 13, 19])[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def answers(model: Any) -> torch.Tensor:
    batch = padded_batch()
    with torch.no_grad():
        output = model(**batch)[0]
    return output[batch["attention_mask"].bool()]


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_the_same(tmp_path: Path, activation: str, tied: bool) -> None:
    model = random_model(BertForMaskedLM, hidden_act=activation, tie_word_embeddings=tied)
    wanted = answers(model)
    converted = distilbert_from_bert(model)
    assert wanted.std() > 0.5
    assert (answers(converted) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    converted.save_pretrained(tmp_path)
    loaded, report = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded).__name__ == "DistilBertForMaskedLM"
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(answers(loaded), answers(converted))
    assert (loaded.vocab_projector.weight is loaded.distilbert.embeddings.word_embeddings.weight) == tied


def test_hidden_states_are_the_same(tmp_path: Path) -> None:
    model = random_model(BertModel)
    wanted = answers(model)
    distilbert_from_bert(model).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "DistilBertModel"
    assert (answers(loaded) - wanted).abs().max() < 1e-5


def test_it_is_a_copy() -> None:
    model = random_model(BertForMaskedLM)
    converted = distilbert_from_bert(model)
    before = answers(converted)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(answers(converted), before)


def test_it_has_no_more_parameters_than_it_needs() -> None:
    model = random_model(BertForMaskedLM)
    count = sum(parameter.numel() for parameter in model.parameters())
    converted = sum(parameter.numel() for parameter in distilbert_from_bert(model).parameters())
    assert converted == count - 2 * SIZES["hidden_size"]  # the token types


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', DistilBERT has gelu or relu: set form=same"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05, DistilBERT has 1e-12"),
        ({"hidden_size": 26}, "hidden_size is 26, DistilBERT has a multiple of its 4 heads"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "an encoder only"),
    ],
)
def test_what_distilbert_cannot_express(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_expressible(BertConfig(**{**SIZES, **changes}))


def test_another_family() -> None:
    with pytest.raises(UsageError, match="model_type is 'roberta', DistilBERT has a BERT's layers only"):
        check_expressible(RobertaConfig())
