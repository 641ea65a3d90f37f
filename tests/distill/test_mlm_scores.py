"""Scores agree with transformers' own loss, computed the long way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.distill.corpus import Corpus
from stillroom.distill.masked_lm import load_masked_lm, open_masked_source
from stillroom.distill.masking import mask_tokens
from stillroom.distill.mlm_scores import one_at_a_time, score_fill_mask, spread
from stillroom.errors import UsageError

LENGTH = 24


@pytest.fixture(scope="module")
def model(tiny_masked_lm: Path) -> Any:
    return load_masked_lm(open_masked_source(tiny_masked_lm))


@pytest.fixture(scope="module")
def corpus(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_masked_lm: Path,
    review_text: Callable[..., Path],
    review_corpus: Callable[..., Corpus],
) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    return review_corpus(folder, tiny_masked_lm, review_text(folder / "text.txt", 600), LENGTH, 0.2)


def test_masked_scores(model: Any, corpus: Corpus) -> None:
    found = score_fill_mask(model, corpus, "model", pseudo_rows=0)
    rows = np.arange(len(corpus.held_out))
    assert len(rows) > 32  # more than a batch
    special = corpus.special
    inputs, labels = mask_tokens(
        corpus.held_out.read(rows)[0], 0, 0, rows, special.ids, special.vocabulary_size, special.mask_id
    )
    with torch.no_grad():
        theirs = model(input_ids=torch.from_numpy(inputs), labels=torch.from_numpy(labels))
    asked = labels != -100
    assert found["masked_loss"] == pytest.approx(theirs.loss.item(), rel=1e-5)
    right = theirs.logits.argmax(-1).numpy()[asked] == labels[asked]
    assert found["masked_accuracy"] == pytest.approx(right.mean())
    assert found["masked_tokens"] == asked.sum()
    assert set(found) == {"masked_loss", "masked_accuracy", "masked_tokens"}


def test_pseudo_perplexity(model: Any, corpus: Corpus) -> None:
    found = score_fill_mask(model, corpus, "model", pseudo_rows=3)
    special = set(corpus.special.ids)
    losses = []
    for row in spread(len(corpus.held_out), 3):
        ids = torch.from_numpy(corpus.held_out.read(np.array([row]))[0])
        for place in range(LENGTH):
            if int(ids[0, place]) in special:
                continue
            hidden = ids.clone()
            hidden[0, place] = corpus.special.mask_id
            with torch.no_grad():
                logits = model(input_ids=hidden).logits[0, place]
            losses.append(-torch.log_softmax(logits, -1)[ids[0, place]].item())
    assert found["pseudo_tokens"] == len(losses) > 32
    assert found["pseudo_perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)


def test_scoring_changes_nothing(model: Any, corpus: Corpus) -> None:
    model.train()
    first = score_fill_mask(model, corpus, "model", pseudo_rows=1)
    assert model.training
    model.eval()
    assert score_fill_mask(model, corpus, "model", pseudo_rows=1) == first  # no dropout, the same masks


def test_few_rows_of_many(model: Any, corpus: Corpus) -> None:
    few = score_fill_mask(model, corpus, "model", max_rows=5, pseudo_rows=0)
    assert 0 < few["masked_tokens"] <= 5 * round(0.15 * LENGTH)


@given(st.integers(1, 300), st.integers(0, 40))
def test_spread(count: int, wanted: int) -> None:
    found = spread(count, wanted)
    assert len(found) == min(count, wanted) == len(set(found.tolist()))
    if len(found) > 1:
        gaps = np.diff(found)
        assert gaps.min() >= count // wanted and gaps.max() <= count // wanted + 1
        assert found[0] == 0 and found[-1] < count


@pytest.mark.parametrize("row", [[3, 4, 4, 3], [3, 7, 8, 3]])
def test_one_at_a_time(row: list[int]) -> None:
    parts = one_at_a_time(np.array(row), (3, 4), 9)
    assert [(inputs.tolist(), labels.tolist()) for inputs, labels in parts] == (
        []
        if row[1] == 4
        else [([[3, 9, 8, 3], [3, 7, 9, 3]], [[-100, 7, -100, -100], [-100, -100, 8, -100]])]
    )


def test_nothing_to_score(model: Any, corpus: Corpus) -> None:
    class Empty:
        def __len__(self) -> int:
            return 2

        def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.full((len(rows), LENGTH), 1), np.ones((len(rows), LENGTH), dtype=bool)

    with pytest.raises(UsageError, match="hold no token that the tokenizer knows"):
        score_fill_mask(model, replace(corpus, held_out=Empty()), "model")  # type: ignore[arg-type]
