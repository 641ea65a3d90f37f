"""Distil a masked-LM teacher on raw text, as DistilBERT was made (https://arxiv.org/abs/1910.01108).

The masks change from epoch to epoch, so the teacher answers in every step, on the batch the student sees.
Where they repeat, it can answer once for each variant of them (mlm_cache.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.distill.corpus import Corpus
from stillroom.distill.distilbert import check_expressible, distilbert_from_bert
from stillroom.distill.distill import model_sha256
from stillroom.distill.layers import choose_layers, layer_list, student_from_teacher
from stillroom.distill.losses import hard_label_loss, hidden_cosine_loss
from stillroom.distill.masked_batch import BERTS, Masking, TeacherAnswers, live_teacher, masked_batch
from stillroom.distill.masked_lm import AtPositions, MaskedSource, freeze_what_answers_nothing, load_masked_lm
from stillroom.distill.mlm_cache import Kept, cached_teacher
from stillroom.distill.train import Loss, Terms, TrainSettings, train
from stillroom.errors import UsageError
from stillroom.families import longest_input

FORMS = ("same", "distilbert")  # of the student: the teacher's architecture, or a DistilBERT


@dataclass(frozen=True)
class FillMaskWeights:
    """Weights of the three losses, DistilBERT's own; temperature of the soft targets (1 at inference)."""

    soft: float = 5.0
    hard: float = 2.0
    cosine: float = 1.0
    temperature: float = 2.0


def distill_fill_mask(
    teacher: Any,
    corpus: Corpus,
    settings: TrainSettings,
    work: str | Path,
    layers: str | int | tuple[int, ...] = "half",
    weights: FillMaskWeights = FillMaskWeights(),
    layer_choice: str = "every-other",
    masking: Masking = BERTS,
    form: str = "same",
    teacher_cache: str = "off",
    teacher_cache_k: int = 64,
) -> tuple[Any, dict[str, Any]]:
    """Train a student of a ...ForMaskedLM teacher on the corpus' training rows; return it and its facts.

    layers, layer_choice: see choose_layers. form: "same", or "distilbert" for a BERT teacher. work: folder
    for checkpoints; a second call with the same arguments goes on from there. teacher_cache: "off", the
    teacher answers in every step, or "fp16" or "top-k", it answers once for each mask variant, into work (see
    mlm_cache). Raises UsageError for layers the teacher does not have, rows it cannot read, a form that does
    not fit, and as cached_teacher does.
    """
    kept, student = _student(teacher, corpus, layers, layer_choice, form)
    teacher_sha256 = model_sha256(teacher)
    key, cache = f"{teacher_sha256} layers {kept}", {"kind": "off"}
    if teacher_cache == "off":
        answers = live_teacher(teacher, weights.temperature)
    else:
        k = teacher_cache_k if teacher_cache == "top-k" else 0
        what = Kept(teacher_cache, k, weights.temperature, hidden=weights.cosine > 0)
        folder = Path(work) / "teacher-answers"
        used = replace(masking, variants=min(masking.variants, settings.epochs))  # the others never come
        answers = cached_teacher(teacher, teacher_sha256, corpus, settings.seed, used, what, folder)
        key, cache = f"{key} {what}", asdict(what)
    del teacher  # a cache does not need it any more
    loss_of = fill_mask_loss(corpus, settings.seed, masking, weights, answers)
    facts = _train(student, corpus, loss_of, settings, Path(work), key, weights, masking, "student")
    return _in_form(student, form), {"layers_kept": list(kept), "form": form, "teacher_cache": cache, **facts}


def plain_fill_mask(
    start: Any,
    corpus: Corpus,
    settings: TrainSettings,
    work: str | Path,
    layers: str | int | tuple[int, ...] = "half",
    layer_choice: str = "every-other",
    masking: Masking = BERTS,
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
    masking: Masking = BERTS,
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
            terms["soft"] = (weights.soft * soft_loss(logits), len(batch.positions))
            if teacher_hidden is not None:
                cosine = hidden_cosine_loss(hidden, teacher_hidden, torch.ones_like(batch.inputs))
                terms["cosine"] = (weights.cosine * cosine, batch.inputs.numel())
        return terms

    return loss_of


def check_length(model: Any, corpus: Corpus) -> None:
    """Raise UsageError when the corpus' rows are longer than the model can read."""
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
