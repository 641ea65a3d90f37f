"""Text -> token ids, with the same tokenizer file in training, verification and the app.

Only the `tokenizers` library is used, so that no answer depends on transformers at prediction time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.errors import UsageError
from stillroom.extras import require
from stillroom.files import read_json
from stillroom.kinds import kind_of
from stillroom.task import TaskSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from stillroom.text import Row

MAX_TOKENIZER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Tokens:
    """Encoded rows, flat: row i is ids[offsets[i]:offsets[i + 1]].

    ids, type_ids: int32 [total_tokens]. offsets: int64 [rows + 1].
    labels: the task's targets, as kinds.py makes them: int64 [rows] for classes (-1 if unknown), else
    float32 [rows, labels] (nan if unknown).
    """

    ids: np.ndarray
    type_ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    pad_id: int

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, int64 [rows]."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.labels)


def tokenizer_from_json(text: str, max_length: int, where: str = "the tokenizer") -> Tokenizer:
    """A tokenizer from tokenizer.json text that cuts at max_length tokens (longest first, for pairs).

    Raises UsageError when the text is not a tokenizer.
    """
    require("tokenizers")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else it warns when a child process starts
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the Rust side raises bare Exception
        raise UsageError(f"{where} is not a tokenizer: {error}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    return tokenizer


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Load folder/tokenizer.json. Raises UsageError when it is missing, too large, or not a tokenizer."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UsageError(f"no tokenizer.json in {folder}")
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise UsageError(f"{path} is over {MAX_TOKENIZER_BYTES // 2**20} MB, which no BERT tokenizer is")
    try:
        return tokenizer_from_json(path.read_text(encoding="utf-8"), max_length, str(path))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error}") from None


def pad_id_of(model_folder: Path, tokenizer: Tokenizer) -> int:
    """The id that fills padded positions: the model config's, else the tokenizer's own."""
    configured = read_json(model_folder / "config.json").get("pad_token_id")
    if isinstance(configured, int):
        return configured
    found = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((int(token_id) for token_id in found if token_id is not None), 0)


def check_text(text: str, where: str = "the text") -> str:
    """Return text, or raise UsageError when it cannot be written as UTF-8 (a lone surrogate)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} is not valid Unicode at character {error.start}") from None
    return text


def _check_room(tokenizer: Tokenizer, *, pair: bool) -> None:
    special = tokenizer.num_special_tokens_to_add(pair)
    longest = (tokenizer.truncation or {}).get("max_length", special)
    if longest < special:
        raise UsageError(f"max_length {longest}: the special tokens alone need {special}")


def encode_one(tokenizer: Tokenizer, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
    """One text, or pair of texts -> (ids, type ids), special tokens included, cut to max_length."""
    check_text(text)
    if pair is not None:
        check_text(pair, "the second text")
    _check_room(tokenizer, pair=pair is not None)
    encoding = tokenizer.encode(text, pair)
    return encoding.ids, encoding.type_ids


def encode_rows(tokenizer: Tokenizer, rows: Sequence[Row], task: TaskSpec, pad_id: int) -> Tokens:
    """Encode rows and look their labels up in task.labels."""
    for row in rows:
        check_text(row.text, row.where)
        check_text(row.pair or "", row.where)
    _check_room(tokenizer, pair=task.pair)
    encodings = tokenizer.encode_batch(
        [row.text if row.pair is None else (row.text, row.pair) for row in rows]
    )
    lengths = [len(encoding.ids) for encoding in encodings]
    return Tokens(
        ids=np.array([token for encoding in encodings for token in encoding.ids], dtype=np.int32),
        type_ids=np.array([kind for encoding in encodings for kind in encoding.type_ids], dtype=np.int32),
        offsets=offsets_of(lengths),
        labels=kind_of(task.kind).targets([row.label for row in rows], task.labels),
        pad_id=pad_id,
    )


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where rows of these lengths begin in a flat array, and where the last ends: int64 [rows + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def without_labels(tokens: Tokens) -> Tokens:
    """The same rows, of which no label is known: -1 for a class, nan for the other kinds' targets."""
    unknown = -1 if np.issubdtype(tokens.labels.dtype, np.integer) else np.nan
    return replace(tokens, labels=np.full_like(tokens.labels, unknown))


def some_rows(tokens: Tokens, rows: np.ndarray) -> Tokens:
    """These rows, in this order."""
    at = [np.arange(tokens.offsets[row], tokens.offsets[row + 1]) for row in rows]
    flat = np.concatenate([np.empty(0, dtype=np.int64), *at])
    return replace(
        tokens,
        ids=tokens.ids[flat],
        type_ids=tokens.type_ids[flat],
        offsets=offsets_of(tokens.lengths[rows]),
        labels=tokens.labels[rows],
    )


def joined(tokens: Tokens, more: Tokens) -> Tokens:
    """The rows of tokens, then those of more. Both are of one tokenizer and one task."""
    if tokens.pad_id != more.pad_id or tokens.labels.shape[1:] != more.labels.shape[1:]:
        raise ValueError("these rows are of different tokenizers or tasks")
    return Tokens(
        ids=np.concatenate([tokens.ids, more.ids]),
        type_ids=np.concatenate([tokens.type_ids, more.type_ids]),
        offsets=np.concatenate([tokens.offsets, more.offsets[1:] + tokens.offsets[-1]]),
        labels=np.concatenate([tokens.labels, more.labels]),
        pad_id=tokens.pad_id,
    )


def spread_rows(count: int, wanted: int) -> np.ndarray:
    """At most wanted of the rows below count, evenly spread, the first and the last among them."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(int)


def padded_inputs(
    tokens: Tokens, rows: Sequence[int] | np.ndarray, inputs: Sequence[str], length: int | None = None
) -> dict[str, np.ndarray]:
    """Some rows as model inputs: name -> int64 [len(rows), length], padded on the right.

    length defaults to the longest of the rows; a row longer than a given length is cut to it.
    """
    width = int(tokens.lengths[rows].max()) if length is None else length
    shape = (len(rows), width)
    filled = {
        "input_ids": np.full(shape, tokens.pad_id, dtype=np.int64),
        "attention_mask": np.zeros(shape, dtype=np.int64),
        "token_type_ids": np.zeros(shape, dtype=np.int64),
    }
    for line, row in enumerate(rows):
        start, end = tokens.offsets[row], min(tokens.offsets[row + 1], tokens.offsets[row] + width)
        filled["input_ids"][line, : end - start] = tokens.ids[start:end]
        filled["attention_mask"][line, : end - start] = 1
        filled["token_type_ids"][line, : end - start] = tokens.type_ids[start:end]
    return {name: filled[name] for name in inputs}
