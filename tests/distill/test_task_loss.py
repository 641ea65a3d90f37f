"""Soft and hard losses per kind of task, rows without labels, and scores in their own unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stillroom.distill.evaluate import predict_logits
from stillroom.distill.score_scale import ScoreScale, last_linear, score_scale, trained_in
from stillroom.distill.task_loss import hard_loss_of, soft_loss
from stillroom.kinds import KINDS
from stillroom.student import load_model
from stillroom.tokens import Tokens

INPUTS = ("input_ids", "attention_mask")


def test_rows_without_a_label_do_not_count() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    loss, count = hard_loss_of("text-classification", logits, torch.tensor([1, -1, 2, -1]), ScoreScale())
    wanted = torch.nn.functional.cross_entropy(logits[[0, 2]], torch.tensor([1, 2]))
    assert count == 2 and torch.allclose(loss, wanted)
    nothing, none = hard_loss_of("text-classification", logits, torch.full((4,), -1), ScoreScale())
    assert (nothing.item(), none) == (0.0, 0)
    targets = torch.tensor([[1.0, 0.0, 1.0], [float("nan")] * 3, [0.0] * 3, [float("nan")] * 3])
    loss, count = hard_loss_of("multi-label", logits, targets, ScoreScale())
    assert count == 2 and torch.isfinite(loss)


def test_scores_are_compared_in_standard_deviations() -> None:
    scale = ScoreScale(50.0, 10.0)
    loss, count = hard_loss_of(
        "regression", torch.tensor([[1.0], [0.0]]), torch.tensor([[60.0], [50.0]]), scale
    )
    assert (loss.item(), count) == (0.0, 2)
    teacher = torch.tensor([[70.0]])
    assert soft_loss("regression", torch.tensor([[0.0]]), teacher, 2.0, scale).item() == pytest.approx(4.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_teachers_own_answers_cost_nothing(kind: str) -> None:
    logits = (
        torch.tensor([[0.3], [-1.2]]) if kind == "regression" else torch.tensor([[0.3, -2.0], [4.0, 1.0]])
    )
    assert soft_loss(kind, logits, logits, 2.0, ScoreScale()).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_a_folded_head_is_the_same_function_in_another_unit(
    tmp_path: Path, make_model_folder: Callable[..., Path], review_tokens: Callable[..., Tokens], family: str
) -> None:
    folder = make_model_folder(tmp_path / family, family, head_labels=("good", "bad"))
    model = load_model(folder, num_labels=1, ignore_mismatched_sizes=True)
    assert last_linear(model).out_features == 1
    tokens = review_tokens(folder, 6, ("good", "bad"))
    scores = np.array([[10.0], [20.0], [30.0], [np.nan], [50.0], [60.0]], dtype=np.float32)
    scale = score_scale(dataclasses.replace(tokens, labels=scores), "regression")
    assert (scale.mean, scale.deviation) == (pytest.approx(34.0), pytest.approx(np.std([10, 20, 30, 50, 60])))
    assert score_scale(tokens, "text-classification") == ScoreScale()
    outside = predict_logits(model, tokens, INPUTS, "outside")
    with trained_in(scale, model):
        inside = predict_logits(model, tokens, INPUTS, "inside")
    np.testing.assert_allclose(inside, (outside - scale.mean) / scale.deviation, atol=1e-5)
    np.testing.assert_allclose(predict_logits(model, tokens, INPUTS, "again"), outside, atol=1e-4)
