"""Masked-LM folders are read and written so that transformers agrees about every answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from stillroom.distill.distilbert import distilbert_from_bert
from stillroom.distill.masked_lm import (
    AtPositions,
    freeze_what_answers_nothing,
    load_masked_lm,
    open_masked_source,
    save_masked_lm,
)
from stillroom.errors import UsageError
from stillroom.student import load_model, load_student

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert")


def folder_of(family: str, make_model_folder: Callable[..., Path], place: Path, **changes: Any) -> Path:
    if family != "camembert":
        return make_model_folder(place, family, masked_lm=True, **changes)
    folder = make_model_folder(place, "xlm-roberta", masked_lm=True, **changes)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "camembert", "architectures": ["CamembertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_at_positions_are_the_models(
    family: str, tied: bool, make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = folder_of(family, make_model_folder, tmp_path / "model", tie_word_embeddings=tied)
    source = open_masked_source(folder)
    assert source.has_head and source.longest == 64
    model = load_masked_lm(source)
    ids = torch.randint(5, 200, (3, 11), generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([0, 5, 12, 32])
    with torch.no_grad():
        theirs = AutoModelForMaskedLM.from_pretrained(folder)(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        )
        logits, hidden = AtPositions(model)(ids, positions)
    assert torch.allclose(logits, theirs.logits.flatten(0, 1)[positions], atol=1e-5)
    assert torch.allclose(hidden, theirs.hidden_states[-1], atol=1e-5)
    assert logits.std() > 0.3


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_left_to_train_has_a_gradient(
    family: str, tied: bool, make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = folder_of(family, make_model_folder, tmp_path / "model", tie_word_embeddings=tied)
    model = load_masked_lm(open_masked_source(folder))
    freeze_what_answers_nothing(model)
    logits, _ = AtPositions(model)(torch.full((2, 9), 7), torch.arange(18))
    logits.square().mean().backward()
    without = {name for name, one in model.named_parameters() if one.requires_grad and one.grad is None}
    assert not without


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_is_the_only_new_thing(
    family: str, make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    headless = make_model_folder(tmp_path / "model", "xlm-roberta" if family == "camembert" else family)
    source = open_masked_source(headless)
    assert not source.has_head
    with pytest.raises(
        UsageError, match=r"has no masked-LM head: stillroom teach --task fill-mask --teacher"
    ):
        load_masked_lm(source)
    first, again, other = (load_masked_lm(source, new_head_seed=seed) for seed in (0, 0, 1))
    encoder = load_model(headless, num_labels=2, ignore_mismatched_sizes=True).base_model.state_dict()
    same, different = set(), set()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        (same if torch.equal(tensor, other.state_dict()[name]) else different).add(name)
    assert different and all(name.endswith("weight") for name in different)
    inside = first.base_model.state_dict()
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in inside.items())
    decoder = first.get_output_embeddings().weight
    assert decoder is first.get_input_embeddings().weight  # tied


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_transformers_own(
    family: str, make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = open_masked_source(folder_of(family, make_model_folder, tmp_path / "model"))
    model = load_masked_lm(source)
    out = tmp_path / "out"
    save_masked_lm(out, model, source.special, 32, {"note": 1})
    loaded, report = AutoModelForMaskedLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(out)
    text = f"what a {tokenizer.mask_token} flight"
    assert tokenizer.mask_token_id == source.special.mask_id
    assert tokenizer.model_max_length == 64
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == source.special.cls_id and ids[-1] == source.special.sep_id
    assert source.special.mask_id in ids
    best = pipeline("fill-mask", model=str(out))(text)[0]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, ids.index(source.special.mask_id)]
    assert best["token"] == logits.argmax() and 0 < best["score"] < 1
    again = open_masked_source(out)
    assert again.has_head and again.special == source.special


def test_a_distilbert_is_saved_with_the_same_tokenizer(tiny_masked_lm: Path, tmp_path: Path) -> None:
    source = open_masked_source(tiny_masked_lm)
    save_masked_lm(tmp_path, distilbert_from_bert(load_masked_lm(source)), source.special, 32, {})
    theirs, ours = (
        pipeline("fill-mask", model=str(folder))("what a [MASK] flight")
        for folder in (tiny_masked_lm, tmp_path)
    )
    assert [one["token"] for one in ours] == [one["token"] for one in theirs]
    assert [one["score"] for one in ours] == pytest.approx([one["score"] for one in theirs], abs=1e-5)


def test_a_fill_mask_folder_can_be_a_classifiers_start(tiny_masked_lm: Path, tmp_path: Path) -> None:
    source = open_masked_source(tiny_masked_lm)
    save_masked_lm(tmp_path, load_masked_lm(source), source.special, 32, {})
    with pytest.raises(UsageError, match="fills masks and has no classification head: stillroom run RECIPE"):
        load_student(tmp_path)
    model = load_model(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert model.config.num_labels == 3


def test_folders_that_do_not_fit(tiny_masked_lm: Path, tiny_xlmr: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_masked_lm, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UsageError, match=r"do not agree about bert\.encoder\.layer\.3"):
        load_masked_lm(open_masked_source(folder))
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": 7}))
    with pytest.raises(UsageError, match="could not be"):
        load_masked_lm(open_masked_source(folder))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 30}))
    with pytest.raises(UsageError, match=r"could not be|do not agree"):
        load_masked_lm(open_masked_source(folder))
    with pytest.raises(UsageError, match="no model folder at"):
        open_masked_source(tmp_path / "absent")
