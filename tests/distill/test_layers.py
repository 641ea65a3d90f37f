"""Which layers a student keeps, and that their weights are the teacher's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.distill.layers import (
    CHOICES,
    choose_layers,
    layer_list,
    layer_map,
    layer_map_words,
    student_from_teacher,
)
from stillroom.errors import UsageError
from stillroom.student import load_model, parameter_count

LAYERS = {"bert": "bert.encoder.layer", "distilbert": "distilbert.transformer.layer",
          "roberta": "roberta.encoder.layer", "xlm-roberta": "roberta.encoder.layer"}  # fmt: skip


@pytest.fixture(scope="module", params=LAYERS)
def teacher(
    request: pytest.FixtureRequest,
    make_model_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Any]:
    folder = tmp_path_factory.mktemp("teacher") / "model"
    return request.param, load_model(make_model_folder(folder, request.param, ("good", "bad")))


@pytest.mark.parametrize(
    ("wanted", "of", "kept"),
    [
        ("half", 12, (0, 2, 4, 7, 9, 11)),
        (6, 12, (0, 2, 4, 7, 9, 11)),
        ("half", 6, (0, 2, 5)),
        ("half", 3, (0,)),
        ("half", 1, (0,)),
        (1, 12, (0,)),
        (2, 12, (0, 11)),
        (4, 4, (0, 1, 2, 3)),
        ((0, 3, 11), 12, (0, 3, 11)),
        ((5,), 12, (5,)),
    ],
)
def test_layers_chosen(wanted: str | int | tuple[int, ...], of: int, kept: tuple[int, ...]) -> None:
    assert choose_layers(wanted, of) == kept


@given(st.integers(1, 48).flatmap(lambda of: st.tuples(st.integers(1, of), st.just(of))))
def test_a_number_of_layers_spreads_evenly(numbers: tuple[int, int]) -> None:
    count, of = numbers
    kept = choose_layers(count, of)
    assert len(kept) == count
    assert list(kept) == sorted(set(kept))
    assert kept[0] == 0
    if count > 1:
        assert kept[-1] == of - 1
        gaps = [after - before for before, after in itertools.pairwise(kept)]
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("wanted", [(0, 12), (-1, 3), (12,), (), (3, 2), (2, 2)])
def test_indices_the_teacher_does_not_have(wanted: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="increasing indices from 0 to 11, the teacher has 12 layers"):
        choose_layers(wanted, 12)


@pytest.mark.parametrize("wanted", [0, -1, 13])
def test_counts_the_teacher_does_not_have(wanted: int) -> None:
    with pytest.raises(UsageError, match=f"student.layers {wanted}: the teacher has 12 layers"):
        choose_layers(wanted, 12)


def test_a_word_other_than_half() -> None:
    with pytest.raises(UsageError, match=r"'third': expected \"half\""):
        choose_layers("third", 12)


def test_layer_list_finds_the_layers(teacher: tuple[str, Any]) -> None:
    family, model = teacher
    assert layer_list(model) is model.get_submodule(LAYERS[family])
    assert len(layer_list(model)) == 4


def test_student_has_the_weights_of_the_layers_kept(teacher: tuple[str, Any]) -> None:
    family, model = teacher
    student = student_from_teacher(model, (0, 2, 3))
    assert type(student) is type(model)
    assert student.config.num_hidden_layers == len(layer_list(student)) == 3
    assert not student.training
    before, after = model.state_dict(), student.state_dict()
    inside = f"{LAYERS[family]}."
    for position, index in enumerate((0, 2, 3)):
        parts = [
            name.removeprefix(f"{inside}{index}.") for name in before if name.startswith(f"{inside}{index}.")
        ]
        assert parts
        for part in parts:
            assert torch.equal(after[f"{inside}{position}.{part}"], before[f"{inside}{index}.{part}"]), part
    outside = {name for name in before if not name.startswith(inside)}
    assert outside == {name for name in after if not name.startswith(inside)}
    assert any("embeddings" in name for name in outside) and any("classifier" in name for name in outside)
    for name in outside:
        assert torch.equal(after[name], before[name]), name
    assert parameter_count(model) - parameter_count(student) == parameter_count(layer_list(model)[1])


def test_all_layers_give_the_same_answers(teacher: tuple[str, Any]) -> None:
    _, model = teacher
    student = student_from_teacher(model, (0, 1, 2, 3))
    ids = torch.arange(5, 29).reshape(3, 8)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=mask).logits
        assert torch.equal(student(input_ids=ids, attention_mask=mask).logits, wanted)
        fewer = student_from_teacher(model, (0, 3))(input_ids=ids, attention_mask=mask).logits
    assert not torch.allclose(fewer, wanted, atol=1e-3)


def test_training_the_student_leaves_the_teacher_alone(teacher: tuple[str, Any]) -> None:
    _, model = teacher
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in student_from_teacher(model, (0, 3)).parameters():
            parameter.add_(1.0)
    assert model.config.num_hidden_layers == 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("every-other", (0, 2, 4, 7, 9, 11)),  # DistilBERT's own
        ("first-last", (0, 1, 2, 9, 10, 11)),
        ("top", (6, 7, 8, 9, 10, 11)),
    ],
)
def test_half_of_bert_base(choice: str, wanted: tuple[int, ...]) -> None:
    assert choose_layers("half", 12, choice) == choose_layers(6, 12, choice) == wanted


@given(st.integers(1, 48), st.data(), st.sampled_from(CHOICES))
def test_every_choice_keeps_that_many(layers: int, data: st.DataObject, choice: str) -> None:
    count = data.draw(st.integers(1, layers))
    kept = choose_layers(count, layers, choice)
    assert len(kept) == count and list(kept) == sorted(set(kept))
    assert kept[0] >= 0 and kept[-1] < layers
    assert choice == "top" or kept[0] == 0
    assert count == 1 or kept[-1] == layers - 1
    assert choose_layers(layers, layers, choice) == tuple(range(layers))


def test_a_list_of_layers_needs_no_choice() -> None:
    assert choose_layers((1, 4), 6, "top") == (1, 4)


def test_an_unknown_choice() -> None:
    with pytest.raises(UsageError, match="'best': expected one of every-other, first-last, top"):
        choose_layers(3, 6, "best")


def test_layers_imitated() -> None:
    assert layer_map((0, 2, 5), 6) == layer_map((0, 1, 2), 6) == (1, 3, 5)
    assert layer_map((0, 2, 4, 7, 9, 11), 12) == (1, 3, 5, 7, 9, 11)
    assert layer_map((0, 4, 7, 11), 12) == (2, 5, 8, 11)  # TinyBERT's, of 4 layers
    assert layer_map((0, 11), 12) == (5, 11)
    assert layer_map((0,), 12) == (11,)


def test_every_map_rises_to_the_last_layer() -> None:
    for of, count in itertools.product(range(1, 25), repeat=2):
        imitated = layer_map(tuple(range(count)), of)
        assert len(imitated) == count and imitated[-1] == of - 1 and imitated[0] >= 0
        steps = {after - before for before, after in itertools.pairwise(imitated)}
        # No two student layers imitate the same one, and no layer stands in for many more than another.
        assert steps <= {of // count, -(-of // count)} or count > of
        assert min(steps, default=0) >= 0
    assert layer_map(tuple(range(24)), 24) == tuple(range(24))


def test_the_map_in_words() -> None:
    assert layer_map_words((1, 3, 5)) == "hidden states: embeddings, 0->1, 1->3, 2->5"
