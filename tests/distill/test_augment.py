"""Altered copies: special tokens untouched, lengths as promised, the same for a seed, and never a label."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from stillroom.distill import augment
from stillroom.distill.augment import augmented, drop_tokens, mlm_filler, never_drawn, replace_tokens
from stillroom.distill.task_loss import has_label
from stillroom.errors import UsageError
from stillroom.kinds import KINDS
from stillroom.tokens import Tokens, load_tokenizer

VOCABULARY = 20
SPECIAL = (0, 2, 3, 4)
MASK = 4
HEADS = {"bert": "cls.predictions.bias", "distilbert": "vocab_projector.bias", "roberta": "lm_head.bias"}

# Rows as they come, and such as have no token, or none but special ones.
some_ids = st.lists(st.integers(0, VOCABULARY - 1), max_size=12)
some_rows = st.lists(some_ids, max_size=6)


def tokens_of(rows: list[list[int]], kind: str = "text-classification") -> Tokens:
    """Rows with labels; each token's type id tells its place in its row."""
    shape = (len(rows),) if kind == "text-classification" else (len(rows), 2)
    return Tokens(
        ids=np.array([token for row in rows for token in row], dtype=np.int32),
        type_ids=np.array([place for row in rows for place in range(len(row))], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        labels=np.ones(shape, dtype=np.int64 if len(shape) == 1 else np.float32),
        pad_id=0,
    )


def rows_of(tokens: Tokens) -> list[list[int]]:
    spans = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    return [tokens.ids[start:end].tolist() for start, end in spans]


def scores_of(ids: np.ndarray) -> np.ndarray:
    """Logits that depend on what stands before each token: [rows, length, VOCABULARY]."""
    around = np.cumsum(ids, axis=1)[..., None] + np.arange(VOCABULARY)
    return np.sin(around.astype(np.float32)) * 5


class Filler:
    """A masked language model of plain arithmetic, and what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        assert ids.shape == mask.shape and ids.dtype == mask.dtype == np.int64
        self.seen.append((ids, mask))
        return scores_of(ids)


def same(first: Tokens, second: Tokens) -> bool:
    names = ("ids", "type_ids", "offsets", "labels")
    return all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=name == "labels")
        for name in names
    )


def is_subsequence(short: list[int], long: list[int]) -> bool:
    rest = iter(long)
    return all(token in rest for token in short)


@given(some_rows, st.integers(0, 3), st.integers(0, 99), st.floats(0, 1))
def test_dropped_tokens(rows: list[list[int]], copies: int, seed: int, share: float) -> None:
    tokens = tokens_of(rows)
    found = drop_tokens(tokens, SPECIAL, copies, seed, share)
    assert len(found) == copies * len(rows) and found.labels.tolist() == [-1] * len(found)
    assert found.offsets.dtype == np.int64 and found.ids.dtype == found.type_ids.dtype == np.int32
    for line, row in enumerate(rows_of(found)):
        before = rows[line % len(rows)]
        places = found.type_ids[slice(*found.offsets[line : line + 2])].tolist()
        assert places == sorted(set(places)) and row == [before[place] for place in places]
        assert [one for one in row if one in SPECIAL] == [one for one in before if one in SPECIAL]
        assert any(one not in SPECIAL for one in row) == any(one not in SPECIAL for one in before)
    assert same(found, drop_tokens(tokens, SPECIAL, copies, seed, share))
    assert tokens.labels.tolist() == [1] * len(rows)


def test_as_many_tokens_are_dropped_as_asked_for() -> None:
    tokens = tokens_of([[2, *[7] * 100, 3]] * 100)
    found = drop_tokens(tokens, SPECIAL, 2, seed=0)
    assert 1 - (found.lengths.mean() - 2) / 100 == pytest.approx(0.15, abs=0.01)
    assert rows_of(drop_tokens(tokens, SPECIAL, 1, 0, share=0.0)) == rows_of(tokens)
    assert set(drop_tokens(tokens, SPECIAL, 1, 0, share=1.0).lengths.tolist()) == {3}
    assert not same(found, drop_tokens(tokens, SPECIAL, 2, seed=1))
    first, second = rows_of(found)[:100], rows_of(found)[100:]
    assert first != second  # a second copy is another one


@given(some_rows, st.integers(0, 3), st.integers(0, 99), st.floats(0.01, 1))
def test_replaced_tokens(rows: list[list[int]], copies: int, seed: int, share: float) -> None:
    tokens, fill = tokens_of(rows), Filler()
    found = replace_tokens(tokens, SPECIAL, MASK, fill, copies, seed, share)
    assert found.lengths.tolist() == tokens.lengths.tolist() * copies
    assert found.type_ids.tolist() == tokens.type_ids.tolist() * copies
    assert found.labels.tolist() == [-1] * len(found) and found.ids.dtype == np.int32
    for line, row in enumerate(rows_of(found)):
        for after, before in zip(row, rows[line % len(rows)], strict=True):
            assert after == before if before in SPECIAL else after not in SPECIAL
    assert same(found, replace_tokens(tokens, SPECIAL, MASK, Filler(), copies, seed, share))
    shown = [row[kept == 1].tolist() for ids, mask in fill.seen for row, kept in zip(ids, mask, strict=True)]
    for row in shown:  # every row it was shown is one of ours, with as many masks more as were asked for
        possible = [before for before in rows if len(before) == len(row)]
        fitting = []
        for before in possible:
            hidden = [place for place, token in enumerate(row) if token != before[place]]
            content = [token for token in before if token not in SPECIAL]
            fitting.append(
                all(row[place] == MASK and before[place] not in SPECIAL for place in hidden)
                and len(hidden) == (max(1, round(share * len(content))) if content else 0)
            )
        assert any(fitting)


def test_replacements_are_drawn_from_the_likeliest_as_often_as_the_model_says() -> None:
    logits = np.linspace(-1, 1, VOCABULARY, dtype=np.float32)

    def fill(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.broadcast_to(logits, (*ids.shape, VOCABULARY))

    special = (0, 2, 3, 4, 19, 500)  # 19 would be the likeliest; 500 is outside the model's vocabulary
    found = replace_tokens(tokens_of([[2, 7, 3]] * 20_000), special, MASK, fill, 1, seed=0)
    counts = np.bincount(found.ids[1::3], minlength=VOCABULARY)
    likeliest = np.arange(9, 19)
    assert counts.sum() == counts[likeliest].sum() == 20_000
    wanted = np.exp(logits[likeliest]) / np.exp(logits[likeliest]).sum()
    assert counts[likeliest] / 20_000 == pytest.approx(wanted, abs=0.01)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[2, *range(5, 5 + size), 3] for size in (1, 9, 4, 14, 2, 9)]
    whole = Filler()
    found = replace_tokens(tokens_of(rows), SPECIAL, MASK, whole, 2, seed=3)
    monkeypatch.setattr(augment, "BATCH_TOKENS", 20)
    small = Filler()
    assert same(found, replace_tokens(tokens_of(rows), SPECIAL, MASK, small, 2, seed=3))
    assert len(whole.seen) == 1 and len(small.seen) > 6
    assert all(ids.size <= 20 for ids, _ in small.seen)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_unknown_whatever_the_kind(kind: str) -> None:
    tokens = tokens_of([[2, 7, 3], [2, 3]], kind)
    for found in (
        drop_tokens(tokens, SPECIAL, 2, 0),
        replace_tokens(tokens, SPECIAL, MASK, Filler(), 2, 0),
    ):
        assert found.labels.shape == (4, *tokens.labels.shape[1:])
        assert not has_label(torch.from_numpy(found.labels)).any()


def masked_model(folder: Path, family: str, make_model_folder: Callable[..., Path]) -> Path:
    """A folder with a masked language model of random weights, as published checkpoints are."""
    make_model_folder(folder, family)
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", HEADS)
def test_the_filler_is_the_models_own_forward_pass(
    tmp_path: Path, make_model_folder: Callable[..., Path], family: str
) -> None:
    folder = masked_model(tmp_path / "mlm", family, make_model_folder)
    fill = mlm_filler(folder)
    assert fill is not None
    ids, mask = np.array([[2, 9, 4, 3], [2, 4, 3, 0]]), np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids), torch.from_numpy(mask)).logits.numpy()
    found = fill(ids, mask)
    assert found.dtype == np.float32 and found.shape == (2, 4, 200)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_folders_without_a_masked_lm_head(
    tmp_path: Path, tiny_bert: Path, tiny_teacher: Path, make_model_folder: Callable[..., Path]
) -> None:
    from safetensors.torch import load_file, save_file

    assert mlm_filler(tiny_bert) is None and mlm_filler(tiny_teacher) is None
    folder = masked_model(tmp_path / "mlm", "bert", make_model_folder)
    weights = load_file(folder / "model.safetensors")
    assert weights.pop("cls.predictions.transform.dense.weight") is not None
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert mlm_filler(folder) is None  # half a head answers at random
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": "wide"}', encoding="utf-8")
    with pytest.raises(UsageError, match="could not be loaded"):
        mlm_filler(folder)


def test_what_is_never_drawn(tiny_bert: Path, tiny_xlmr: Path) -> None:
    for folder, special in ((tiny_bert, {0, 1, 2, 3, 4}), (tiny_xlmr, {0, 1, 2, 3})):
        tokenizer = load_tokenizer(folder, 16)
        found = set(never_drawn(tokenizer).tolist())
        words = {tokenizer.token_to_id(word) for word in ("the", "▁the", "food", "▁food")} - {None}
        mask = tokenizer.token_to_id("[MASK]") or tokenizer.token_to_id("<mask>")
        assert special | {mask} | set(range(tokenizer.get_vocab_size(), 200)) <= found
        assert words and not words & found


@pytest.fixture
def tokens(tiny_bert: Path, review_tokens: Callable[..., Tokens]) -> Tokens:
    return review_tokens(tiny_bert, 20, ("good", "bad"))


def test_augmented_by_the_head_there_is(
    tmp_path: Path, tiny_bert: Path, tokens: Tokens, make_model_folder: Callable[..., Path]
) -> None:
    dropped, method = augmented(tokens, tiny_bert, "a", 2, 0, tmp_path / "dropped")
    assert method == "token dropout, the teacher has no masked-LM head"
    assert same(dropped, drop_tokens(tokens, never_drawn(load_tokenizer(tiny_bert, 32)), 2, 0))
    folder = masked_model(tmp_path / "mlm", "bert", make_model_folder)
    replaced, method = augmented(tokens, folder, "b", 2, 0, tmp_path / "replaced")
    assert method == "word replacement by the teacher's masked-LM head"
    assert replaced.lengths.tolist() == tokens.lengths.tolist() * 2
    assert replaced.ids.max() < load_tokenizer(tiny_bert, 32).get_vocab_size()
    changed = replaced.ids != np.tile(tokens.ids, 2)
    assert 0.05 < changed.mean() < 0.2
    # With no token of the tokenizer to mask a word with, the head is of no use.
    tokenizer = (folder / "tokenizer.json").read_text("utf-8").replace("[MASK]", "[HIDE]")
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    settings = (folder / "tokenizer_config.json").read_text("utf-8").replace('"mask_token": "[MASK]", ', "")
    (folder / "tokenizer_config.json").write_text(settings.replace("[MASK]", "[HIDE]"), encoding="utf-8")
    assert augmented(tokens, folder, "c", 1, 0, tmp_path / "no mask")[1].startswith("token dropout")


def test_augmented_once(
    tmp_path: Path, tiny_bert: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    original = augment._augment

    def counting(*arguments: Any) -> Any:
        made.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(augment, "_augment", counting)
    folder = tmp_path / "kept"
    first = augmented(tokens, tiny_bert, "a", 1, 0, folder)
    again = augmented(tokens, tiny_bert, "a", 1, 0, folder)
    assert len(made) == 1 and same(first[0], again[0]) and first[1] == again[1]
    shutil.copytree(folder, tmp_path / "whole")
    for arguments in (
        (tokens, tiny_bert, "b", 1, 0),
        (tokens, tiny_bert, "a", 2, 0),
        (tokens, tiny_bert, "a", 1, 1),
        (replace(tokens, ids=tokens.ids[::-1]), tiny_bert, "a", 1, 0),
    ):
        before = len(made)
        augmented(*arguments, folder)
        assert len(made) == before + 1
    for damaged in ("key.json", "ids.npy", "labels.npy"):
        for content in (b"", b"{}", None):
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "whole", folder)
            (folder / damaged).unlink()
            if content is not None:
                (folder / damaged).write_bytes(content)
            assert same(augmented(tokens, tiny_bert, "a", 1, 0, folder)[0], first[0])
