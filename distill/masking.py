"""Which tokens of a row are hidden: BERT's masking (https://arxiv.org/abs/1810.04805), and whole words.

A row's masks are a function of seed, epoch and row number alone, so that any number of processes and any
resumed run hide the same tokens. Plain numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

IGNORED = -100  # the label of a token that is not asked for, as PyTorch's cross-entropy has it
MASKED_SHARE = 0.8  # of the chosen tokens; half of the others become a random token, half stay as they are
RANDOM_SHARE = 0.1


def mask_tokens(
    ids: np.ndarray,
    seed: int,
    epoch: int,
    row_numbers: np.ndarray,
    special_ids: Sequence[int],
    vocab_size: int,
    mask_id: int,
    share: float = 0.15,
    whole_words: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Hide a share of the tokens of some rows; return (input ids, labels), int64 [rows, length] both.

    ids: [rows, length]. row_numbers: [rows], 0 or more. special_ids: never hidden, nor drawn at random.
    vocab_size: ids end before it. whole_words: bool [rows, length], where words start, or None for single
    tokens. labels: the true id where a token is asked for, IGNORED elsewhere.

    A row of n ordinary tokens has round(share * n) of them hidden, at least one if there is any. Whole words
    are taken in a random order while they fit in that number; the first is taken even if it does not.
    """
    special = np.unique(np.asarray(special_ids, dtype=np.int64))
    shape = (3, ids.shape[1])
    draws = np.stack([np.random.default_rng([seed, epoch, int(row)]).random(shape) for row in row_numbers])
    order, action, replacement = draws[:, 0], draws[:, 1], draws[:, 2]
    ordinary = ~np.isin(ids, special)
    asked = np.minimum(np.maximum(1, np.rint(share * ordinary.sum(axis=1))), ordinary.sum(axis=1))
    if whole_words is None:
        chosen = _first_tokens(order, ordinary, asked)
    else:
        chosen = _first_words(order, ordinary, asked, whole_words)
    labels = np.where(chosen, ids, IGNORED).astype(np.int64)
    masked = chosen & (action < MASKED_SHARE)
    random = chosen & (action >= MASKED_SHARE) & (action < MASKED_SHARE + RANDOM_SHARE)
    inputs = np.where(masked, mask_id, ids).astype(np.int64)
    inputs[random] = _ordinary_ids(replacement[random], special[special < vocab_size], vocab_size)
    return inputs, labels


def _first_tokens(order: np.ndarray, ordinary: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The asked number [rows] of ordinary tokens that come first in order, bool [rows, length]."""
    ranks = np.where(ordinary, order, np.inf).argsort(axis=1, kind="stable").argsort(axis=1)
    return np.asarray(ranks < asked[:, None])


def _first_words(
    order: np.ndarray, ordinary: np.ndarray, asked: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Tokens of the words that come first, as many as fit in the asked number, bool [rows, length]."""
    after_special = np.zeros_like(ordinary)
    after_special[:, 1:] = ~ordinary[:, :-1]
    begins = starts | ~ordinary | after_special
    begins[:, 0] = True
    word = begins.cumsum(axis=1) - 1  # the word of each token; a special token is one by itself
    row = np.arange(len(order))[:, None]
    size, key = np.zeros(order.shape), np.full(order.shape, np.inf)
    np.add.at(size, (row, word), ordinary)
    beginning = begins & ordinary
    key[np.nonzero(beginning)[0], word[beginning]] = order[beginning]
    sorted_words = key.argsort(axis=1, kind="stable")
    fits = np.take_along_axis(size, sorted_words, axis=1).cumsum(axis=1) <= asked[:, None]
    fits[:, 0] = True
    taken = np.zeros_like(fits)
    np.put_along_axis(taken, sorted_words, fits, axis=1)
    return np.asarray(taken[row, word] & ordinary)


def _ordinary_ids(draws: np.ndarray, special: np.ndarray, vocab_size: int) -> np.ndarray:
    """Ids that are not special, each as likely as any other. draws: in [0, 1). special: increasing."""
    found = (draws * (vocab_size - len(special))).astype(np.int64)
    for one in special:
        found += found >= one
    return found
