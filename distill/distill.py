"""Distil a teacher into a smaller student that starts from some of its layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillroom.distill.batches import tensors
from stillroom.distill.fake_quantization import fake_int4, fake_quantized, learned_ranges
from stillroom.distill.layers import choose_layers, layer_list, layer_map, layer_map_words
from stillroom.distill.losses import hidden_cosine_loss, hidden_mse_loss, relation_loss
from stillroom.distill.narrow import narrow_student
from stillroom.distill.objective import DEFAULT_WEIGHTS, LossWeights, objective
from stillroom.distill.projection import with_projections
from stillroom.distill.score_scale import score_scale, trained_in
from stillroom.distill.states import caught_states
from stillroom.distill.targets_cache import TeacherOutputs, averaged, teacher_outputs, tokens_sha256
from stillroom.distill.task_loss import hard_loss_of, soft_loss
from stillroom.distill.teacher import hard_loss
from stillroom.distill.train import Loss, Terms, TrainSettings, train
from stillroom.observe import calibration_of, ranges_by, seen_values
from stillroom.processes import is_first, wait_for_first
from stillroom.progress import say
from stillroom.ranges import ranges_to_dict
from stillroom.task import TaskSpec
from stillroom.tokens import Tokens

QUANTIZED_SHARE = 0.25  # of the learning rate: the student is trained already


@dataclass(frozen=True)
class StudentShape:
    """layers, layer_choice: see choose_layers. The sizes: see narrow_config; 0 for the teacher's own."""

    layers: str | int | tuple[int, ...] = "half"
    layer_choice: str = "every-other"
    hidden_size: int = 0
    heads: int = 0
    intermediate_size: int = 0


@dataclass(frozen=True)
class Teaching:
    """One teacher: a ...ForSequenceClassification model, and the rows as it reads them.

    columns: index of each of the task's labels in its logits. same_pieces: its tokens are the student's, one
    by one (whatever ids they have), so that states of the two can be compared.
    """

    model: Any
    tokens: Tokens
    inputs: tuple[str, ...]
    columns: tuple[int, ...]
    same_pieces: bool = True


def distill_from_model(
    teacher: Any,
    tokens: Tokens,
    task: TaskSpec,
    settings: TrainSettings,
    work: str | Path,
    shape: StudentShape = StudentShape(),
    weights: LossWeights = DEFAULT_WEIGHTS,
    start: Any = None,
    *,
    new_head: bool = False,
    quantized_epochs: int = 0,
    quantized_bits: int = 8,
) -> tuple[Any, dict[str, Any]]:
    """Train a student of one or several teachers in memory; return it and the facts for its lineage.

    teacher: a Hugging Face ...ForSequenceClassification model whose logits are in the order of task.labels
    and which reads these tokens; or a sequence of Teaching, whose answers are averaged. start: the model
    that the student takes its layers from, by default the (first) teacher; new_head: its own head is not
    trained yet. quantized_epochs: further ones, in which all that static int8 rounds is rounded, and the
    ranges that were learned are the fact "ranges"; with quantized_bits of 4 the weights that int4 rounds.
    work: folder for the teachers' outputs and checkpoints; a second call with the same arguments goes on from
    what is there.
    Raises UsageError for layers and sizes the start does not have.
    """
    columns = tuple(range(len(task.labels)))
    teachings = (
        teacher if isinstance(teacher, Sequence) else [Teaching(teacher, tokens, task.inputs, columns)]
    )
    work, first = Path(work), teachings[0]
    start = first.model if start is None else start
    student, kept = make_student(start, shape)
    sizes = (student.config.hidden_size, first.model.config.hidden_size, student.config.num_attention_heads)
    chosen = objective(weights, *map(int, sizes), same_tokenizer=first.same_pieces, teachers=len(teachings))
    weights = chosen.weights
    for line in chosen.left_out:
        say(f"  {line}")
    imitated = layer_map(kept, len(layer_list(first.model)))
    if weights.hidden:
        say(f"  {layer_map_words(imitated)}")
    pairs = state_pairs(weights, imitated, len(layer_list(first.model)))
    outputs, outputs_sha256 = _all_outputs(teachings, work, [theirs for _, theirs in pairs])
    labels, scale = torch.from_numpy(tokens.labels), score_scale(tokens, task.kind)
    trained = with_projections(student, first.model) if weights.hidden else student
    hidden_pairs = [(ours, theirs) for ours, theirs in pairs if ours.startswith("hidden")]
    others = [(ours, theirs) for ours, theirs in pairs if not ours.startswith("hidden")]
    attention = {ours.split("-")[0]: (ours, theirs) for ours, theirs in others}
    start_sha256 = "" if start is first.model else model_sha256(start)  # the outputs' has the teacher's
    key = f"{outputs_sha256} {start_sha256} {shape}"

    with (
        caught_states(student, [ours for ours, _ in pairs]) as call,
        trained_in(scale, student, new_head=new_head),
    ):

        def loss_of(model: nn.Module, rows: np.ndarray, epoch: int) -> Terms:
            device = next(model.parameters()).device
            batch = tensors(tokens, rows, task.inputs, device)
            logits, states = call(model, batch)
            teacher_logits, teacher_states = outputs.batch(tokens, rows, device)
            mask, real = batch["attention_mask"], int(tokens.lengths[rows].sum())
            hard, labelled = hard_loss_of(task.kind, logits, labels[rows].to(device), scale)
            soft = soft_loss(task.kind, logits, teacher_logits, weights.temperature, scale)
            terms = {"soft": (weights.soft * soft, len(rows)), "hard": (weights.hard * hard, labelled)}
            if weights.cosine:
                ours, theirs = hidden_pairs[-1]
                cosine = hidden_cosine_loss(states[ours], teacher_states[theirs], mask)
                terms["cosine"] = (weights.cosine * cosine, real)
            if weights.hidden:
                parts = [
                    hidden_mse_loss(states[ours], teacher_states[theirs], mask)
                    for ours, theirs in hidden_pairs
                ]
                terms["hidden"] = (weights.hidden * torch.stack(parts).mean(), real)
            if weights.relation:
                mine = {name: states[ours] for name, (ours, _) in attention.items()}
                wanted = {name: teacher_states[theirs] for name, (_, theirs) in attention.items()}
                both = [
                    relation_loss(mine[a], mine[b], wanted[a], wanted[b], mask, weights.relation_heads)
                    for a, b in (("query", "key"), ("value", "value"))
                ]
                terms["relation"] = (weights.relation * torch.stack(both).sum(), real)
            return terms

        facts = _train_student(
            trained, tokens, loss_of, settings, work, key, asdict(weights), "student",
        )  # fmt: skip
        if quantized_epochs:
            further = replace(
                settings, epochs=quantized_epochs, learning_rate=QUANTIZED_SHARE * settings.learning_rate
            )
            with _rounding(student, quantized_bits, tokens, task.inputs):
                facts["quantized"] = _train_student(
                    trained, tokens, loss_of, further, work / "quantized",
                    f"quantized {quantized_bits} {key} {settings}", asdict(weights),
                    f"student in {quantized_bits} bits",
                )  # fmt: skip
                if quantized_bits == 8:
                    facts["ranges"] = ranges_to_dict(learned_ranges(student))
    return student, {"layers_kept": list(kept), "losses_left_out": list(chosen.left_out), **facts}


def _rounding(student: Any, bits: int, tokens: Tokens, inputs: Sequence[str]) -> AbstractContextManager[None]:
    if bits == 4:
        return fake_int4(student)
    seen = seen_values(student, calibration_of(tokens, inputs))
    return fake_quantized(student, ranges_by(seen, "mse", "percentile"))


def plain_student(
    start: Any,
    tokens: Tokens,
    task: TaskSpec,
    settings: TrainSettings,
    work: Path,
    shape: StudentShape = StudentShape(),
    *,
    new_head: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """The baseline: the same layers of a model that no teacher has trained, fine-tuned on hard labels only.

    start: the pretrained model, with a new_head or one that was trained before. Labelled rows, epochs and
    seed are the distilled student's; so are the steps, where that had no rows without labels.
    """
    student, kept = make_student(start, shape)
    scale, key = score_scale(tokens, task.kind), f"{model_sha256(start)} {shape}"
    with trained_in(scale, student, new_head=new_head):
        loss_of = hard_loss(tokens, task, scale)
        facts = _train_student(
            student, tokens, loss_of, settings, work, key, {"hard": 1.0}, "student without teacher"
        )
    return student, {"layers_kept": list(kept), **facts}


def make_student(start: Any, shape: StudentShape) -> tuple[Any, tuple[int, ...]]:
    """The student before it is trained, and the layers of start that it has. Raises UsageError."""
    kept = choose_layers(shape.layers, len(layer_list(start)), shape.layer_choice)
    sizes = (shape.hidden_size or None, shape.heads or None, shape.intermediate_size or None)
    return narrow_student(start, kept, *sizes), kept


def state_pairs(
    weights: LossWeights, imitated: tuple[int, ...], teacher_layers: int
) -> list[tuple[str, str]]:
    """Which states of the student are compared with which of the teacher's, by the losses that are used.

    imitated: for each of the student's layers the teacher's, from 0. Relations are those of the last layers.
    """
    last, pairs = len(imitated), []
    if weights.hidden:
        pairs.append(("hidden-0", "hidden-0"))
        pairs += [(f"hidden-{index + 1}", f"hidden-{theirs + 1}") for index, theirs in enumerate(imitated)]
    elif weights.cosine:
        pairs.append((f"hidden-{last}", f"hidden-{teacher_layers}"))
    if weights.relation:
        pairs += [(f"{it}-{last - 1}", f"{it}-{teacher_layers - 1}") for it in ("query", "key", "value")]
    return pairs


def model_sha256(model: Any) -> str:
    """Hex sha256 over a model's config and weights."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _all_outputs(
    teachings: Sequence[Teaching], work: Path, states: Sequence[str]
) -> tuple[TeacherOutputs, str]:
    """The outputs of one teacher, or the mean of several, and a fingerprint of the teachers."""
    found, prints = [], []
    for number, teaching in enumerate(teachings):
        sha256 = model_sha256(teaching.model)
        made_from = (teaching.model, sha256, teaching.tokens, teaching.inputs)
        folder = work / f"teacher-outputs-{number}"
        if is_first():
            teacher_outputs(*made_from, folder, states)
        wait_for_first()  # which computes them once; all processes map the same files
        answers = teacher_outputs(*made_from, folder, states)
        found.append(TeacherOutputs(answers.logits[:, list(teaching.columns)], answers.states))
        prints.append(f"{sha256} {tokens_sha256(teaching.tokens)}")
    if len(found) == 1:
        return found[0], prints[0]
    return averaged([answers.logits for answers in found]), " ".join(prints)


def _train_student(
    student: Any,
    tokens: Tokens,
    loss_of: Loss,
    settings: TrainSettings,
    work: Path,
    start_key: str,
    losses: dict[str, float],
    description: str,
) -> dict[str, Any]:
    key = f"{start_key} losses {losses} rows {tokens_sha256(tokens)}"
    facts = train(student, tokens.lengths, loss_of, settings, work / "checkpoints", key, description)
    return {"losses": losses, **facts}
