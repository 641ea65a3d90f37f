"""What the app is told of a tokenizer is all of it, or it is refused with the reason."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from stillroom.errors import UsageError
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.wordpiece import vocabulary_lines, wordpiece_settings, wordpiece_tokenizer
from stillroom.tokens import encode_one

PIECES = st.sampled_from([*GOLDEN_TEXTS, "[CLS]", "[MASK]", " ", "flight", "Ünïcödé", "中", "\x00", "ﬁ"])
TEXTS = st.lists(st.one_of(PIECES, st.text()), max_size=5).map("".join)


@pytest.fixture(scope="module")
def document(model_folder: Callable[..., Path]) -> dict[str, Any]:
    """A BERT's tokenizer.json."""
    found: dict[str, Any] = json.loads((model_folder("bert") / "tokenizer.json").read_text("utf-8"))
    return found


@given(
    text=TEXTS,
    second=st.none() | TEXTS,
    options=st.tuples(*[st.booleans()] * 3, st.sampled_from([None, True, False])),
)
def test_the_settings_say_all_of_it(
    document: dict[str, Any], text: str, second: str | None, options: tuple[Any, ...]
) -> None:
    changed = copy.deepcopy(document)
    names = ("lowercase", "clean_text", "handle_chinese_chars", "strip_accents")
    changed["normalizer"].update(dict(zip(names, options, strict=True)))
    theirs = Tokenizer.from_str(json.dumps(changed))
    theirs.no_padding()
    theirs.enable_truncation(24, strategy="longest_first")
    ours = wordpiece_tokenizer(wordpiece_settings(changed), vocabulary_lines(changed), 24)
    assert encode_one(ours, text, second) == encode_one(theirs, text, second)


def test_an_added_token_that_is_no_word_is_matched_but_never_looked_up(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    added_id = max(changed["model"]["vocab"].values()) + 1
    plain = {name: False for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    changed["added_tokens"].append({"id": added_id, "content": "zyzzyva", **plain})
    lines = vocabulary_lines(changed)
    assert lines[added_id] == f"[no token {added_id}]"
    theirs = Tokenizer.from_str(json.dumps(changed))
    theirs.no_padding()
    theirs.enable_truncation(24, strategy="longest_first")
    ours = wordpiece_tokenizer(wordpiece_settings(changed), lines, 24)
    for text in ("a zyzzyva flies", "ZYZZYVA", "zyzzyvas", "zyz zyva"):
        assert encode_one(ours, text) == encode_one(theirs, text), text


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("model", {"type": "BPE", "vocab": {}, "merges": []}, "its model is BPE, the app has WordPiece only"),
        ("normalizer", None, "its normalizer is None, the app has BertNormalizer only"),
        ("normalizer", {"type": "Lowercase"}, "its normalizer is Lowercase"),
        ("pre_tokenizer", {"type": "Whitespace"}, "its pre_tokenizer is Whitespace"),
        ("truncation", {"direction": "Left"}, "its truncation direction is Left"),
        ("post_processor", None, "it does not put its special tokens as BERT does"),
    ],
)
def test_what_the_app_cannot_do_is_refused_with_the_reason(
    document: dict[str, Any], part: str, value: Any, reason: str
) -> None:
    with pytest.raises(UsageError, match="the app cannot read this model's tokenizer") as caught:
        wordpiece_settings({**document, part: value})
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["single_word", "lstrip", "rstrip", "normalized"])
def test_an_added_token_with_a_rule_of_its_own_is_refused(document: dict[str, Any], rule: str) -> None:
    changed = copy.deepcopy(document)
    changed["added_tokens"][-1][rule] = True
    with pytest.raises(UsageError, match=f"is matched by {rule}"):
        wordpiece_settings(changed)


def test_special_tokens_elsewhere_are_refused_and_those_of_bert_read(document: dict[str, Any]) -> None:
    wanted = wordpiece_settings(document)
    changed = copy.deepcopy(document)
    changed["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    assert wordpiece_settings(changed) == wanted
    changed = copy.deepcopy(document)
    changed["post_processor"]["single"].reverse()
    with pytest.raises(UsageError, match="does not put its special tokens"):
        wordpiece_settings(changed)


def test_a_vocabulary_that_a_file_of_lines_cannot_hold_is_refused(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    changed["model"]["vocab"]["a\nb"] = 10**4
    with pytest.raises(UsageError, match="has an end of line in it"):
        vocabulary_lines(changed)


@pytest.mark.parametrize("role", ["unknown_id", "cls_id", "sep_id"])
def test_an_id_beyond_the_vocabulary_is_refused(document: dict[str, Any], role: str) -> None:
    lines = vocabulary_lines(document)
    with pytest.raises(UsageError, match=f"{role} is {len(lines)}, vocab.txt has {len(lines)} tokens"):
        wordpiece_tokenizer({**wordpiece_settings(document), role: len(lines)}, lines, 24)
