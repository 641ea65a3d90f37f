"""Raw text of any size as rows of tokens: tokenized once, packed, and memory-mapped (Arrow, by `datasets`).

A row is [CLS], max_length - 2 tokens, [SEP], with no padding: what does not fit begins the next row, as in
RoBERTa's pre-training (https://arxiv.org/abs/1907.11692, "full sentences"). The lines of a document are
joined; a blank line or a file's end ends it, with one more [SEP]. The tokens of the last, unfilled row are
dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.distill.corpus_text import check_text_files, pieces
from stillroom.distill.shards import PackedRows, ShardWriter, open_rows
from stillroom.distill.special_tokens import SpecialTokens, plain_tokenizer, read_special_tokens
from stillroom.errors import UsageError
from stillroom.extras import require
from stillroom.files import read_json, require_space, sha256_json, staged_folder, write_atomic, write_json
from stillroom.progress import progress_bar

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 1  # of the folder; another one is made again
BATCH_CHARACTERS = 2**19  # tokenized at once: what they become takes some 100 MB
BYTES_PER_TOKEN = 3  # of text, a guess on the low side: English has 4 to 5


@dataclass(frozen=True)
class Corpus:
    """train and held_out share no row, though perhaps documents. facts: counts, for the lineage.

    sha256: fingerprint of texts, tokenizer, max_length and the choice of held-out rows.
    """

    train: PackedRows
    held_out: PackedRows
    special: SpecialTokens
    max_length: int
    facts: dict[str, Any]
    sha256: str


def build_corpus(
    files: Sequence[Path],
    tokenizer_json: str,
    max_length: int,
    folder: Path,
    held_out_share: float = 0.02,
    split_seed: int = 0,
) -> Corpus:
    """Tokenize and pack UTF-8 text files into folder, or open what lies there already for these arguments.

    held_out_share: of the rows, above 0 to 0.5: of every 1 / held_out_share consecutive rows one, drawn with
    split_seed, is never trained on. Memory does not grow with the text. Raises UsageError for text that is
    missing, not UTF-8 or too short, and for a disk too small.
    """
    require("datasets", "tokenizers")
    if max_length < 3:
        raise UsageError(f"max_length {max_length}: expected 3 or more, two of them [CLS] and [SEP]")
    if not 0 < held_out_share <= 0.5:
        raise UsageError(f"held_out_share {held_out_share:g}: expected above 0, to 0.5")
    key = corpus_key(check_text_files(files), tokenizer_json, max_length, held_out_share, split_seed)
    with contextlib.suppress(UsageError, KeyError, TypeError):  # absent or another's: made again
        if read_json(folder / "corpus.json")["key"] == key:
            return open_corpus(folder)
    special = read_special_tokens(tokenizer_json)
    text_bytes = sum(path.stat().st_size for path in files)
    require_space(folder, estimated_bytes(text_bytes, max_length))
    one_of = round(1 / held_out_share)
    with staged_folder(folder) as partial:
        with ExitStack() as stack:
            train, held_out = (
                stack.enter_context(contextlib.closing(ShardWriter(partial, name, max_length)))
                for name in ("train", "held-out")
            )
            rows_before = 0
            for ids, starts in _packed(files, special, max_length):
                chosen = held_out_rows(rows_before, len(ids), one_of, split_seed)
                held_out.write(ids[chosen], starts[chosen])
                train.write(ids[~chosen], starts[~chosen])
                rows_before += len(ids)
        if not held_out.rows or not train.rows:
            raise UsageError(
                f"{rows_before} rows of {max_length} tokens are too few to hold {held_out_share:g} of them "
                f"out: {one_of} or more are needed; bring more text, or raise held_out_share"
            )
        facts = {"train_rows": train.rows, "held_out_rows": held_out.rows, "text_bytes": text_bytes,
                 "tokens": rows_before * max_length, "max_length": max_length}  # fmt: skip
        write_atomic(partial / "tokenizer.json", tokenizer_json)
        write_json(partial / "corpus.json", {"key": key, "facts": facts})
    return open_corpus(folder)


def open_corpus(folder: Path) -> Corpus:
    """Map a folder that build_corpus wrote. Raises UsageError when there is none."""
    described = read_json(folder / "corpus.json")
    tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")

    return Corpus(
        train=open_rows(folder, "train"),
        held_out=open_rows(folder, "held-out"),
        special=read_special_tokens(tokenizer_json, str(folder / "tokenizer.json")),
        max_length=int(described["facts"]["max_length"]),
        facts=dict(described["facts"]),
        sha256=sha256_json(described["key"]),
    )


def corpus_key(
    files_sha256: Sequence[str], tokenizer_json: str, max_length: int, held_out_share: float, split_seed: int
) -> dict[str, Any]:
    """What a corpus is made from, as JSON."""
    return {
        "format": FORMAT,
        "files_sha256": list(files_sha256),
        "tokenizer_sha256": sha256_json(tokenizer_json),
        "max_length": max_length,
        "held_out_share": held_out_share,
        "split_seed": split_seed,
    }


def estimated_bytes(text_bytes: int, max_length: int) -> int:
    """Room a corpus takes, estimated from its text: 4 bytes and a bit for each token."""
    rows = text_bytes / BYTES_PER_TOKEN / max(1, max_length - 2)
    return round(rows * max_length * (4 + 1 / 8))


def held_out_rows(first: int, count: int, one_of: int, seed: int) -> np.ndarray:
    """Which of the rows first ... first + count - 1 are held out, bool [count]: one in each one_of rows."""
    numbers = np.arange(first, first + count)
    blocks = np.unique(numbers // one_of)
    chosen = [block * one_of + np.random.default_rng([seed, block]).integers(one_of) for block in blocks]
    return np.isin(numbers, chosen)


def _packed(
    files: Sequence[Path], special: SpecialTokens, max_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows as they fill up: ids int32 [rows, max_length] and word starts bool [rows, max_length]."""
    tokenizer = plain_tokenizer(special.tokenizer_json)
    inner = max_length - 2
    left_ids, left_starts = np.empty(0, dtype=np.int32), np.empty(0, dtype=bool)
    for lines in _batches(files):
        found = _encode(tokenizer, lines, special.sep_id)
        ids, starts = np.concatenate([left_ids, found[0]]), np.concatenate([left_starts, found[1]])
        rows = len(ids) // inner
        left_ids, left_starts = ids[rows * inner :], starts[rows * inner :]
        packed = np.empty((rows, max_length), dtype=np.int32)
        packed[:, 0], packed[:, -1] = special.cls_id, special.sep_id
        packed[:, 1:-1] = ids[: rows * inner].reshape(rows, inner)
        begins = np.ones((rows, max_length), dtype=bool)
        begins[:, 1:-1] = starts[: rows * inner].reshape(rows, inner)
        yield packed, begins


def _batches(files: Sequence[Path]) -> Iterator[list[str]]:
    """Lines in batches to tokenize at once, "" after each document; shown as a bar over the bytes."""
    batch: list[str] = []
    characters, in_document = 0, False
    with progress_bar(sum(path.stat().st_size for path in files), "tokenizing", "B") as bar:
        for path in files:
            for text, read in pieces(path):
                bar.update(read)
                if text or in_document:
                    # A space, so that tokenizers which tell a word's place see it within the text.
                    batch.append(f" {text}" if text and in_document else text)
                    characters += len(text)
                in_document = bool(text)
                if characters >= BATCH_CHARACTERS:
                    yield batch
                    batch, characters = [], 0
    yield batch


def _encode(tokenizer: Tokenizer, lines: list[str], sep_id: int) -> tuple[np.ndarray, np.ndarray]:
    """ids int32 [tokens] and word starts bool [tokens] of lines one after the other; "" is a [SEP]."""
    ids = [np.empty(0, dtype=np.int32)]
    starts = [np.empty(0, dtype=bool)]
    for line, encoding in zip(lines, tokenizer.encode_batch(lines, add_special_tokens=False), strict=True):
        if not line:
            ids.append(np.array([sep_id], dtype=np.int32))
            starts.append(np.ones(1, dtype=bool))
            continue
        words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64)
        ids.append(np.array(encoding.ids, dtype=np.int32))
        starts.append(np.diff(words, prepend=-2) != 0)
    return np.concatenate(ids), np.concatenate(starts)
