"""The teacher's cached answers: equal to asking it, asked once, and made again when anything differs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.distill.targets_cache import TeacherOutputs, teacher_outputs
from stillroom.errors import UsageError
from stillroom.student import load_model
from stillroom.tokens import Tokens, padded_inputs

INPUTS = ("input_ids", "attention_mask")
STATES = ("hidden-4", "value-3")
ROWS = 40  # more than one batch


class Counting:
    """A model that counts how often it is asked, and fails from a given time on."""

    def __init__(self, model: Any, fails_at: int = 10**9) -> None:
        self.model, self.calls, self.fails_at = model, 0, fails_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **batch: Any) -> Any:
        self.calls += 1
        if self.calls >= self.fails_at:
            raise KeyboardInterrupt
        return self.model(**batch)


class Untouchable:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the teacher was asked for {name}")

    def __call__(self, **batch: Any) -> Any:
        raise AssertionError("the teacher was called")


@pytest.fixture(scope="module")
def model(tiny_teacher: Path) -> Any:
    return load_model(tiny_teacher)


@pytest.fixture(scope="module")
def tokens(tiny_teacher: Path, review_tokens: Callable[..., Tokens]) -> Tokens:
    return review_tokens(tiny_teacher, ROWS, ("good", "bad"))


@pytest.fixture(scope="module")
def made_once(model: Any, tokens: Tokens, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "outputs"
    teacher_outputs(model, "sha", tokens, INPUTS, folder, STATES)
    return folder


@pytest.fixture
def made(made_once: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(made_once, tmp_path / "outputs")
    yield tmp_path / "outputs"


def check_answers(outputs: TeacherOutputs, model: Any, tokens: Tokens) -> None:
    assert outputs.logits.dtype == np.float32 and outputs.states["hidden-4"].dtype == np.float16
    assert outputs.logits.shape == (ROWS, 2) and outputs.states["hidden-4"].shape == (len(tokens.ids), 32)
    with torch.inference_mode():
        for row in range(ROWS):
            batch = {name: torch.from_numpy(it) for name, it in padded_inputs(tokens, [row], INPUTS).items()}
            answer = model(**batch, output_hidden_states=True)
            start, end = tokens.offsets[row], tokens.offsets[row + 1]
            np.testing.assert_allclose(outputs.logits[row], answer.logits[0].numpy(), atol=1e-5)
            hidden = answer.hidden_states[-1][0].numpy()
            np.testing.assert_allclose(
                outputs.states["hidden-4"][start:end].astype(np.float32), hidden, atol=2e-3
            )


def test_cached_answers_are_the_teachers(model: Any, tokens: Tokens, tmp_path: Path) -> None:
    model.train()  # dropout must not reach the answers
    check_answers(teacher_outputs(model, "sha", tokens, INPUTS, tmp_path / "new", STATES), model, tokens)


def test_the_second_time_nobody_is_asked(model: Any, tokens: Tokens, made: Path) -> None:
    outputs = teacher_outputs(Untouchable(), "sha", tokens, INPUTS, made, STATES)
    assert isinstance(outputs.states["hidden-4"], np.memmap)
    check_answers(outputs, model, tokens)


def test_batches_of_the_cache(tokens: Tokens, made: Path) -> None:
    outputs = teacher_outputs(Untouchable(), "sha", tokens, INPUTS, made, STATES)
    rows = np.array([7, 3, 11])
    logits, states = outputs.batch(tokens, rows, torch.device("cpu"))
    hidden = states["hidden-4"]
    assert np.array_equal(logits.numpy(), outputs.logits[rows])
    assert hidden.shape == (3, int(tokens.lengths[rows].max()), 32)
    for line, row in enumerate(rows):
        length = int(tokens.lengths[row])
        assert np.array_equal(
            hidden[line, :length].numpy(), outputs.states["hidden-4"][tokens.offsets[row] :][:length]
        )
        assert not hidden[line, length:].any()


@pytest.mark.parametrize("change", ["teacher", "ids", "labels", "pad_id", "inputs"])
def test_a_changed_key_asks_again(change: str, model: Any, tokens: Tokens, made: Path) -> None:
    sha, inputs = "sha", INPUTS
    if change == "teacher":
        sha = "another sha"
    elif change == "inputs":
        inputs = ("input_ids", "attention_mask", "token_type_ids")
    elif change == "pad_id":
        tokens = dataclasses.replace(tokens, pad_id=3)
    else:
        values = getattr(tokens, change).copy()
        values[2] = 1 - values[2] if change == "labels" else values[2] + 1
        tokens = dataclasses.replace(tokens, **{change: values})
    counting = Counting(model)
    outputs = teacher_outputs(counting, sha, tokens, inputs, made, STATES)
    assert counting.calls == 2
    check_answers(outputs, model, tokens)
    teacher_outputs(Untouchable(), sha, tokens, inputs, made, STATES)


def damage(path: Path, how: str) -> None:
    if how == "absent":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("how", ["absent", "truncated", "empty"])
@pytest.mark.parametrize("name", ["key.json", "logits.npy", "hidden-4.npy"])
def test_a_damaged_cache_is_made_again(name: str, how: str, model: Any, tokens: Tokens, made: Path) -> None:
    damage(made / name, how)
    counting = Counting(model)
    check_answers(teacher_outputs(counting, "sha", tokens, INPUTS, made, STATES), model, tokens)
    assert counting.calls == 2


def test_an_interruption_leaves_no_half_cache(model: Any, tokens: Tokens, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        teacher_outputs(Counting(model, fails_at=2), "sha", tokens, INPUTS, tmp_path / "new", STATES)
    assert not list(tmp_path.iterdir())
    check_answers(teacher_outputs(model, "sha", tokens, INPUTS, tmp_path / "new", STATES), model, tokens)


def test_too_little_room_is_said_first(
    model: Any, tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * 2 * len(tokens.ids) * 32 + 4 * ROWS * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(UsageError, match=r"MB are needed .* MB are free"):
        teacher_outputs(Counting(model, fails_at=1), "sha", tokens, INPUTS, tmp_path / "new", STATES)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    teacher_outputs(model, "sha", tokens, INPUTS, tmp_path / "new", STATES)
