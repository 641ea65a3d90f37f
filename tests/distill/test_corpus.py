"""A corpus is the text, token for token; rows are full, some held out, and nothing is made twice."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from stillroom.distill import corpus as corpus_module
from stillroom.distill import corpus_text, shards
from stillroom.distill.corpus import Corpus, build_corpus, estimated_bytes, held_out_rows, open_corpus
from stillroom.errors import UsageError

LENGTH = 16
SHARE = 0.25
LINES = ("the food was lovely, really", "what a terrible place", "[MASK] is not a word [SEP]", "unbelievably")


def tokenizer_json(folder: Path) -> str:
    return (folder / "tokenizer.json").read_text("utf-8")


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def in_order(corpus: Corpus, share: float = SHARE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All rows as they were packed: ids and word starts, [rows, length]."""
    rows = len(corpus.train) + len(corpus.held_out)
    chosen = held_out_rows(0, rows, round(1 / share), seed)
    found = []
    for train, held_out in zip(
        corpus.train.read(np.arange(len(corpus.train))),
        corpus.held_out.read(np.arange(len(corpus.held_out))),
        strict=True,
    ):
        whole = np.empty((rows, corpus.max_length), dtype=train.dtype)
        whole[~chosen], whole[chosen] = train, held_out
        found.append(whole)
    return found[0], found[1]


def expected_stream(folder: Path, documents: list[list[str]]) -> list[int]:
    """What transformers' tokenizer makes of the documents, each with a separator behind it."""
    theirs = AutoTokenizer.from_pretrained(folder)
    stream: list[int] = []
    for document in documents:
        stream += theirs(" ".join(document), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        stream.append(theirs.sep_token_id)
    return stream


def build(folder: Path, model: Path, *texts: str, share: float = SHARE, length: int = LENGTH) -> Corpus:
    files = [write(folder / f"{index}.txt", text) for index, text in enumerate(texts)]
    return build_corpus(files, tokenizer_json(model), length, folder / "corpus", share)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_xlmr"])
def test_rows_are_the_text(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Path = request.getfixturevalue(name)
    documents = [list(LINES[:2]) * 5, [LINES[2]], list(LINES) * 9, list(LINES[1:])]
    first = "\n".join(documents[0]) + "\n\n\n" + documents[1][0]  # the file's end ends its document
    second = "\r\n".join(documents[2]) + "\r\n \t\r\n" + "\n".join(documents[3])
    corpus = build(tmp_path, model, first, second)
    stream = expected_stream(model, documents)
    ids, starts = in_order(corpus)
    inner = LENGTH - 2
    assert ids[:, 1:-1].reshape(-1).tolist() == stream[: len(stream) // inner * inner]
    assert set(ids[:, 0]) == {corpus.special.cls_id} and set(ids[:, -1]) == {corpus.special.sep_id}
    assert starts[:, 0].all() and starts[:, -1].all()
    assert corpus.facts["tokens"] == ids.size and corpus.facts["train_rows"] == len(corpus.train)
    assert ids.dtype == np.int64 and starts.dtype == bool


def test_word_starts_are_tokens_without_a_joiner(tiny_bert: Path, tmp_path: Path) -> None:
    corpus = build(tmp_path, tiny_bert, "\n".join(LINES * 30))
    ids, starts = in_order(corpus)
    names = AutoTokenizer.from_pretrained(tiny_bert).convert_ids_to_tokens(ids.reshape(-1).tolist())
    assert starts.reshape(-1).tolist() == [not name.startswith("##") for name in names]
    assert not starts.all()


documents_of_lines = st.lists(
    st.lists(st.sampled_from(LINES), min_size=1, max_size=6), min_size=1, max_size=12
)


@settings(max_examples=25)
@given(documents_of_lines, st.integers(3, 9), st.integers(24, 60))
def test_any_documents_and_any_pieces(
    tiny_bert: Path, documents: list[list[str]], length: int, piece: int
) -> None:
    documents = [*documents, [LINES[0]] * 20]
    text = "\n\n".join("\n".join(document) for document in documents)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_text, "MAX_LINE_BYTES", piece)
        patch.setattr(corpus_module, "BATCH_CHARACTERS", 3 * piece)
        patch.setattr(shards, "SHARD_ROWS", 5)
        corpus = build(Path(name), tiny_bert, text, length=length)
        stream = expected_stream(tiny_bert, documents)
        ids, _ = in_order(corpus)
        assert len(list(Path(name, "corpus").glob("train-*.arrow"))) >= min(2, len(corpus.train) // 20)
    assert ids[:, 1:-1].reshape(-1).tolist() == stream[: ids.shape[0] * (length - 2)]
    assert 0 <= len(stream) - ids.shape[0] * (length - 2) < length - 2


@given(st.text(alphabet=st.sampled_from("ab é漢😀\t"), max_size=90), st.integers(1, 9))
def test_pieces_of_a_line_are_the_line(text: str, piece: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_text, "MAX_LINE_BYTES", piece)
        found = list(corpus_text.pieces(write(Path(name) / "a", text)))
    assert found[-1] == ("", 0)
    assert "".join("".join(one for one, _ in found).split()) == "".join(text.split())
    assert sum(read for _, read in found) <= len(text.encode())


def test_a_word_is_not_cut_where_a_space_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_text, "MAX_LINE_BYTES", 8)
    found = [one for one, _ in corpus_text.pieces(write(tmp_path / "a", "lovely food and awful rooms"))]
    assert " ".join(found).split() == ["lovely", "food", "and", "awful", "rooms"]


def test_a_byte_order_mark_is_no_text(tiny_bert: Path, tmp_path: Path) -> None:
    plain = build(tmp_path, tiny_bert, "the food\n" * 90)
    marked = write(tmp_path / "marked.txt", "\ufeff" + "the food\n" * 90)
    corpus = build_corpus([marked], tokenizer_json(tiny_bert), LENGTH, tmp_path / "other", SHARE)
    assert (in_order(plain)[0] == in_order(corpus)[0]).all()


@given(st.integers(2, 60), st.integers(1, 400), st.integers(0, 3), st.integers(1, 100))
def test_one_row_of_each_block_is_held_out(one_of: int, rows: int, seed: int, at_once: int) -> None:
    whole = held_out_rows(0, rows, one_of, seed)
    parts = [
        held_out_rows(first, min(at_once, rows - first), one_of, seed) for first in range(0, rows, at_once)
    ]
    assert (whole == np.concatenate(parts)).all()
    blocks = whole[: rows // one_of * one_of].reshape(-1, one_of)
    assert (blocks.sum(axis=1) == 1).all()
    assert whole.sum() - len(blocks) in (0, 1)


def test_the_seed_chooses_the_held_out_rows() -> None:
    assert (held_out_rows(0, 5000, 50, 0) != held_out_rows(0, 5000, 50, 1)).any()
    places = np.flatnonzero(held_out_rows(0, 50_000, 50, 0)) % 50
    assert len(set(places.tolist())) == 50  # not always the same place of a block


def test_made_once_and_again_when_something_changed(tiny_bert: Path, tmp_path: Path) -> None:
    build(tmp_path, tiny_bert, "the food\n" * 90)
    made = (tmp_path / "corpus" / "train-00000.arrow").stat().st_ino
    first = build(tmp_path, tiny_bert, "the food\n" * 90)
    assert (tmp_path / "corpus" / "train-00000.arrow").stat().st_ino == made
    assert open_corpus(tmp_path / "corpus").sha256 == first.sha256
    assert build(tmp_path, tiny_bert, "the room\n" * 90).sha256 != first.sha256
    assert (tmp_path / "corpus" / "train-00000.arrow").stat().st_ino != made
    longer = build(tmp_path, tiny_bert, "the room\n" * 90, length=LENGTH + 1)
    assert longer.max_length == LENGTH + 1
    assert len(build(tmp_path, tiny_bert, "the room\n" * 90, share=0.5).held_out) > len(longer.held_out)
    (tmp_path / "corpus" / "corpus.json").write_text("{")
    assert len(build(tmp_path, tiny_bert, "the room\n" * 90).train) > 5
    assert not list(tmp_path.glob(".corpus*"))


def mistakes(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    yield r"no text: give --text FILE", []
    yield r"no such text file: .*absent\.txt", [folder / "absent.txt"]
    yield r"is a folder: give its files, for example --text .*/\*\.txt", [folder]
    yield r"empty\.txt is empty: give", [write(folder / "empty.txt", "")]
    latin = folder / "latin.txt"
    latin.write_bytes(b"fine\nfine\ncaf\xe9 au lait\n")
    yield r"latin\.txt:3: not valid UTF-8: convert it", [latin]
    cut = folder / "cut.txt"
    cut.write_bytes(b"fine\n\xe6\xbc")
    yield r"cut\.txt:2: not valid UTF-8", [cut]
    yield r"0 rows of 16 tokens are too few to hold 0\.25", [write(folder / "blank.txt", "\n \n\t\n")]
    yield r"3 rows of 16 tokens .* 4 or more are needed", [write(folder / "few.txt", "the food\n" * 26)]


@pytest.mark.parametrize("number", range(8))
def test_mistakes_are_told(tiny_bert: Path, tmp_path: Path, number: int) -> None:
    words, files = list(mistakes(tmp_path))[number]
    with pytest.raises(UsageError, match=words):
        build_corpus(files, tokenizer_json(tiny_bert), LENGTH, tmp_path / "corpus", SHARE)
    assert not (tmp_path / "corpus").exists() and not list(tmp_path.glob(".corpus*"))


@pytest.mark.parametrize(("length", "share"), [(2, 0.1), (16, 0.0), (16, 0.6)])
def test_settings_that_cannot_be(tiny_bert: Path, tmp_path: Path, length: int, share: float) -> None:
    with pytest.raises(UsageError, match="expected"):
        build(tmp_path, tiny_bert, "the food\n" * 90, length=length, share=share)


def test_a_disk_too_small_is_told_before(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def refuse(folder: Path, needed: int) -> None:
        asked.append(needed)
        raise UsageError("no disk space")

    monkeypatch.setattr(corpus_module, "require_space", refuse)
    with pytest.raises(UsageError, match="no disk space"):
        build(tmp_path, tiny_bert, "the food\n" * 90)
    assert asked == [estimated_bytes(9 * 90, LENGTH)]


def test_the_estimate_is_above_what_english_takes(tiny_bert: Path, tmp_path: Path) -> None:
    text = "what a wonderful service this place really was\n" * 4000
    build(tmp_path, tiny_bert, text, length=128, share=0.02)
    taken = sum(path.stat().st_size for path in (tmp_path / "corpus").glob("*.arrow"))
    assert taken < estimated_bytes(len(text), 128) < 4 * taken


def test_a_folder_with_any_name(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a::b #1 %20"
    folder.mkdir()
    assert len(build(folder, tiny_bert, "the food\n" * 90).train) > 5


def test_the_folder_says_what_it_was_made_from(
    tiny_bert: Path, tmp_path: Path, make_model_folder: Callable[..., Path]
) -> None:
    corpus = build(tmp_path, tiny_bert, "the food\n" * 90)
    said = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    assert said["facts"] == corpus.facts and said["key"]["max_length"] == LENGTH
    assert str(tmp_path) not in json.dumps(said)
