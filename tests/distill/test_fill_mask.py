"""Fill-mask distillation: DistilBERT's losses, a student that learns, a stopped run that ends the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stillroom.distill import fill_mask
from stillroom.distill import masked_batch as batches
from stillroom.distill.corpus import Corpus
from stillroom.distill.fill_mask import (
    FillMaskWeights,
    distill_fill_mask,
    fill_mask_loss,
    plain_fill_mask,
    teach_mlm_head,
)
from stillroom.distill.layers import student_from_teacher
from stillroom.distill.masked_batch import Masking, live_teacher, masked_batch
from stillroom.distill.masked_lm import AtPositions, load_masked_lm, open_masked_source
from stillroom.distill.masking import IGNORED, mask_tokens
from stillroom.distill.mlm_scores import score_fill_mask
from stillroom.distill.train import TrainSettings
from stillroom.errors import UsageError

LENGTH = 16
SETTINGS = TrainSettings(epochs=2, learning_rate=3e-3, batch_size=16, seed=0, freeze_word_embeddings=False)


@pytest.fixture(scope="module")
def corpus(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bert: Path,
    review_text: Callable[..., Path],
    review_corpus: Callable[..., Corpus],
) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    return review_corpus(folder, tiny_bert, review_text(folder / "text.txt"), LENGTH, 0.1)


@pytest.fixture(scope="module")
def few(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_bert: Path,
    review_text: Callable[..., Path],
    review_corpus: Callable[..., Corpus],
) -> Corpus:
    """Too little to learn much from, and quickly gone through."""
    folder = tmp_path_factory.mktemp("few")
    return review_corpus(folder, tiny_bert, review_text(folder / "text.txt", 160), LENGTH, 0.1)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, corpus: Corpus) -> Any:
    """A teacher that has learnt something."""
    settings = replace(SETTINGS, epochs=8)
    return teach_mlm_head(open_masked_source(tiny_bert), corpus, settings, tmp_path_factory.mktemp("teach"))[
        0
    ]


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: Any, other: Any) -> bool:
    mine, theirs = weights_of(one), weights_of(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("whole_words", [False, True])
def test_the_losses_are_those_of_the_whole_logits(
    tiny_masked_lm: Path,
    few: Corpus,
    everywhere: bool,
    whole_words: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "mixed_precision", lambda: "no")  # bf16 where the machine has it
    teacher = load_masked_lm(open_masked_source(tiny_masked_lm))
    student = student_from_teacher(teacher, (0, 2))
    masking = Masking(0.2, whole_words, "all" if everywhere else "masked")
    weights = FillMaskWeights(soft=3.0, hard=0.5, cosine=0.7, temperature=2.5)
    loss_of = fill_mask_loss(few, 5, masking, weights, live_teacher(teacher, weights.temperature))
    rows = np.array([4, 0, 9])
    found = loss_of(AtPositions(student).eval(), rows, 1)

    ids, starts = few.train.read(rows)
    special = few.special
    inputs, labels = (torch.from_numpy(array) for array in mask_tokens(
        ids, 5, 1, rows, special.ids, special.vocabulary_size, special.mask_id, 0.2,
        starts if whole_words else None,
    ))  # fmt: skip
    mask = torch.ones_like(inputs)
    with torch.no_grad():
        theirs = teacher(input_ids=inputs, attention_mask=mask, output_hidden_states=True)
        mine = student(input_ids=inputs, attention_mask=mask, output_hidden_states=True)
    at = torch.ones_like(labels, dtype=torch.bool) if everywhere else labels != IGNORED
    kl = F.kl_div(
        F.log_softmax(mine.logits[at] / 2.5, -1),
        F.softmax(theirs.logits[at] / 2.5, -1),
        reduction="batchmean",
    )
    hard = F.cross_entropy(mine.logits.view(-1, mine.logits.shape[-1]), labels.view(-1))
    cosine = 1 - F.cosine_similarity(mine.hidden_states[-1], theirs.hidden_states[-1], dim=-1).mean()
    expected = {"soft": 3.0 * 2.5**2 * kl, "hard": 0.5 * hard, "cosine": 0.7 * cosine}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name][0].item() == pytest.approx(value.item(), rel=1e-4), name
    hidden = int((labels != IGNORED).sum())
    counts = {"hard": hidden, "soft": int(at.sum()), "cosine": labels.numel()}
    assert {name: count for name, (_, count) in found.items()} == counts


def test_the_student_learns_from_its_teacher(taught: Any, corpus: Corpus, tmp_path: Path) -> None:
    before = weights_of(taught)
    untrained = score_fill_mask(student_from_teacher(taught, (0, 3)), corpus, "start", pseudo_rows=0)
    student, facts = distill_fill_mask(taught, corpus, SETTINGS, tmp_path / "student", 2)
    scores = score_fill_mask(student, corpus, "student", pseudo_rows=0)
    assert facts["layers_kept"] == [0, 3] and student.config.num_hidden_layers == 2
    assert facts["epoch_losses"][-1] < facts["epoch_losses"][0]
    assert scores["masked_loss"] < untrained["masked_loss"] - 0.1
    assert facts["losses"] == {"soft": 5.0, "hard": 2.0, "cosine": 1.0, "temperature": 2.0}
    assert facts["masking"]["share"] == 0.15 and facts["corpus_sha256"] == corpus.sha256
    after = weights_of(taught)
    assert all(torch.equal(before[name], after[name]) for name in before)  # teaching changes no teacher
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight


def test_the_baseline_has_no_teacher_but_the_same_steps(taught: Any, corpus: Corpus, tmp_path: Path) -> None:
    plain, facts = plain_fill_mask(taught, corpus, SETTINGS, tmp_path, 2)
    assert facts["losses"] == {"soft": 0.0, "hard": 1.0, "cosine": 0.0, "temperature": 2.0}
    assert facts["layers_kept"] == [0, 3] and facts["steps"] == -(-len(corpus.train) // 16) * 2
    assert facts["epoch_losses"][-1] < facts["epoch_losses"][0]
    assert plain.config.num_hidden_layers == 2


def test_a_student_as_distilbert(taught: Any, few: Corpus, tmp_path: Path) -> None:
    same, _ = distill_fill_mask(taught, few, SETTINGS, tmp_path, 2)
    converted, facts = distill_fill_mask(taught, few, SETTINGS, tmp_path, 2, form="distilbert")
    assert converted.config.model_type == "distilbert" and facts["form"] == "distilbert"
    ids = torch.from_numpy(few.held_out.read(np.array([0, 1]))[0])
    with torch.no_grad():
        assert torch.allclose(converted(ids).logits, same(ids).logits, atol=1e-4)


class Interrupted(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("after", [1, 5, 10])
def test_a_stopped_run_ends_bit_identical(
    taught: Any, few: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    settings = replace(SETTINGS, checkpoint_every_s=0.0)
    whole, facts = distill_fill_mask(taught, few, settings, tmp_path / "whole", 2)
    assert facts["steps"] > 10
    calls = 0

    def crash(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Interrupted
        return masked_batch(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(fill_mask, "masked_batch", crash)
        distill_fill_mask(taught, few, settings, tmp_path / "stopped", 2)
    resumed, again = distill_fill_mask(taught, few, settings, tmp_path / "stopped", 2)
    assert equal(whole, resumed) and again["epoch_losses"] == facts["epoch_losses"]


def test_checkpoints_of_other_losses_or_masks_are_not_taken(
    taught: Any, few: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(SETTINGS, epochs=1)
    distill_fill_mask(taught, few, replace(settings, checkpoint_every_s=0.0), tmp_path, 2)
    changed: list[dict[str, Any]] = [
        {"weights": FillMaskWeights(soft=4.0)}, {"masking": Masking(share=0.2)}, {"layer_choice": "top"},
        {"masking": Masking(whole_words=True)}, {"layers": 3},
    ]  # fmt: skip
    for more in changed:
        capsys.readouterr()
        distill_fill_mask(taught, few, settings, tmp_path, **{"layers": 2, **more})
        assert "going on from step" not in capsys.readouterr().err, more


def test_only_the_head_learns_when_the_encoder_is_frozen(
    tiny_bert: Path, few: Corpus, tmp_path: Path
) -> None:
    source = open_masked_source(tiny_bert)
    start = load_masked_lm(source, new_head_seed=0)
    settings = replace(SETTINGS, freeze_word_embeddings=True)
    frozen, facts = teach_mlm_head(source, few, settings, tmp_path / "a", freeze_encoder=True)
    assert facts["freeze_encoder"] and facts["new_head"]
    before, after = weights_of(start), weights_of(frozen)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        "cls.predictions.bias", "cls.predictions.decoder.bias", "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias", "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
    }  # fmt: skip
    assert facts["epoch_losses"][-1] < facts["epoch_losses"][0]
    free, _ = teach_mlm_head(source, few, SETTINGS, tmp_path / "b")
    assert not torch.equal(weights_of(free)["bert.embeddings.word_embeddings.weight"],
                           before["bert.embeddings.word_embeddings.weight"])  # fmt: skip


def test_a_frozen_encoder_keeps_its_word_embeddings_whatever_the_settings(
    tiny_bert: Path, few: Corpus, tmp_path: Path
) -> None:
    source = open_masked_source(tiny_bert)
    frozen, _ = teach_mlm_head(source, few, replace(SETTINGS, epochs=1), tmp_path, freeze_encoder=True)
    start = load_masked_lm(source, new_head_seed=0)
    assert torch.equal(frozen.get_input_embeddings().weight, start.get_input_embeddings().weight)


def test_a_head_that_is_there_is_kept(tiny_masked_lm: Path, few: Corpus, tmp_path: Path) -> None:
    source = open_masked_source(tiny_masked_lm)
    settings = replace(SETTINGS, epochs=1, learning_rate=1e-12)
    model, facts = teach_mlm_head(source, few, settings, tmp_path)
    start = weights_of(load_masked_lm(source))
    assert not facts["new_head"]
    assert all(torch.allclose(tensor, start[name], atol=1e-6) for name, tensor in weights_of(model).items())


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_other_families_learn_too(
    family: str,
    make_model_folder: Callable[..., Path],
    review_text: Callable[..., Path],
    review_corpus: Callable[..., Corpus],
    tmp_path: Path,
) -> None:
    source = open_masked_source(make_model_folder(tmp_path / "model", family, masked_lm=True))
    corpus = review_corpus(tmp_path, source.folder, review_text(tmp_path / "text.txt", 400), LENGTH, 0.1)
    teacher = load_masked_lm(source)
    student, facts = distill_fill_mask(teacher, corpus, SETTINGS, tmp_path / "work", "half")
    assert facts["epoch_losses"][-1] < facts["epoch_losses"][0]
    assert type(student) is type(teacher) and student.config.num_hidden_layers == 2
    with pytest.raises(UsageError, match="form distilbert: model_type is"):
        distill_fill_mask(teacher, corpus, SETTINGS, tmp_path / "work", form="distilbert")


def test_rows_without_a_word_are_no_accident(taught: Any, few: Corpus) -> None:
    class Empty:
        def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.full((len(rows), LENGTH), 1), np.ones((len(rows), LENGTH), dtype=bool)  # [UNK]

    empty = replace(few, train=Empty())  # type: ignore[arg-type]
    loss_of = fill_mask_loss(empty, 0, Masking(), FillMaskWeights(), live_teacher(taught, 2.0))
    terms = loss_of(AtPositions(taught), np.array([0, 1]), 0)
    assert all(torch.isfinite(mean) for mean, _ in terms.values())


def test_mistakes_are_told(taught: Any, tiny_bert: Path, few: Corpus, tmp_path: Path) -> None:
    def asked(**more: Any) -> Any:
        return distill_fill_mask(taught, few, SETTINGS, tmp_path, **more)

    with pytest.raises(UsageError, match="form 'tiny': expected one of same, distilbert"):
        asked(form="tiny")
    with pytest.raises(UsageError, match='soft_positions \'some\': expected "masked" or "all"'):
        asked(masking=Masking(soft_positions="some"))
    with pytest.raises(UsageError, match="the teacher has 4 layers"):
        asked(layers=5)
    long = replace(few, max_length=65)
    with pytest.raises(UsageError, match="max_length 65: this model reads at most 64 tokens"):
        distill_fill_mask(taught, long, SETTINGS, tmp_path)
    with pytest.raises(UsageError, match="max_length 65"):
        teach_mlm_head(open_masked_source(tiny_bert), long, SETTINGS, tmp_path)
