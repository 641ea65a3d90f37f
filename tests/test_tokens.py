"""The same ids as the teacher's own library gives, for any text, alone and in batches."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stillroom import tokens as tokens_module
from stillroom.distill.task_loss import has_label
from stillroom.errors import UsageError
from stillroom.task import INPUT_NAMES, TaskSpec
from stillroom.text import Row
from stillroom.tokens import (
    check_text,
    encode_one,
    encode_rows,
    joined,
    load_tokenizer,
    pad_id_of,
    padded_inputs,
    some_rows,
    tokenizer_from_json,
    without_labels,
)

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
word = st.sampled_from(
    ["the", "food", "was", "great", "Awful!", "zzz", "é", "未", "[SEP]", "<s>", "\u200d", "😀", " "]
)
texts = any_text | st.lists(word, max_size=40).map(" ".join)
some = st.lists(texts, min_size=1, max_size=5)
several = settings(max_examples=40)


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_xlmr"])
def both(request: pytest.FixtureRequest) -> tuple[Path, Any]:
    """A model folder and the tokenizer transformers makes of it."""
    from transformers import AutoTokenizer

    folder = request.getfixturevalue(request.param)
    return folder, AutoTokenizer.from_pretrained(folder)


def row(text: str, pair: str | None = None, label: str = "good") -> Row:
    return Row(text, pair, label, 1.0, "a.csv:2")


def task_of(max_length: int = 32, *, pair: bool = False) -> TaskSpec:
    return TaskSpec(("bad", "good"), max_length, INPUT_NAMES if pair else INPUT_NAMES[:2], pair=pair)


def check_batch(folder: Path, wanted: Any, rows: list[Row], max_length: int, *, pair: bool) -> None:
    """wanted: the encoding transformers gives these rows, padded to the longest."""
    tokenizer = load_tokenizer(folder, max_length)
    pad_id = pad_id_of(folder, tokenizer)
    tokens = encode_rows(tokenizer, rows, task_of(max_length, pair=pair), pad_id)
    assert len(tokens) == len(rows) and int(tokens.lengths.max()) <= max_length
    found = padded_inputs(tokens, np.arange(len(rows)), INPUT_NAMES)
    for name, value in found.items():
        assert value.dtype == np.int64
        if name in wanted:
            assert value.tolist() == wanted[name], name
    assert {"input_ids", "attention_mask"} <= wanted.keys()
    # One at a time, as verification and the app do it.
    for line, single in enumerate(rows):
        ids, kinds = encode_one(tokenizer, single.text, single.pair)
        length = sum(wanted["attention_mask"][line])
        assert ids == wanted["input_ids"][line][:length]
        assert kinds == found["token_type_ids"][line][:length].tolist()


@several
@given(some, st.integers(2, 40))
@example([""], 2)
@example(["a" * 300, "the food"], 17)
def test_single_texts_as_transformers(both: tuple[Path, Any], written: list[str], max_length: int) -> None:
    folder, automatic = both
    wanted = automatic(written, truncation=True, max_length=max_length, padding=True)
    check_batch(folder, wanted, [row(text) for text in written], max_length, pair=False)


@several
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.integers(4, 40))
@example([("", "")], 4)
@example([("the " * 30, "food"), ("a", "the " * 30)], 11)
def test_pairs_as_transformers(
    both: tuple[Path, Any], written: list[tuple[str, str]], max_length: int
) -> None:
    folder, automatic = both
    lefts, rights = [left for left, _ in written], [right for _, right in written]
    wanted = automatic(lefts, rights, truncation=True, max_length=max_length, padding=True)
    check_batch(folder, wanted, [row(*pair) for pair in written], max_length, pair=True)


def test_second_texts_have_another_type(tiny_bert: Path) -> None:
    _, kinds = encode_one(load_tokenizer(tiny_bert, 32), "the food", "was great")
    assert kinds == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("max_length", [2, 3])
def test_no_encoding_is_longer_than_asked_for(max_length: int, both: tuple[Path, Any]) -> None:
    # Two texts come with three special tokens, or four: refused, or cut, but never beyond max_length.
    tokenizer = load_tokenizer(both[0], max_length)
    found = []
    with contextlib.suppress(UsageError):
        found.append(len(encode_one(tokenizer, "the food", "was great")[0]))
    with contextlib.suppress(UsageError):
        rows = [row("the food", "was great")]
        found += encode_rows(tokenizer, rows, task_of(max_length, pair=True), pad_id=0).lengths.tolist()
    assert max(found, default=0) <= max_length
    assert len(encode_one(tokenizer, "the food")[0]) == max_length


@given(st.lists(st.sampled_from(["good", "bad", "so-so"]), min_size=1, max_size=6))
def test_labels_are_looked_up(tiny_bert: Path, labels: list[str]) -> None:
    tokenizer = load_tokenizer(tiny_bert, 8)
    rows = [row("the food", label=label) for label in labels]
    found = encode_rows(tokenizer, rows, task_of(8), pad_id=0)
    assert found.labels.tolist() == [{"bad": 0, "good": 1}.get(label, -1) for label in labels]
    assert found.labels.dtype == np.int64 and found.ids.dtype == np.int32


def test_rows_with_and_without_a_pair(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert, 16)
    rows = [row("the food"), row("the food", "was great")]
    found = encode_rows(tokenizer, rows, task_of(16), pad_id=0)
    assert found.lengths.tolist() == [4, 7]
    assert found.ids[:4].tolist() == encode_one(tokenizer, "the food")[0]


KIND_LABELS = {"text-classification": "good", "multi-label": "bad\ngood", "regression": "0.5"}


@pytest.mark.parametrize("kind", KIND_LABELS)
def test_labels_forgotten_and_rows_joined(tiny_bert: Path, kind: str) -> None:
    names = ("score",) if kind == "regression" else ("bad", "good")
    task, tokenizer = TaskSpec(names, 8, INPUT_NAMES[:2], kind=kind), load_tokenizer(tiny_bert, 8)

    def encoded(*written: str) -> Any:
        return encode_rows(tokenizer, [row(text, label=KIND_LABELS[kind]) for text in written], task, 3)

    first, second = encoded("the food", "was"), encoded("great", "the room was")
    unknown = without_labels(second)
    assert unknown.labels.dtype == second.labels.dtype and unknown.labels.shape == second.labels.shape
    assert not has_label(torch.from_numpy(unknown.labels)).any()
    assert has_label(torch.from_numpy(second.labels)).all() and unknown.ids is second.ids
    both, whole = joined(first, unknown), encoded("the food", "was", "great", "the room was")
    for name in ("ids", "type_ids", "offsets"):
        assert getattr(both, name).tolist() == getattr(whole, name).tolist()
        assert getattr(both, name).dtype == getattr(whole, name).dtype
    assert has_label(torch.from_numpy(both.labels)).tolist() == [True, True, False, False]
    assert both.pad_id == 3 and both.labels.dtype == first.labels.dtype
    with pytest.raises(ValueError, match="different tokenizers or tasks"):
        joined(first, replace(second, pad_id=0))
    with pytest.raises(ValueError, match="different tokenizers or tasks"):
        joined(first, replace(second, labels=np.zeros((2, 7), dtype=np.float32)))


@given(st.lists(st.integers(0, 4)))
def test_some_rows_are_those_rows(tiny_bert: Path, chosen: list[int]) -> None:
    rows = [row(text) for text in ("great food", "awful", "what a lovely room", "so so", "it is")]
    tokens = encode_rows(load_tokenizer(tiny_bert, 16), rows, task_of(16), pad_id=0)
    found = some_rows(tokens, np.array(chosen, dtype=np.int64))
    wanted = encode_rows(load_tokenizer(tiny_bert, 16), [rows[at] for at in chosen], task_of(16), pad_id=0)
    for field in ("ids", "type_ids", "offsets", "labels"):
        assert getattr(found, field).tolist() == getattr(wanted, field).tolist()


def test_no_rows(tiny_bert: Path) -> None:
    found = encode_rows(load_tokenizer(tiny_bert, 16), [], task_of(16), pad_id=0)
    assert len(found) == 0 and found.offsets.tolist() == [0] and found.offsets.dtype == np.int64


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_padding_and_cutting(lengths: list[int], data: st.DataObject) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(100, 100 + offsets[-1], dtype=np.int32)
    tokens = tokens_module.Tokens(ids, ids % 2, offsets, np.zeros(len(lengths), np.int64), pad_id=7)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=5))
    width = data.draw(st.none() | st.integers(1, 12))
    found = padded_inputs(tokens, rows, INPUT_NAMES, width)
    wide = width or max(lengths[index] for index in rows)
    for line, index in enumerate(rows):
        kept = list(range(100 + offsets[index], 100 + offsets[index + 1]))[:wide]
        spare = wide - len(kept)
        assert found["input_ids"][line].tolist() == kept + [7] * spare
        assert found["attention_mask"][line].tolist() == [1] * len(kept) + [0] * spare
        assert found["token_type_ids"][line].tolist() == [token % 2 for token in kept] + [0] * spare
    assert tuple(padded_inputs(tokens, rows, INPUT_NAMES[:2], width)) == INPUT_NAMES[:2]


LONE = "half \ud83d a pair"


def test_half_a_surrogate_pair_is_refused(tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert, 16)
    with pytest.raises(UsageError, match="the text is not valid Unicode at character 5"):
        encode_one(tokenizer, LONE)
    with pytest.raises(UsageError, match="the second text is not valid Unicode at character 5"):
        encode_one(tokenizer, "fine", LONE)
    with pytest.raises(UsageError, match=r"a\.csv:2 is not valid Unicode"):
        encode_rows(tokenizer, [row("fine"), row(LONE)], task_of(), pad_id=0)


def test_half_a_surrogate_pair_in_a_second_text_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(UsageError, match="not valid Unicode"):
        encode_rows(load_tokenizer(tiny_bert, 16), [row("fine", LONE)], task_of(pair=True), pad_id=0)


@given(any_text)
def test_whole_texts_pass(text: str) -> None:
    assert check_text(text) is text


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def test_tokenizers_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "tokenizer.json"
    for content in (b"", b"{}", b"[1]", b'{"model": {"type": "Made Up"}}', path.read_bytes()[:-20]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"tokenizer\.json is not a tokenizer"):
            load_tokenizer(folder, 8)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"tokenizer\.json is not UTF-8"):
        load_tokenizer(folder, 8)
    monkeypatch.setattr(tokens_module, "MAX_TOKENIZER_BYTES", 1)
    with pytest.raises(UsageError, match="which no BERT tokenizer is"):
        load_tokenizer(folder, 8)
    path.unlink()
    with pytest.raises(UsageError, match=r"no tokenizer\.json in"):
        load_tokenizer(folder, 8)


def test_padding_and_truncation_in_the_file_do_not_count(folder: Path) -> None:
    # Many published tokenizer.json files carry the settings of their last training run.
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    wanted = encode_one(load_tokenizer(folder, 9), "the food was great " * 4)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(3, stride=1, strategy="only_first", direction="left")
    tokenizer.enable_padding(length=30)
    changed = tokenizer_from_json(tokenizer.to_str(), 9)
    assert encode_one(changed, "the food was great " * 4) == wanted and len(wanted[0]) == 9
    assert len(encode_one(changed, "the")[0]) == 3
    assert len(encode_rows(changed, [row("the")] * 2, task_of(9), pad_id=0).ids) == 6


@pytest.mark.parametrize(
    ("config", "wanted"),
    [({"pad_token_id": 5}, 5), ({"pad_token_id": None}, 0), ({}, 0), ({"pad_token_id": 0}, 0)],
)
def test_pad_id(config: dict[str, Any], wanted: int, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert pad_id_of(folder, load_tokenizer(folder, 8)) == wanted


def test_pad_id_of_the_tokenizer(tiny_xlmr: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert pad_id_of(tmp_path, load_tokenizer(tiny_xlmr, 8)) == 1
    assert pad_id_of(tiny_xlmr, load_tokenizer(tiny_xlmr, 8)) == 1
