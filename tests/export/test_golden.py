"""Golden vectors: what the texts cover, and that ids and logits are those of independent code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from stillroom.export import load_predictor
from stillroom.export.golden import GOLDEN_TEXTS, golden_vectors, predict_one
from stillroom.student import load_student
from stillroom.task import TaskSpec
from stillroom.tokens import load_tokenizer

MAX_LENGTH = 80


def entries_of(model: Path) -> list[dict[str, Any]]:
    task = load_student(model).task
    return golden_vectors(load_tokenizer(model, task.max_length), load_predictor("torch", model, 1), task)


def python_bert(model: Path, tmp_path: Path) -> Any:
    """BERT's tokenizer as transformers wrote it in Python: it shares no code with the tokenizers library."""
    ordered = sorted(load_tokenizer(model, MAX_LENGTH).get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in ordered), encoding="utf-8")
    return transformers.BertTokenizerLegacy(str(tmp_path / "vocab.txt"))


def test_thirty_two_different_texts() -> None:
    assert len(GOLDEN_TEXTS) == len(set(GOLDEN_TEXTS)) == 32


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("nothing", r"\A\Z"),
        ("one letter", r"\A\w\Z"),
        ("emoji", "[\U0001f600-\U0001f64f]"),
        ("emoji of several code points", "[\U0001f300-\U0001faff]\u200d[\U0001f300-\U0001faff]"),
        ("a variation selector", "\ufe0f"),
        ("Persian, by a letter Arabic has not", "[\u067e\u0686\u0698\u06af\u06cc].*[\u0600-\u06ff]{3}"),
        ("Persian's zero-width non-joiner", "[\u0600-\u06ff]\u200c[\u0600-\u06ff]"),
        ("Chinese", "\\A[\u4e00-\u9fff]{5,}。\\Z"),
        ("Japanese", "[\u3040-\u309f].*[\u3040-\u309f]"),
        ("Arabic", "\\A[\u0600-\u06ff ]+\\Z"),
        ("Cyrillic", "[\u0400-\u04ff]{3}"),
        ("accents in one code point", "[\u00e0-\u00ff].*[\u00e0-\u00ff]"),
        ("an accent as a combining mark", "[a-z][\u0300-\u036f]"),
        ("a ligature and a fraction", "\ufb01.*\u00bd"),
        ("a link", r"https://\S+\?\S+=\S+"),
        ("an address", r"\S+@\S+\.\S+"),
        ("a hashtag", r"#\w"),
        ("white space at both ends", r"\A\s+\S[\s\S]*\s\Z"),
        ("a tab", r"\t"),
        ("control characters", "[\x00-\x08\x0e-\x1f]"),
        ("a zero-width space", "\u200b"),
        ("a soft hyphen", "\u00ad"),
        ("typographic quotes and dashes", "“.*”.*—"),
        ("special tokens written out", r"\[CLS\].*\[SEP\]"),
        ("markup", r"<b>.*&amp;"),
        ("a word longer than WordPiece reads", r"\A\w{101,}\Z"),
        ("capitals only", r"\A[A-Z ]+\Z"),
    ],
)  # fmt: skip
def test_the_texts_include(what: str, pattern: str) -> None:
    assert any(re.search(pattern, text) for text in GOLDEN_TEXTS), what


def test_the_texts_include_one_longer_than_any_model_reads() -> None:
    assert max(len(text.split()) for text in GOLDEN_TEXTS) > 512


def test_every_text_can_be_written_as_utf_8() -> None:
    assert [text.encode().decode() for text in GOLDEN_TEXTS] == list(GOLDEN_TEXTS)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_ids_are_those_of_transformers(model_folder: Callable[..., Path], family: str) -> None:
    model = model_folder(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, local_files_only=True)
    entries = entries_of(model)
    assert [entry["text"] for entry in entries] == list(GOLDEN_TEXTS)
    for entry in entries:
        wanted = tokenizer(entry["text"], truncation=True, max_length=MAX_LENGTH)["input_ids"]
        assert entry["input_ids"] == wanted, entry["text"]
        assert set(entry) == {"text", "input_ids", "logits", "label"}
    assert len(entries[GOLDEN_TEXTS.index("")]["input_ids"]) == 2  # the special tokens alone
    assert max(len(entry["input_ids"]) for entry in entries) == MAX_LENGTH


def test_ids_are_those_of_the_first_bert_tokenizer(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = model_folder("bert")
    tokenizer = python_bert(model, tmp_path)
    for entry in entries_of(model):
        wanted = tokenizer(entry["text"], truncation=True, max_length=MAX_LENGTH)["input_ids"]
        assert entry["input_ids"] == wanted, entry["text"]


def test_pairs_are_those_of_the_first_bert_tokenizer(
    model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = model_folder("bert", pair=True)
    tokenizer = python_bert(model, tmp_path)
    entries = entries_of(model)
    assert [entry["pair"] for entry in entries] == [*GOLDEN_TEXTS[1:], GOLDEN_TEXTS[0]]
    for entry in entries:
        wanted = tokenizer(
            entry["text"], entry["pair"], truncation="longest_first", max_length=MAX_LENGTH,
            return_token_type_ids=True,
        )  # fmt: skip
        assert entry["input_ids"] == wanted["input_ids"], entry["text"]
        assert entry["token_type_ids"] == wanted["token_type_ids"], entry["text"]
        assert set(entry["token_type_ids"]) == {0, 1}


def test_logits_and_labels_are_those_of_transformers(
    model_folder: Callable[..., Path], reference: Callable[..., np.ndarray]
) -> None:
    labels_seen = set()
    for family, pair in (("bert", False), ("bert", True), ("xlm-roberta", False)):
        model = model_folder(family, pair=pair)
        for entry in entries_of(model):
            ids = np.array([entry["input_ids"]])
            types = {"token_type_ids": np.array([entry["token_type_ids"]])} if pair else {}
            wanted = reference(model, input_ids=ids, attention_mask=np.ones_like(ids), **types)[0]
            assert np.abs(np.array(entry["logits"]) - wanted).max() <= 1e-5
            assert entry["label"] == ("negative", "positive")[int(wanted.argmax())]
            labels_seen.add(entry["label"])
    assert labels_seen == {"negative", "positive"}


def test_each_text_is_asked_alone_and_unpadded(model_folder: Callable[..., Path]) -> None:
    asked = []

    def predict(*inputs: np.ndarray) -> np.ndarray:
        asked.append(inputs)
        return np.array([[0.0, 2.0]], dtype=np.float32)

    task = TaskSpec(("no", "yes"), 16, ("input_ids", "attention_mask", "token_type_ids"), pair=True)
    entries = golden_vectors(load_tokenizer(model_folder("bert"), 16), predict, task)
    assert len(asked) == len(entries) == 32
    for (ids, mask, types), entry in zip(asked, entries, strict=True):
        assert ids.dtype == mask.dtype == types.dtype == np.int64
        assert ids.tolist() == [entry["input_ids"]]
        assert mask.tolist() == [[1] * len(entry["input_ids"])]
        assert types.tolist() == [entry["token_type_ids"]]
        assert len(entry["input_ids"]) <= 16
        assert entry["label"] == "yes"
        assert entry["logits"] == [0.0, 2.0]


def test_only_the_inputs_of_the_task_are_sent_in_its_order() -> None:
    sent: list[list[Any]] = []

    def predict(*inputs: np.ndarray) -> np.ndarray:
        sent.append([array.tolist() for array in inputs])
        return np.zeros((1, 3), dtype=np.float32)

    assert predict_one(predict, ("input_ids", "attention_mask"), [7, 8], [0, 1]).shape == (3,)
    predict_one(predict, ("input_ids", "attention_mask", "token_type_ids"), [7, 8], [0, 1])
    assert sent == [[[[7, 8]], [[1, 1]]], [[[7, 8]], [[1, 1]], [[0, 1]]]]
