"""The training loop: it learns, it can be interrupted anywhere, and it stops when the loss is no number."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.distill import distill
from stillroom.distill.distill import distill_from_model, plain_student
from stillroom.distill.evaluate import predict_logits
from stillroom.distill.losses import hidden_cosine_loss
from stillroom.distill.objective import LossWeights
from stillroom.distill.score_scale import ScoreScale
from stillroom.distill.targets_cache import tokens_sha256
from stillroom.distill.teacher import hard_loss
from stillroom.distill.train import Terms, TrainSettings, learning_rate_at, mixed_precision, train
from stillroom.errors import UsageError
from stillroom.numerics import compare_logits
from stillroom.scores import accuracy
from stillroom.student import load_model
from stillroom.task import TaskSpec
from stillroom.tokens import Tokens

INPUTS = ("input_ids", "attention_mask")
LABELS = ("good", "bad")
TASK = TaskSpec(LABELS, 32, INPUTS)
ROWS, BATCH, EPOCHS = 36, 8, 2
STEPS = 5 * EPOCHS  # 36 rows make five batches of 8, the last of them short


def settings(**changes: Any) -> TrainSettings:
    plain = {"epochs": EPOCHS, "learning_rate": 1e-3, "batch_size": BATCH, "seed": 5,
             "freeze_word_embeddings": True, "checkpoint_every_s": 0.0}  # fmt: skip
    return TrainSettings(**{**plain, **changes})


@pytest.fixture(scope="module")
def folder(make_model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("model") / "model", head_labels=LABELS, layers=2)


@pytest.fixture(scope="module")
def tokens(folder: Path, review_tokens: Callable[..., Tokens]) -> Tokens:
    return review_tokens(folder, ROWS, LABELS)


class Watched:
    """hard_loss that counts its calls and does something else at one of them."""

    def __init__(self, tokens: Tokens, at: int = 0, instead: Callable[..., Any] = lambda loss: loss) -> None:
        self.plain, self.at, self.instead, self.calls = hard_loss(tokens, TASK, ScoreScale()), at, instead, 0

    def __call__(self, model: torch.nn.Module, rows: np.ndarray, epoch: int) -> Terms:
        self.calls += 1
        ((mean, count),) = self.plain(model, rows, epoch).values()
        return {"hard": (self.instead(mean) if self.calls == self.at else mean, count)}


def interrupt(loss: torch.Tensor) -> torch.Tensor:
    raise KeyboardInterrupt


def run(
    folder: Path, tokens: Tokens, checkpoints: Path, loss: Any = None, **changes: Any
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """One call as a new process would make it -> weights and facts."""
    torch.manual_seed(np.random.default_rng().integers(2**31))  # nothing may hang on what came before
    model = load_model(folder)
    plan, loss = settings(**changes), loss or hard_loss(tokens, TASK, ScoreScale())
    facts = train(model, tokens.lengths, loss, plan, checkpoints, f"key {tokens_sha256(tokens)}", "test")
    assert not model.training
    return model.state_dict(), facts


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def uninterrupted(
    folder: Path, tokens: Tokens, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    torch.set_num_threads(1)  # module fixtures come before the one that every test has
    return run(folder, tokens, tmp_path_factory.mktemp("whole"), checkpoint_every_s=1e9)


def test_the_model_under_test_has_dropout(folder: Path) -> None:
    # Without it the random state would not matter, and the tests below would show less than they say.
    config = load_model(folder).config
    assert config.hidden_dropout_prob > 0 and config.attention_probs_dropout_prob > 0


# At the first step; in the first epoch; at, and just after, the end of an epoch; at the last step.
@pytest.mark.parametrize("at", [1, 3, 5, 6, 7, STEPS])
def test_interrupted_and_resumed_is_bit_identical(
    at: int,
    folder: Path,
    tokens: Tokens,
    uninterrupted: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, tokens, tmp_path, Watched(tokens, at, interrupt))
    capsys.readouterr()
    rest = Watched(tokens)
    weights, facts = run(folder, tokens, tmp_path, rest)
    assert rest.calls == STEPS - (at - 1)
    assert same_weights(weights, uninterrupted[0])
    assert facts == uninterrupted[1]
    assert (f"going on from step {at - 1} of {STEPS}" in capsys.readouterr().err) == (at > 1)


def test_interrupted_three_times(folder: Path, tokens: Tokens, uninterrupted: Any, tmp_path: Path) -> None:
    for at in (3, 2, 4):
        with pytest.raises(KeyboardInterrupt):
            run(folder, tokens, tmp_path, Watched(tokens, at, interrupt))
    weights, facts = run(folder, tokens, tmp_path)
    assert same_weights(weights, uninterrupted[0]) and facts == uninterrupted[1]


def test_a_damaged_checkpoint_costs_steps_not_exactness(
    folder: Path, tokens: Tokens, uninterrupted: Any, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, tokens, tmp_path, Watched(tokens, 7, interrupt))
    newest = tmp_path / "step-00000006" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    rest = Watched(tokens)
    weights, _ = run(folder, tokens, tmp_path, rest)
    assert rest.calls == STEPS - 5
    assert same_weights(weights, uninterrupted[0])


def test_saving_changes_nothing(folder: Path, tokens: Tokens, uninterrupted: Any, tmp_path: Path) -> None:
    weights, facts = run(folder, tokens, tmp_path)
    assert same_weights(weights, uninterrupted[0]) and facts == uninterrupted[1]
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000008", "step-00000009"}


def test_no_checkpoint_before_its_time(folder: Path, tokens: Tokens, tmp_path: Path) -> None:
    run(folder, tokens, tmp_path, epochs=1, checkpoint_every_s=1e9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"learning_rate": 2e-3}, {"epochs": 3}, {"freeze_word_embeddings": False}]
)
def test_other_settings_start_over(
    change: dict[str, Any], folder: Path, tokens: Tokens, uninterrupted: Any, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, tokens, tmp_path, Watched(tokens, 3, interrupt))
    whole = Watched(tokens)
    weights, facts = run(folder, tokens, tmp_path, whole, **change)
    assert whole.calls == facts["steps"] == 5 * facts["epochs"]
    assert not same_weights(weights, uninterrupted[0])


def test_other_rows_start_over(
    folder: Path, tokens: Tokens, review_tokens: Callable[..., Tokens], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, tokens, tmp_path, Watched(tokens, 3, interrupt))
    others = review_tokens(folder, ROWS, LABELS, seed=1)
    whole = Watched(others)
    run(folder, others, tmp_path, whole)
    assert whole.calls == STEPS


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(
    value: float, folder: Path, tokens: Tokens, uninterrupted: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"loss is {value} .* at step 4 of {STEPS}.*lower learning_rate"):
        run(folder, tokens, tmp_path, Watched(tokens, 4, lambda loss: loss * value))
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000002", "step-00000003"}
    weights, _ = run(folder, tokens, tmp_path)
    assert same_weights(weights, uninterrupted[0])


def test_a_gradient_that_is_no_number_does_not_reach_a_checkpoint(
    folder: Path, tokens: Tokens, uninterrupted: Any, tmp_path: Path
) -> None:
    # The root of 0 is 0, and its slope is not finite: the loss looks well, the step would ruin the weights.
    steep = Watched(tokens, 4, lambda loss: loss + (loss - loss).sqrt())
    with pytest.raises(UsageError, match=rf"its gradient's norm nan at step 4 of {STEPS}"):
        run(folder, tokens, tmp_path, steep)
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000002", "step-00000003"}
    weights, _ = run(folder, tokens, tmp_path)
    assert same_weights(weights, uninterrupted[0])


@pytest.mark.parametrize("frozen", [True, False])
def test_word_embeddings(frozen: bool, folder: Path, tokens: Tokens, tmp_path: Path) -> None:
    before = load_model(folder).state_dict()
    after, _ = run(folder, tokens, tmp_path, epochs=1, freeze_word_embeddings=frozen)
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert same == ({"bert.embeddings.word_embeddings.weight"} if frozen else set())


@given(st.integers(1, 3000), st.floats(1e-6, 1.0))
def test_learning_rate_warms_up_and_decays(steps: int, peak: float) -> None:
    rates = np.array([learning_rate_at(step, steps, peak) for step in range(steps)])
    assert (rates > 0).all()
    assert rates.max() <= peak * (1 + 1e-12)
    top = int(rates.argmax())
    assert rates[top] == pytest.approx(peak)
    assert top <= max(1, math.ceil(steps / 10))
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top + 1 :]) < 0).all() and (np.diff(rates) <= 0)[top:].all()
    if steps >= 20:
        assert rates[0] <= 0.55 * peak
        assert rates[-1] <= 1.2 * peak / (0.9 * steps)
    assert learning_rate_at(steps, steps, peak) == 0.0


def test_precision_is_one_this_device_computes() -> None:
    assert mixed_precision() in ("no", "bf16")


def test_loss_falls_and_new_reviews_are_understood(
    folder: Path, review_tokens: Callable[..., Tokens], tmp_path: Path
) -> None:
    tokens = review_tokens(folder, 240, LABELS)
    plan = settings(
        epochs=10, learning_rate=3e-3, batch_size=16, freeze_word_embeddings=False, checkpoint_every_s=1e9
    )
    model = load_model(folder)
    facts = train(model, tokens.lengths, hard_loss(tokens, TASK, ScoreScale()), plan, tmp_path, "key", "test")
    assert facts["rows"] == 240 and facts["steps"] == 150 and len(facts["epoch_losses"]) == 10
    assert facts["epoch_losses"][-1] < 0.3 * facts["epoch_losses"][0]
    unseen = review_tokens(folder, 120, LABELS, seed=1)
    assert accuracy(predict_logits(model, unseen, INPUTS, "test"), unseen.labels) > 0.9


def distilled(
    folder: Path, tokens: Tokens, work: Path, weights: LossWeights | None = None, **changes: Any
) -> tuple[Any, dict[str, Any]]:
    task, plan = TaskSpec(LABELS, 32, INPUTS), settings(**changes)
    return distill_from_model(load_model(folder), tokens, task, plan, work, weights=weights or LossWeights())


def test_a_student_comes_to_answer_like_its_teacher(folder: Path, tokens: Tokens, tmp_path: Path) -> None:
    wanted = predict_logits(load_model(folder), tokens, INPUTS, "teacher")
    # This teacher knows nothing yet, so that the labels would say otherwise.
    weights = LossWeights(hard=0.0)
    untrained, _ = distilled(folder, tokens, tmp_path / "none", weights, learning_rate=1e-12, epochs=1)
    student, facts = distilled(
        folder, tokens, tmp_path / "some", weights, learning_rate=3e-3, epochs=12, checkpoint_every_s=1e9
    )
    assert facts["layers_kept"] == [0] and student.config.num_hidden_layers == 1
    assert facts["losses"] == {**asdict(LossWeights()), "hard": 0.0}
    assert facts["epoch_losses"][-1] < 0.7 * facts["epoch_losses"][0]
    answers = [predict_logits(model, tokens, INPUTS, "student") for model in (untrained, student)]
    before, after = (np.abs(logits - wanted).mean() for logits in answers)
    assert after < 0.7 * before


def test_distilling_goes_on_after_an_interruption(
    folder: Path, tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, whole_facts = distilled(folder, tokens, tmp_path / "whole")
    calls = 0

    def fails_later(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return hidden_cosine_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(distill, "hidden_cosine_loss", fails_later)
        with pytest.raises(KeyboardInterrupt):
            distilled(folder, tokens, tmp_path / "cut")
    student, facts = distilled(folder, tokens, tmp_path / "cut")
    assert same_weights(student.state_dict(), whole.state_dict()) and facts == whole_facts


def test_another_teacher_starts_over_in_the_same_folder(
    folder: Path, tokens: Tokens, tmp_path: Path, make_model_folder: Callable[..., Path]
) -> None:
    # The same weights, and other answers.
    other = make_model_folder(tmp_path / "other", head_labels=LABELS, layers=2, hidden_act="relu")
    distilled(folder, tokens, tmp_path / "work")
    student, facts = distilled(other, tokens, tmp_path / "work")
    anew, anew_facts = distilled(other, tokens, tmp_path / "new")
    assert same_weights(student.state_dict(), anew.state_dict()) and facts == anew_facts


def test_the_baseline_starts_like_the_student(folder: Path, tokens: Tokens, tmp_path: Path) -> None:
    plan = settings(learning_rate=1e-12, epochs=1)
    task = TaskSpec(LABELS, 32, INPUTS)
    plain, facts = plain_student(load_model(folder), tokens, task, plan, tmp_path / "plain")
    assert facts["losses"] == {"hard": 1.0} and facts["layers_kept"] == [0]
    assert not (tmp_path / "plain" / "teacher-outputs-0").exists()
    student, _ = distilled(folder, tokens, tmp_path / "student", learning_rate=1e-12, epochs=1)
    answers = [predict_logits(model, tokens, INPUTS, "test") for model in (plain, student)]
    assert compare_logits(*answers).max_abs_error < 1e-5


def test_a_checkpoint_folder_that_was_cleared(folder: Path, tokens: Tokens, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, tokens, tmp_path / "some", Watched(tokens, 3, interrupt))
    shutil.rmtree(tmp_path / "some")
    whole = Watched(tokens)
    run(folder, tokens, tmp_path / "some", whole)
    assert whole.calls == STEPS
