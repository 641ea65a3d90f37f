"""Projections bring hidden states to the teacher's width, are trained and resumed, and are not saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stillroom.distill.batches import tensors
from stillroom.distill.layers import layer_map
from stillroom.distill.losses import hard_label_loss, hidden_mse_loss, relation_loss
from stillroom.distill.narrow import hidden_dimensions, narrow_student
from stillroom.distill.projection import StudentWithProjections, with_projections
from stillroom.distill.states import attention_states
from stillroom.distill.train import Terms, TrainSettings, train
from stillroom.student import load_model
from stillroom.tokens import Tokens

INPUTS, LABELS = ("input_ids", "attention_mask"), ("good", "bad")
BATCH = {
    "input_ids": torch.arange(5, 29).reshape(3, 8),
    "attention_mask": torch.ones(3, 8, dtype=torch.int64),
}
KEPT, ROWS = (0, 2), 24


@pytest.fixture(scope="module", params=["bert", "distilbert", "xlm-roberta"])
def teacher(
    request: pytest.FixtureRequest,
    make_model_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    folder = tmp_path_factory.mktemp("model") / "model"
    return load_model(make_model_folder(folder, request.param, LABELS))


@pytest.fixture(scope="module")
def tokens(tiny_teacher: Path, review_tokens: Callable[..., Tokens]) -> Tokens:
    return review_tokens(tiny_teacher, ROWS, LABELS)


def test_a_student_of_the_teachers_width_needs_none(teacher: Any) -> None:
    student = narrow_student(teacher, KEPT, intermediate_size=32)
    assert with_projections(student, teacher) is student


def test_hidden_states_are_brought_to_the_teachers_width(teacher: Any) -> None:
    student = narrow_student(teacher, KEPT, 16)
    wrapped, hidden = with_projections(student, teacher).eval(), hidden_dimensions(teacher, 16)
    with torch.no_grad():
        plain = student(**BATCH, output_hidden_states=True)
        found = wrapped(**BATCH, output_hidden_states=True)
    assert isinstance(wrapped, StudentWithProjections) and wrapped.student is student
    assert torch.equal(found.logits, plain.logits)
    assert len(found.hidden_states) == len(plain.hidden_states) == len(wrapped.projections) == 3
    others = sorted(set(range(32)) - set(hidden.tolist()))
    for wide, narrow in zip(found.hidden_states, plain.hidden_states, strict=True):
        # At first every dimension is where it was taken from in the teacher.
        assert torch.allclose(wide[..., hidden], narrow, atol=1e-6) and not wide[..., others].any()
    assert wrapped(**BATCH).hidden_states is None


def test_each_hidden_state_has_its_own(teacher: Any) -> None:
    wrapped = with_projections(narrow_student(teacher, KEPT, 16), teacher).eval()
    with torch.no_grad():
        before = wrapped(**BATCH, output_hidden_states=True).hidden_states
        wrapped.projections[1].bias += 1.0
        after = wrapped(**BATCH, output_hidden_states=True).hidden_states
    assert torch.allclose(after[1], before[1] + 1.0)
    assert torch.equal(after[0], before[0]) and torch.equal(after[2], before[2])


def test_no_chance_in_them(teacher: Any) -> None:
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(with_projections(narrow_student(teacher, KEPT, 16), teacher).state_dict())
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def run(
    teacher: Any,
    tokens: Tokens,
    checkpoints: Path,
    epochs: int = 4,
    stop_at: int = 0,
    relations: bool = False,
) -> tuple[Any, Any, dict[str, Any]]:
    """Train a narrow student on labels and the teacher's hidden states -> wrapped, student, facts."""
    student = narrow_student(teacher, KEPT, 16)
    wrapped, imitated, calls = with_projections(student, teacher), layer_map(KEPT, 4), []
    labels = torch.from_numpy(tokens.labels)

    with attention_states(student, -1) as mine, attention_states(teacher, -1) as wanted:

        def loss_of(model: nn.Module, rows: np.ndarray, epoch: int) -> Terms:
            calls.append(rows)
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            batch, count = tensors(tokens, rows, INPUTS, torch.device("cpu")), int(tokens.lengths[rows].sum())
            output = model(**batch, output_hidden_states=True)
            with torch.no_grad():
                aims = teacher(**batch, output_hidden_states=True).hidden_states
            mask, aims = batch["attention_mask"], (aims[0], *(aims[index + 1] for index in imitated))
            pairs = zip(output.hidden_states, aims, strict=True)
            hidden = torch.stack([hidden_mse_loss(*pair, mask) for pair in pairs]).mean()
            terms = {
                "hard": (hard_label_loss(output.logits, labels[rows]), len(rows)),
                "hidden": (hidden, count),
            }
            if relations:
                here, there = mine(), wanted()
                values = relation_loss(here.value, here.value, there.value, there.value, mask, 2)
                terms["relation"] = (values, count)
            return terms

        plan = TrainSettings(epochs, 3e-3, 8, 5, freeze_word_embeddings=True, checkpoint_every_s=0.0)
        facts = train(wrapped, tokens.lengths, loss_of, plan, checkpoints, "key", "test")
    return wrapped, student, facts


def test_they_learn_with_the_student_and_are_not_in_it(teacher: Any, tokens: Tokens, tmp_path: Path) -> None:
    start = with_projections(narrow_student(teacher, KEPT, 16), teacher).state_dict()
    wrapped, student, facts = run(teacher, tokens, tmp_path / "checkpoints", epochs=8, relations=True)
    assert facts["epoch_losses"][-1] < 0.9 * facts["epoch_losses"][0]
    changed = {name for name, tensor in wrapped.state_dict().items() if not torch.equal(tensor, start[name])}
    for index in range(3):
        assert {f"projections.{index}.weight", f"projections.{index}.bias"} <= changed
    assert not any("word_embeddings" in name for name in changed)  # frozen, also inside the wrapper
    assert any(name.startswith("student.") for name in changed)
    assert not student.training
    student.save_pretrained(tmp_path / "student")
    saved = load_model(tmp_path / "student")
    assert not any("projection" in name for name in saved.state_dict())
    with torch.no_grad():
        assert torch.equal(saved(**BATCH).logits, wrapped.eval()(**BATCH).logits)


def test_a_stopped_training_goes_on_bit_for_bit(teacher: Any, tokens: Tokens, tmp_path: Path) -> None:
    whole, _, facts = run(teacher, tokens, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(teacher, tokens, tmp_path / "parts", stop_at=6)
    again, _, resumed = run(teacher, tokens, tmp_path / "parts")
    assert resumed == facts
    weights = again.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.state_dict().items())
