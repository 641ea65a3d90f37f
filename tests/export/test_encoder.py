"""The graph we export against transformers' own forward pass: eager attention, unpadded or padded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stillroom.export.encoder import Attention, ExportModel, plain_attention
from stillroom.export.onnx_graph import native_attention
from stillroom.families import family_of

MAX_LENGTH = 80
TOLERANCE = 1e-5  # logits, which are about 1 here
TWO = ("input_ids", "attention_mask")
THREE = (*TWO, "token_type_ids")
CASES = (
    ("bert", TWO), ("bert", THREE), ("distilbert", TWO), ("roberta", TWO), ("roberta", THREE),
    ("xlm-roberta", TWO),
)  # fmt: skip
ATTENTIONS = {"plain": plain_attention, "native": native_attention}

every_case = pytest.mark.parametrize(("family", "inputs"), CASES)
every_way = pytest.mark.parametrize("shorten", [True, False], ids=["shortened", "whole"])
every_attention = pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS.keys())


@pytest.fixture(scope="session")
def models(new_model: Callable[..., Any]) -> Callable[..., Any]:
    """(family, options) -> a Hugging Face model, made once."""
    return functools.cache(new_model)


def answers(model: Any, inputs: dict[str, Any]) -> np.ndarray:
    """Logits of a transformers model, which takes its inputs by name."""
    with torch.inference_mode():
        found = model(**{name: torch.as_tensor(array) for name, array in inputs.items()})
    return np.asarray(found.logits)


def exported_answers(wrapped: ExportModel, inputs: dict[str, Any]) -> np.ndarray:
    """Logits of an ExportModel, which takes its inputs in order, as the exporters feed it."""
    with torch.inference_mode():
        return np.asarray(wrapped(*(torch.as_tensor(array) for array in inputs.values())))


def furthest(left: np.ndarray, right: np.ndarray) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max())


@pytest.mark.parametrize("length", [1, 2, 17, MAX_LENGTH])
@every_attention
@every_way
@every_case
def test_equals_transformers(
    models: Callable[..., Any],
    batch_of: Callable[..., dict[str, np.ndarray]],
    family: str,
    inputs: tuple[str, ...],
    shorten: bool,
    attention: Attention,
    length: int,
) -> None:
    model = models(family)
    wrapped = ExportModel(model, inputs, MAX_LENGTH, attention, shorten)
    batch = batch_of((length, max(1, length // 2), 1), inputs, model.config.pad_token_id)
    assert furthest(exported_answers(wrapped, batch), answers(model, batch)) <= TOLERANCE


@every_way
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-roberta"])
def test_equals_transformers_on_text(
    models: Callable[..., Any], tokenizer_of: Callable[[str], Any], texts: tuple[str, ...], family: str,
    shorten: bool,
) -> None:  # fmt: skip
    model, tokenizer = models(family), tokenizer_of(family)
    wrapped = ExportModel(model, TWO, MAX_LENGTH, shorten=shorten)
    encoded = tokenizer(
        list(texts), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="np",
        padding_side="right",
    )  # fmt: skip
    batch = {name: encoded[name] for name in TWO}
    assert batch["input_ids"].shape == (len(texts), MAX_LENGTH)  # the longest text is really cut
    assert furthest(exported_answers(wrapped, batch), answers(model, batch)) <= TOLERANCE


@every_attention
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_pairs_equal_transformers(
    models: Callable[..., Any], tokenizer_of: Callable[[str], Any], texts: tuple[str, ...], family: str,
    attention: Attention,
) -> None:  # fmt: skip
    model, tokenizer = models(family), tokenizer_of(family)
    encoded = tokenizer(
        list(texts), list(reversed(texts)), padding=True, truncation="longest_first",
        max_length=MAX_LENGTH, return_tensors="np", return_token_type_ids=True,
    )  # fmt: skip
    batch = {name: encoded[name] for name in THREE}
    if family == "roberta":  # its tokenizer writes zeros, but a fine-tuned model may have learned two types
        batch["token_type_ids"] = (np.arange(batch["input_ids"].shape[1]) > 4) * batch["attention_mask"]
    assert batch["token_type_ids"].max() == 1
    wrapped = ExportModel(model, THREE, MAX_LENGTH, attention)
    assert furthest(exported_answers(wrapped, batch), answers(model, batch)) <= TOLERANCE


@hypothesis_settings(max_examples=60)
@given(
    case=st.sampled_from(CASES),
    shorten=st.booleans(),
    attention=st.sampled_from(tuple(ATTENTIONS)),
    lengths=st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_transformers_at_any_lengths(
    models: Callable[..., Any],
    batch_of: Callable[..., dict[str, np.ndarray]],
    case: tuple[str, tuple[str, ...]],
    shorten: bool,
    attention: str,
    lengths: list[int],
    seed: int,
) -> None:
    family, inputs = case
    model = models(family)
    wrapped = ExportModel(model, inputs, MAX_LENGTH, ATTENTIONS[attention], shorten)
    batch = batch_of(lengths, inputs, model.config.pad_token_id, seed)
    together = exported_answers(wrapped, batch)
    assert furthest(together, answers(model, batch)) <= TOLERANCE
    for row, length in enumerate(lengths):  # an app sends one text, unpadded
        alone = {name: array[row : row + 1, :length] for name, array in batch.items()}
        assert furthest(exported_answers(wrapped, alone), together[row : row + 1]) <= TOLERANCE


@hypothesis_settings(max_examples=40)
@given(
    case=st.sampled_from(CASES),
    shorten=st.booleans(),
    mask=st.lists(st.booleans(), min_size=1, max_size=MAX_LENGTH).filter(any),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_transformers_under_any_mask(
    models: Callable[..., Any],
    batch_of: Callable[..., dict[str, np.ndarray]],
    case: tuple[str, tuple[str, ...]],
    shorten: bool,
    mask: list[bool],
    seed: int,
) -> None:
    # Holes and a masked first token: no tokenizer writes these, but they show which keys a query sees.
    family, inputs = case
    model = models(family)
    wrapped = ExportModel(model, inputs, MAX_LENGTH, shorten=shorten)
    batch = batch_of((len(mask),), inputs, model.config.pad_token_id, seed)
    batch["attention_mask"] = np.array([mask], dtype=np.int64)
    assert furthest(exported_answers(wrapped, batch), answers(model, batch)) <= TOLERANCE


@every_attention
@every_case
def test_what_is_padded_does_not_matter(
    models: Callable[..., Any],
    batch_of: Callable[..., dict[str, np.ndarray]],
    family: str,
    inputs: tuple[str, ...],
    attention: Attention,
) -> None:
    model = models(family)
    wrapped = ExportModel(model, inputs, MAX_LENGTH, attention)
    batch = batch_of((7, 30), inputs, model.config.pad_token_id)
    other = batch_of((30, 30), inputs, model.config.pad_token_id, seed=1)
    rubbish = {
        name: np.where(batch["attention_mask"], array, other[name]) if name != "attention_mask" else array
        for name, array in batch.items()
    }
    assert (rubbish["input_ids"] != batch["input_ids"]).sum() == 23
    assert furthest(exported_answers(wrapped, rubbish), exported_answers(wrapped, batch)) <= 1e-6


@every_way
@every_case
def test_in_double_precision_the_arithmetic_is_the_same(
    new_model: Callable[..., Any],
    batch_of: Callable[..., dict[str, np.ndarray]],
    family: str,
    inputs: tuple[str, ...],
    shorten: bool,
) -> None:
    # Rounding hides a wrong epsilon or a mask that is not quite zero in fp32; here nothing does.
    model = new_model(family).double()
    wrapped = ExportModel(model, inputs, MAX_LENGTH, shorten=shorten)
    batch = batch_of((40, 9, 1), inputs, model.config.pad_token_id)
    assert furthest(exported_answers(wrapped, batch), answers(model, batch)) <= 1e-11


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize(("activation", "labels"), [("relu", 20), ("gelu_new", 2)])
def test_other_activations_and_label_counts(
    new_model: Callable[..., Any],
    batch_of: Callable[..., dict[str, np.ndarray]],
    family: str,
    activation: str,
    labels: int,
) -> None:
    model = new_model(family, labels=labels, activation=activation)
    batch = batch_of((33, 5), TWO, model.config.pad_token_id)
    found = exported_answers(ExportModel(model, TWO, MAX_LENGTH), batch)
    assert found.shape == (2, labels)
    assert furthest(found, answers(model, batch)) <= TOLERANCE
    plain = new_model(family, labels=labels)  # the same weights under gelu
    assert furthest(answers(plain, batch), found) > 1e-4


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_a_padding_token_written_in_the_text(
    models: Callable[..., Any], tokenizer_of: Callable[[str], Any], family: str
) -> None:
    # "<pad>" in a text becomes the padding id under a mask of 1; RoBERTa does not count it as a position.
    encoded = tokenizer_of(family)("the <pad> flight was great", return_tensors="np")
    batch = {name: encoded[name] for name in TWO}
    model = models(family)
    assert (batch["input_ids"] == model.config.pad_token_id).sum() == 1
    found = exported_answers(ExportModel(model, TWO, MAX_LENGTH), batch)
    assert furthest(found, answers(model, batch)) <= TOLERANCE


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_dropout_is_off_even_when_the_model_came_from_training(
    new_model: Callable[..., Any], batch_of: Callable[..., dict[str, np.ndarray]], family: str
) -> None:
    model = new_model(family)
    batch = batch_of((20,), TWO, model.config.pad_token_id)
    wanted = answers(model, batch)
    assert furthest(answers(model.train(), batch), wanted) > 1e-3  # dropout would show
    wrapped = ExportModel(model, TWO, MAX_LENGTH)
    first = exported_answers(wrapped, batch)
    assert np.array_equal(first, exported_answers(wrapped, batch))
    assert furthest(first, wanted) <= TOLERANCE


@every_way
def test_only_the_last_layer_is_shortened(
    new_model: Callable[..., Any], batch_of: Callable[..., dict[str, np.ndarray]], shorten: bool
) -> None:
    wrapped = ExportModel(new_model("bert"), TWO, MAX_LENGTH, shorten=shorten)
    seen: list[int] = []
    for layer in wrapped.layers:
        layer.up.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[1]))
    exported_answers(wrapped, batch_of((12,), TWO, 0))
    assert seen == ([12, 1] if shorten else [12, 12])


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-roberta"])
def test_positions_beyond_max_length_are_left_out(
    models: Callable[..., Any], batch_of: Callable[..., dict[str, np.ndarray]], family: str
) -> None:
    model = models(family)
    wrapped = ExportModel(model, TWO, 17)
    assert wrapped.positions.shape[0] < 20  # of the model's 80
    batch = batch_of((17, 3), TWO, model.config.pad_token_id)
    assert furthest(exported_answers(wrapped, batch), answers(model, batch)) <= TOLERANCE


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-roberta"])
def test_the_model_itself_is_left_as_it_was(models: Callable[..., Any], family: str) -> None:
    # Adding token types into the positions must not reach into the weights of the source.
    model = models(family)
    embeddings = getattr(model, family_of(family).base).embeddings
    before = embeddings.position_embeddings.weight.detach().clone()
    ExportModel(model, TWO, MAX_LENGTH)
    assert torch.equal(embeddings.position_embeddings.weight, before)


@every_case
def test_these_models_would_show_a_mistake(
    new_model: Callable[..., Any],
    batch_of: Callable[..., dict[str, np.ndarray]],
    family: str,
    inputs: tuple[str, ...],
) -> None:
    # With weights as small as fresh ones, all of the tests above would pass on a graph without a mask.
    model = new_model(family)
    batch = batch_of((40, 12), inputs, model.config.pad_token_id)
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    with torch.inference_mode():
        weights = model(**tensors, output_attentions=True).attentions
    for layer in weights:
        assert layer[0].max(dim=-1).values.mean() > 5 / 40  # of the 40 keys of the longer row
    wanted = answers(model, batch)
    blind = {**batch, "attention_mask": np.ones_like(batch["attention_mask"])}
    assert furthest(answers(model, blind), wanted) > 0.01
    if "token_type_ids" in inputs:
        other = {**batch, "token_type_ids": np.zeros_like(batch["token_type_ids"])}
        assert furthest(answers(model, other), wanted) > 0.01
    shuffled = {**batch, "input_ids": batch["input_ids"][:, ::-1].copy()}
    shuffled["attention_mask"] = batch["attention_mask"][:, ::-1].copy()
    assert furthest(answers(model, shuffled)[:1], wanted[:1]) > 0.01
