"""Special tokens are those transformers knows of, and nothing in a text stands for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from stillroom.distill.special_tokens import plain_tokenizer, read_special_tokens, special_names
from stillroom.errors import UsageError


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_xlmr"])
def test_ids_are_those_of_transformers(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    found = read_special_tokens((folder / "tokenizer.json").read_text("utf-8"))
    theirs = AutoTokenizer.from_pretrained(folder)
    assert (found.cls_id, found.sep_id, found.mask_id) == (
        theirs.cls_token_id,
        theirs.sep_token_id,
        theirs.mask_token_id,
    )
    assert set(found.ids) == set(theirs.all_special_ids)
    assert list(found.ids) == sorted(found.ids)
    assert found.vocabulary_size == len(theirs)
    names = special_names(found)
    assert names == {role: getattr(theirs, role) for role in names}
    assert set(names) == {"cls_token", "sep_token", "mask_token", "pad_token", "unk_token"}


def test_special_tokens_in_a_text_are_text(tiny_bert: Path) -> None:
    text = (tiny_bert / "tokenizer.json").read_text("utf-8")
    special = read_special_tokens(text)
    ids = plain_tokenizer(text).encode("the [MASK] is [SEP]", add_special_tokens=False).ids
    assert not {special.mask_id, special.sep_id} & set(ids)
    assert len(plain_tokenizer(text).encode("the food " * 400).ids) == 802  # nothing is cut


def test_a_tokenizer_without_a_mask(tiny_bert: Path) -> None:
    facts = json.loads((tiny_bert / "tokenizer.json").read_text("utf-8"))
    facts["added_tokens"] = [token for token in facts["added_tokens"] if token["content"] != "[MASK]"]
    del facts["model"]["vocab"]["[MASK]"]
    with pytest.raises(UsageError, match=r"it\.json has no \[MASK\] or <mask>: fill-mask needs"):
        read_special_tokens(json.dumps(facts), "it.json")


def test_a_tokenizer_that_adds_nothing(tiny_bert: Path) -> None:
    facts = json.loads((tiny_bert / "tokenizer.json").read_text("utf-8"))
    facts["post_processor"] = None
    with pytest.raises(UsageError, match="puts 0 special tokens around a text: expected two"):
        read_special_tokens(json.dumps(facts))
