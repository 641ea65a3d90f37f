"""Masks hide the share asked for, never a special token, and are a function of seed, epoch and row number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stillroom.distill.masking import IGNORED, mask_tokens

SPECIAL, VOCAB, MASK = (0, 3, 4), 12, 4

rows_of_ids = st.tuples(st.integers(1, 6), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, VOCAB - 1))
)


def mask(ids: np.ndarray, seed: int = 0, epoch: int = 0, first: int = 0, **more: Any) -> Any:
    return mask_tokens(ids, seed, epoch, np.arange(first, first + len(ids)), SPECIAL, VOCAB, MASK, **more)


def one_by_one(ids: np.ndarray, asked: int, order: np.ndarray, starts: np.ndarray) -> set[int]:
    """Whole-word masking of a row, said plainly: the positions that are hidden."""
    words: list[list[int]] = []
    for position, token in enumerate(ids):
        if token in SPECIAL:
            continue
        goes_on = position and not starts[position] and ids[position - 1] not in SPECIAL
        words = [*words[:-1], [*words[-1], position]] if goes_on else [*words, [position]]
    chosen: set[int] = set()
    for word in sorted(words, key=lambda positions: order[positions[0]]):
        if chosen and len(chosen) + len(word) > asked:
            break
        chosen |= set(word)
    return chosen


@given(rows_of_ids, st.integers(0, 2**32 - 1), st.integers(0, 5), st.floats(0.01, 0.9), st.booleans())
def test_labels_and_inputs_fit_together(
    ids: np.ndarray, seed: int, epoch: int, share: float, whole: bool
) -> None:
    starts = np.random.default_rng(seed).random(ids.shape) < 0.6
    inputs, labels = mask(ids, seed, epoch, share=share, whole_words=starts if whole else None)
    asked = labels != IGNORED
    assert inputs.shape == labels.shape == ids.shape and inputs.dtype == labels.dtype == np.int64
    assert (labels[asked] == ids[asked]).all() and (inputs[~asked] == ids[~asked]).all()
    assert not asked[np.isin(ids, SPECIAL)].any()
    changed = inputs[asked]
    assert not np.isin(changed[changed != MASK], SPECIAL).any() and changed.max(initial=0) < VOCAB
    ordinary = (~np.isin(ids, SPECIAL)).sum(axis=1)
    wanted = np.minimum(ordinary, np.maximum(1, np.rint(share * ordinary)))
    if whole:
        assert ((asked.sum(axis=1) >= 1) == (ordinary >= 1)).all()
    else:
        assert (asked.sum(axis=1) == wanted).all()


@given(rows_of_ids, st.integers(0, 99), st.floats(0.05, 0.7))
def test_whole_words_are_hidden_whole(ids: np.ndarray, seed: int, share: float) -> None:
    starts = np.random.default_rng(seed).random(ids.shape) < 0.5
    _, labels = mask(ids, seed, share=share, whole_words=starts)
    for row, (tokens, asked) in enumerate(zip(ids, labels != IGNORED, strict=True)):
        order = np.random.default_rng([seed, 0, row]).random((3, ids.shape[1]))[0]
        ordinary = int((~np.isin(tokens, SPECIAL)).sum())
        wanted = max(1, round(share * ordinary))
        assert set(np.flatnonzero(asked)) == one_by_one(tokens, wanted, order, starts[row])


@given(rows_of_ids, st.integers(0, 99), st.integers(0, 9), st.booleans())
def test_a_row_is_masked_alike_in_any_company(ids: np.ndarray, seed: int, epoch: int, whole: bool) -> None:
    starts = ids % 2 == 0 if whole else None
    together = mask(ids, seed, epoch, first=7, whole_words=starts)
    for row in range(len(ids)):
        mine = None if starts is None else starts[row : row + 1]
        alone = mask(ids[row : row + 1], seed, epoch, first=7 + row, whole_words=mine)
        assert all((one[0] == all_[row]).all() for one, all_ in zip(alone, together, strict=True))


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epoch": 1}, {"first": 1}])
def test_another_seed_epoch_or_row_hides_others(changed: dict[str, int]) -> None:
    ids = np.full((20, 64), 7)
    assert (mask(ids)[1] != mask(ids, **changed)[1]).any(axis=1).all()


def test_shares_over_many_tokens() -> None:
    vocab = 1000
    ids = np.random.default_rng(0).integers(5, vocab, (2000, 128))
    ids[:, 0], ids[:, -1] = 3, 3
    inputs, labels = mask_tokens(ids, 0, 0, np.arange(2000), SPECIAL, vocab, MASK)
    asked = labels != IGNORED
    count = asked.sum()
    assert count == 2000 * round(0.15 * 126)
    # Five standard deviations of a binomial share.
    within = 5 * np.sqrt(0.8 * 0.2 / count)
    assert (inputs[asked] == MASK).mean() == pytest.approx(0.8, abs=within)
    others = inputs[asked & (inputs != MASK)] == ids[asked & (inputs != MASK)]
    assert others.sum() / count == pytest.approx(0.1, abs=within)
    places = asked[:, 1:-1].mean(axis=0)  # every place of a row is as likely as any other
    assert np.abs(places - 19 / 126).max() < 5 * np.sqrt(0.15 * 0.85 / 2000)
    drawn = inputs[asked & (inputs != ids) & (inputs != MASK)]
    assert drawn.min() == 1 and drawn.max() == vocab - 1
    assert drawn.mean() == pytest.approx(vocab / 2, abs=5 * vocab / np.sqrt(12 * len(drawn)))
    assert set(np.unique(drawn)) & {1, 2} and not set(np.unique(drawn)) & set(SPECIAL)


def test_whole_words_hide_about_the_share() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(5, VOCAB, (1000, 128))
    _, labels = mask(ids, whole_words=rng.random(ids.shape) < 0.8)
    assert 0.14 < (labels != IGNORED).mean() <= 0.15


def test_a_row_of_special_tokens_hides_none() -> None:
    inputs, labels = mask(np.array([[3, 0, 3], [3, 5, 3]]), share=0.01)
    assert (labels[0] == IGNORED).all() and (inputs[0] == [3, 0, 3]).all()
    assert labels[1].tolist() == [IGNORED, 5, IGNORED]
