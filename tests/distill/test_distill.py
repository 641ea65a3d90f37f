"""Every loss, narrower students, several teachers, other tokenizers: what is compared, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.distill.distill import StudentShape, Teaching, distill_from_model, make_student, state_pairs
from stillroom.distill.evaluate import predict_logits
from stillroom.distill.fake_quantization import rounded_blocks
from stillroom.distill.objective import LossWeights
from stillroom.distill.train import TrainSettings
from stillroom.distill.vocabulary import trim_model
from stillroom.errors import UsageError
from stillroom.int4 import best_scales
from stillroom.observe import linear_maps
from stillroom.student import load_model
from stillroom.task import TaskSpec
from stillroom.tokens import Tokens

INPUTS = ("input_ids", "attention_mask")
LABELS = ("good", "bad")
TASK = TaskSpec(LABELS, 32, INPUTS)
PLAN = TrainSettings(epochs=2, learning_rate=1e-3, batch_size=8, seed=0, freeze_word_embeddings=True)
EVERYTHING = LossWeights(hidden=1.0, relation=1.0)


@pytest.fixture(scope="module")
def tokens(tiny_teacher: Path, review_tokens: Callable[..., Tokens]) -> Tokens:
    return review_tokens(tiny_teacher, 24, LABELS)


def train(teacher: Any, tokens: Tokens, work: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    return distill_from_model(teacher, tokens, TASK, changes.pop("plan", PLAN), work, **changes)


def test_which_states_are_compared() -> None:
    assert state_pairs(LossWeights(), (1, 3), 4) == [("hidden-2", "hidden-4")]
    assert state_pairs(LossWeights(cosine=0.0), (1, 3), 4) == []
    every = state_pairs(EVERYTHING, (1, 3), 4)
    assert every[:3] == [("hidden-0", "hidden-0"), ("hidden-1", "hidden-2"), ("hidden-2", "hidden-4")]
    assert every[3:] == [("query-1", "query-3"), ("key-1", "key-3"), ("value-1", "value-3")]


@pytest.mark.parametrize("loss", ["cosine", "hidden", "relation"])
def test_each_loss_on_states_brings_the_student_nearer(
    loss: str, tiny_teacher: Path, tokens: Tokens, tmp_path: Path
) -> None:
    nothing = LossWeights(soft=0.0, hard=0.0, cosine=0.0)
    plan = replace(PLAN, epochs=6, learning_rate=3e-3)
    _, facts = train(
        load_model(tiny_teacher), tokens, tmp_path, weights=replace(nothing, **{loss: 1.0}), plan=plan
    )
    assert facts["epoch_losses"][-1] < 0.9 * facts["epoch_losses"][0]


def test_a_copy_of_the_teacher_has_nothing_to_learn(
    tiny_teacher: Path, tokens: Tokens, tmp_path: Path
) -> None:
    # Dropout off: the only difference that is left. In float16 the teacher's states are kept.
    config = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    teacher = load_model(tiny_teacher)
    for module in teacher.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name, value in config.items():
        setattr(teacher.config, name, value)
    plan = replace(PLAN, epochs=1, learning_rate=1e-12)
    _, facts = train(
        teacher,
        tokens,
        tmp_path,
        shape=StudentShape(layers=4),
        weights=replace(EVERYTHING, hard=0.0),
        plan=plan,
    )
    # bf16, where the machine computes it, is the noise that is left
    assert facts["epoch_losses"][0] < 0.05


def test_a_narrow_student_learns_with_all_that_makes_sense(
    tiny_teacher: Path, tokens: Tokens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = StudentShape(layers=2, hidden_size=16)
    student, facts = train(load_model(tiny_teacher), tokens, tmp_path, shape=shape, weights=EVERYTHING)
    said = capsys.readouterr().err
    assert "the cosine loss is left out: the student is 16 wide, the teacher 32" in said
    assert "hidden states: embeddings, 0->1, 1->3" in said
    assert student.config.hidden_size == 16 and facts["losses"]["cosine"] == 0.0
    assert not [name for name in student.state_dict() if "projection" in name]
    assert predict_logits(student, tokens, INPUTS, "test").shape == (24, 2)
    again, same = train(load_model(tiny_teacher), tokens, tmp_path / "again", shape=shape, weights=EVERYTHING)
    assert facts["epoch_losses"] == same["epoch_losses"]
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_narrow_student_goes_on_after_an_interruption(
    tiny_teacher: Path, tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, plan = StudentShape(layers=2, hidden_size=16), replace(PLAN, checkpoint_every_s=0.0)
    whole, _ = train(
        load_model(tiny_teacher), tokens, tmp_path / "a", shape=shape, weights=EVERYTHING, plan=plan
    )
    from stillroom.distill import distill

    calls, real = 0, distill.relation_loss

    def stops(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(distill, "relation_loss", stops)
        train(load_model(tiny_teacher), tokens, tmp_path / "b", shape=shape, weights=EVERYTHING, plan=plan)
    rest, _ = train(
        load_model(tiny_teacher), tokens, tmp_path / "b", shape=shape, weights=EVERYTHING, plan=plan
    )
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, rest.state_dict()[name]), name


def test_several_teachers_speak_with_one_voice(
    tiny_teacher: Path, tokens: Tokens, tmp_path: Path, make_model_folder: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    first = load_model(tiny_teacher)
    second = load_model(make_model_folder(tmp_path / "two", layers=2, head_labels=("bad", "good")))
    teachings = [Teaching(first, tokens, INPUTS, (0, 1)), Teaching(second, tokens, INPUTS, (1, 0))]
    plan = replace(PLAN, epochs=30, learning_rate=3e-3)
    weights = LossWeights(hard=0.0)
    student, facts = train(teachings, tokens, tmp_path / "work", weights=weights, plan=plan)
    assert (
        "the cosine loss is left out: 2 teachers teach through their answers only" in capsys.readouterr().err
    )
    assert facts["losses"]["cosine"] == 0.0
    mean = np.mean(
        [predict_logits(first, tokens, INPUTS, "1"), predict_logits(second, tokens, INPUTS, "2")[:, ::-1]],
        axis=0,
    )
    before, _ = make_student(first, StudentShape())
    distances = [np.abs(predict_logits(it, tokens, INPUTS, "s") - mean).mean() for it in (before, student)]
    assert distances[1] < 0.8 * distances[0]


def test_a_teacher_with_other_pieces_teaches_through_its_answers(
    tiny_teacher: Path, tiny_xlmr: Path, tokens: Tokens, tmp_path: Path, review_tokens: Callable[..., Tokens],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    theirs = review_tokens(tiny_xlmr, 24, LABELS)
    assert theirs.offsets.tolist() != tokens.offsets.tolist()
    teacher = load_model(tiny_xlmr, num_labels=2, ignore_mismatched_sizes=True)
    teaching = Teaching(teacher, replace(theirs, pad_id=1), INPUTS, (0, 1), same_pieces=False)
    student, _ = train([teaching], tokens, tmp_path, start=load_model(tiny_teacher), weights=EVERYTHING)
    said = capsys.readouterr().err
    for loss in ("cosine", "hidden", "relation"):
        assert f"the {loss} loss is left out: the teacher has another tokenizer" in said
    assert student.config.model_type == "bert"
    with pytest.raises(UsageError, match="no loss is left"):
        only = LossWeights(soft=0.0, hard=0.0)
        train([teaching], tokens, tmp_path, start=load_model(tiny_teacher), weights=only)


def test_a_cut_vocabulary_is_the_same_lesson(tiny_teacher: Path, tokens: Tokens, tmp_path: Path) -> None:
    """The same pieces under other ids: the student trains to the same weights, but for the rows cut."""
    teacher = load_model(tiny_teacher)
    used = np.unique(np.append(tokens.ids, [0, teacher.config.pad_token_id]))
    trimmed = trim_model(teacher, used.astype(np.int64))
    renumbered = replace(tokens, ids=np.searchsorted(used, tokens.ids).astype(np.int32))
    teaching = Teaching(teacher, tokens, INPUTS, (0, 1))
    small, facts = train([teaching], renumbered, tmp_path / "small", start=trimmed, weights=EVERYTHING)
    whole, whole_facts = train(teacher, tokens, tmp_path / "whole", weights=EVERYTHING)
    assert facts["epoch_losses"] == whole_facts["epoch_losses"]
    for name, tensor in whole.state_dict().items():
        found = small.state_dict()[name]
        assert torch.equal(found, tensor[used] if found.shape != tensor.shape else tensor), name


def test_four_bits_are_learned_and_kept(tiny_teacher: Path, tokens: Tokens, tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=1)
    chosen = {"plan": plan, "quantized_epochs": 2, "quantized_bits": 4}
    student, facts = train(load_model(tiny_teacher), tokens, tmp_path, **chosen)
    assert len(facts["quantized"]["epoch_losses"]) == 2 and "ranges" not in facts
    maps = [*linear_maps(student).values(), student.bert.embeddings.word_embeddings]
    for one in maps:
        weight = one.weight.detach()
        assert torch.equal(rounded_blocks(weight, best_scales(weight, signed=False)), weight)
    again, _ = train(load_model(tiny_teacher), tokens, tmp_path / "in 8", **{**chosen, "quantized_bits": 8})
    assert not torch.equal(again.classifier.weight, student.classifier.weight)
