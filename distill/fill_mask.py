"""Distil a masked-LM teacher on raw text, as DistilBERT was made (https://arxiv.org/abs/1910.01108).

The teacher answers in every step, on the very batch the student sees: the masks change from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.distill.corpus import Corpus
from stillroom.distill.distilbert import check_expressible, distilbert_from_bert
from stillroom.distill.distill import model_sha256
from stillroom.distill.layers import choose_layers, layer_list, student_from_teacher
from stillroom.distill.losses import hard_label_loss, hidden_cosine_loss, soft_target_loss
from stillroom.distill.masked_lm import AtPositions, MaskedSource, freeze_what_answers_nothing, load_masked_lm
from stillroom.distill.masking import IGNORED, mask_tokens
from stillroom.distill.train import Loss, Terms, TrainSettings, mixed_precision, train
from stillroom.errors import UsageError

FORMS = ("same", "distilbert")  # of the student: the teacher's architecture, or a DistilBERT


@dataclass(frozen=True)
class FillMaskWeights:
    """Weights of the three losses, DistilBERT's own; temperature of the soft targets (1 at inference)."""

    soft: float = 5.0
    hard: float = 2.0
    cosine: float = 1.0
    temperature: float = 2.0


@dataclass(frozen=True)
class Masking:
    """share: of the ordinary tokens. whole_words: hide words, not pieces of them.

    soft_positions: where the teacher is imitated: "masked", the hidden tokens, or "all". All takes the memory
    and time of the vocabulary's logits at every token, about seven times as much.
    """

    share: float = 0.15
    whole_words: bool = False
    soft_positions: str = "masked"


@dataclass(frozen=True)
class Batch:
    """Some rows with their masks. inputs: int64 [rows, length]. positions: int64 [n], into the rows in line:

    where answers are wanted. asked: int64 [m], which of the positions are hidden tokens; labels: int64 [m].
    """

    rows: np.ndarray
    inputs: Tensor
    positions: Tensor
    asked: Tensor
    labels: Tensor


# A batch -> the soft-target loss of student logits [positions, vocabulary], and the teacher's last hidden
# states [rows, length, hidden].
TeacherAnswers = Callable[[Batch], tuple[Callable[[Tensor], Tensor], Tensor]]


def distill_fill_mask(
    teacher: Any,
    corpus: Corpus,
    settings: TrainSettings,
    work: str | Path,
    layers: str | int | tuple[int, ...] = "half",
    weights: FillMaskWeights = FillMaskWeights(),
    layer_choice: str = "every-other",
    masking: Masking = Masking(),
    form: str = "same",
) -> tuple[Any, dict[str, Any]]:
    """Train a student of a ...ForMaskedLM teacher on the corpus' training rows; return it and its facts.

    layers, layer_choice: see choose_layers. form: "same", or "distilbert" for a BERT teacher. work: folder
    for checkpoints; a second call with the same arguments goes on from there. Raises UsageError for layers
    the teacher does not have, rows it cannot read, and a form that does not fit.
    """
    kept, student = _student(teacher, corpus, layers, layer_choice, form)
    answers = live_teacher(teacher, weights.temperature)
    key = f"{model_sha256(teacher)} layers {kept}"
    loss_of = fill_mask_loss(corpus, settings.seed, masking, weights, answers)
    facts = _train(student, corpus, loss_of, settings, Path(work), key, weights, masking, "student")
    return _in_form(student, form), {"layers_kept": list(kept), "form": form, **facts}


def plain_fill_mask(
    start: Any,
    corpus: Corpus,
    settings: TrainSettings,
    work: str | Path,
    layers: str | int | tuple[int, ...] = "half",
    layer_choice: str = "every-other",
    masking: Masking = Masking(),
    form: str = "same",
) -> tuple[Any, dict[str, Any]]:
    """The baseline: the same layers of the same model, rows, masks and steps, without the model's answers."""
    kept, student = _student(start, corpus, layers, layer_choice, form)
    weights = FillMaskWeights(soft=0.0, hard=1.0, cosine=0.0)
    key = f"{model_sha256(start)} layers {kept}"
    loss_of = fill_mask_loss(corpus, settings.seed, masking, weights, None)
    name = "student without teacher"
    facts = _train(student, corpus, loss_of, settings, Path(work), key, weights, masking, name)
    return _in_form(student, form), {"layers_kept": list(kept), "form": form, **facts}


def teach_mlm_head(
    source: MaskedSource,
    corpus: Corpus,
    settings: TrainSettings,
    work: str | Path,
    masking: Masking = Masking(),
    *,
    freeze_encoder: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """An encoder folder as a masked-LM model, trained on the text; return it and its facts.

    A head that is there is kept; a new one starts at random, its decoder tied to the word embeddings.
    freeze_encoder: train the head's own weights only, which leaves the word embeddings, and so the decoder,
    as they are. Raises UsageError as train does.
    """
    model = load_masked_lm(source, new_head_seed=settings.seed)
    check_length(model, corpus)
    if freeze_encoder:
        model.base_model.requires_grad_(False)
        settings = replace(settings, freeze_word_embeddings=True)
    key = f"{model_sha256(model)} frozen {freeze_encoder}"
    weights = FillMaskWeights(soft=0.0, hard=1.0, cosine=0.0)
    loss_of = fill_mask_loss(corpus, settings.seed, masking, weights, None)
    facts = _train(model, corpus, loss_of, settings, Path(work), key, weights, masking, "teacher")
    return model, {"freeze_encoder": freeze_encoder, "new_head": not source.has_head, **facts}


def fill_mask_loss(
    corpus: Corpus,
    seed: int,
    masking: Masking,
    weights: FillMaskWeights,
    answers: TeacherAnswers | None,
) -> Loss:
    """The loss of an AtPositions student: at hidden tokens, and against the teacher where there is one.

    answers: None leaves soft targets and cosine out.
    """

    def loss_of(model: nn.Module, rows: np.ndarray, epoch: int) -> Terms:
        batch = masked_batch(corpus, rows, seed, epoch, masking, next(model.parameters()).device)
        logits, hidden = model(batch.inputs, batch.positions)
        hard = hard_label_loss(logits[batch.asked], batch.labels)
        terms: Terms = {"hard": (weights.hard * hard, len(batch.labels))}
        if answers is not None:
            soft_loss, teacher_hidden = answers(batch)
            cosine = hidden_cosine_loss(hidden, teacher_hidden, torch.ones_like(batch.inputs))
            terms["soft"] = (weights.soft * soft_loss(logits), len(batch.positions))
            terms["cosine"] = (weights.cosine * cosine, batch.inputs.numel())
        return terms

    return loss_of


def masked_batch(
    corpus: Corpus, rows: np.ndarray, seed: int, epoch: int, masking: Masking, device: torch.device
) -> Batch:
    """Training rows with the masks of an epoch. If no row has an ordinary token, the first is asked for."""
    ids, starts = corpus.train.read(rows)
    special = corpus.special
    inputs, labels = mask_tokens(
        ids, seed, epoch, rows, special.ids, special.vocabulary_size, special.mask_id, masking.share,
        starts if masking.whole_words else None,
    )  # fmt: skip
    if (labels == IGNORED).all():
        labels[0, 0] = ids[0, 0]
    flat = labels.reshape(-1)
    hidden = np.flatnonzero(flat != IGNORED)
    everywhere = masking.soft_positions == "all"
    positions = np.arange(flat.size) if everywhere else hidden
    asked = hidden if everywhere else np.arange(len(hidden))
    there = [torch.from_numpy(array).to(device) for array in (inputs, positions, asked, flat[hidden])]
    return Batch(rows, *there)


def live_teacher(teacher: Any, temperature: float) -> TeacherAnswers:
    """The teacher's answers, computed when they are asked for; bf16 where the student trains in it."""
    asking = AtPositions(teacher.eval())

    def answers(batch: Batch) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        device = batch.inputs.device
        asking.to(device)
        bf16 = torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision() == "bf16")
        with torch.no_grad(), bf16:
            wanted, hidden = asking(batch.inputs, batch.positions)
        return lambda logits: soft_target_loss(logits, wanted, temperature), hidden

    return answers


def check_length(model: Any, corpus: Corpus) -> None:
    """Raise UsageError when the corpus' rows are longer than the model can read."""
    from stillroom.families import longest_input

    if corpus.max_length > longest_input(model.config):
        raise UsageError(
            f"max_length {corpus.max_length}: this model reads at most {longest_input(model.config)} tokens"
        )


def _student(
    teacher: Any, corpus: Corpus, layers: str | int | tuple[int, ...], layer_choice: str, form: str
) -> tuple[tuple[int, ...], Any]:
    """Which layers are kept, and the student that starts from them."""
    if form not in FORMS:
        raise UsageError(f"form {form!r}: expected one of {', '.join(FORMS)}")
    if form == "distilbert":
        check_expressible(teacher.config)
    check_length(teacher, corpus)
    kept = choose_layers(layers, len(layer_list(teacher)), layer_choice)
    return kept, student_from_teacher(teacher, kept)


def _in_form(student: Any, form: str) -> Any:
    return distilbert_from_bert(student) if form == "distilbert" else student


def _train(
    model: Any,
    corpus: Corpus,
    loss_of: Loss,
    settings: TrainSettings,
    work: Path,
    key: str,
    weights: FillMaskWeights,
    masking: Masking,
    name: str,
) -> dict[str, Any]:
    if masking.soft_positions not in ("masked", "all"):
        raise UsageError(f'soft_positions {masking.soft_positions!r}: expected "masked" or "all"')
    freeze_what_answers_nothing(model)
    described = {"losses": asdict(weights), "masking": asdict(masking), "corpus_sha256": corpus.sha256}
    lengths = np.full(len(corpus.train), corpus.max_length, dtype=np.int64)
    key = f"{key} {described}"
    facts = train(AtPositions(model), lengths, loss_of, settings, work / "checkpoints", key, name)
    return {**described, **facts}
