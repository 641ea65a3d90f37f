"""The order of the rows: each once, the same again, another in every epoch, and with little padding."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.distill.batches import POOL_BATCHES, epoch_batches, sorted_batches, tensors
from stillroom.tokens import Tokens, padded_inputs

lengths_of = st.lists(st.integers(2, 128), min_size=1, max_size=400).map(np.array)


@given(lengths_of, st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_every_row_once_an_epoch(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    # The training loop counts its steps this way, and goes on from a step in the middle of an epoch.
    assert len(batches) == math.ceil(len(lengths) / batch_size)
    sizes = sorted((len(batch) for batch in batches), reverse=True)
    assert all(size == batch_size for size in sizes[:-1]) and 1 <= sizes[-1] <= batch_size
    again = epoch_batches(lengths, batch_size, seed, epoch)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


def test_more_rows_than_a_pool() -> None:
    rows = POOL_BATCHES * 4 * 2 + 3
    batches = epoch_batches(np.resize([9, 3, 5], rows), 4, seed=1, epoch=0)
    assert len(batches) == POOL_BATCHES * 2 + 1
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_epochs_and_seeds_differ(seed: int, epoch: int) -> None:
    lengths = np.resize([4, 9, 14, 30], 200)
    here = np.concatenate(epoch_batches(lengths, 8, seed, epoch))
    assert not np.array_equal(here, np.concatenate(epoch_batches(lengths, 8, seed, epoch + 1)))
    assert not np.array_equal(here, np.concatenate(epoch_batches(lengths, 8, seed + 1, epoch)))


def padding_share(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    computed = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - float(lengths.sum()) / computed


def test_less_padding_than_in_random_order() -> None:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(3.0, 0.6, 6000), 3, 128).astype(int)  # like tweets and reviews
    shuffled = generator.permutation(len(lengths))
    random_order = [shuffled[at : at + 32] for at in range(0, len(lengths), 32)]
    assert padding_share(random_order, lengths) > 0.4
    assert padding_share(epoch_batches(lengths, 32, 0, 0), lengths) < 0.1
    assert padding_share(sorted_batches(lengths, 32), lengths) < 0.05


def test_short_and_long_batches_are_mixed() -> None:
    # All long rows last would mean a different learning rate for them, and a lack of memory found late.
    lengths = np.sort(np.random.default_rng(0).integers(3, 128, 3200))
    longest = np.array([lengths[batch].max() for batch in epoch_batches(lengths, 32, 0, 0)])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


@given(lengths_of, st.integers(1, 40))
def test_sorted_batches_begin_with_the_longest(lengths: np.ndarray, batch_size: int) -> None:
    order = np.concatenate(sorted_batches(lengths, batch_size))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    assert max(len(batch) for batch in sorted_batches(lengths, batch_size)) <= batch_size


def test_tensors_are_the_padded_rows() -> None:
    ids = np.arange(10, 19, dtype=np.int32)
    tokens = Tokens(ids, ids % 2, np.array([0, 4, 5, 9]), np.array([0, 1, 0]), pad_id=7)
    names = ("input_ids", "attention_mask", "token_type_ids")
    found = tensors(tokens, np.array([1, 2]), names, torch.device("cpu"))
    assert tuple(found) == names
    wanted = padded_inputs(tokens, [1, 2], names)
    for name, value in found.items():
        assert value.dtype == torch.int64
        assert np.array_equal(value.numpy(), wanted[name])
    assert found["input_ids"].tolist() == [[14, 7, 7, 7], [15, 16, 17, 18]]
    assert found["attention_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]
