"""Steps "student" and "baseline": the distilled model, and the same model trained without a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.processes import is_first
from stillroom.progress import say
from stillroom.recipe import Recipe, recipe_to_dict
from stillroom.splits import load_splits
from stillroom.step_data import encode_for
from stillroom.step_train import save_and_score, told, training_settings
from stillroom.step_transfer import augmented_rows, load_transfer, rows_seen
from stillroom.steps import Run, do_step, fingerprint, recorded

if TYPE_CHECKING:
    from stillroom.distill.distill import StudentShape, Teaching
    from stillroom.student import Student
    from stillroom.task import TaskSpec
    from stillroom.text import Row
    from stillroom.tokens import Tokens


@dataclass(frozen=True)
class Start:
    """What a student is before it is trained, its vocabulary already cut.

    pieces: the tokenizer.json text before the cut, which says whose tokens are the same. new_ids: int32
    [old vocabulary], -1 for what was cut. facts: for the lineage.
    """

    model: Any
    tokenizer_json: str
    pieces: str
    task: TaskSpec
    new_head: bool
    new_ids: np.ndarray
    facts: dict[str, Any]

    @property
    def pad_id(self) -> int:
        """The id that fills padded positions."""
        return int(self.model.config.pad_token_id or 0)

    def tokens(self, rows: Sequence[Row]) -> Tokens:
        """The rows as the student reads them."""
        from stillroom.tokens import encode_rows, tokenizer_from_json

        tokenizer = tokenizer_from_json(self.tokenizer_json, self.task.max_length)
        return encode_rows(tokenizer, rows, self.task, self.pad_id)


# training rows, rows without labels -> the model, what it started from, and its lineage
Train = Callable[[Sequence["Row"], Sequence["Row"]], tuple[Any, Start, dict[str, Any]]]


def teacher_names(recipe: Recipe) -> tuple[str, ...]:
    """Folders of the run with its teachers: "teacher", and "teacher-2" and so on for teacher.also."""
    return ("teacher", *(f"teacher-{number}" for number in range(2, 2 + len(recipe.teacher.also))))


def student_step(
    run: Run, recipe: Recipe, teacher_source: Path, start_source: Path | None = None
) -> dict[str, Any]:
    """student/: some of the first teacher's layers, or of start_source's, distilled.

    teacher_source: the folder the first teacher came from.
    """
    _check_augmentation(recipe)

    def train(rows: Sequence[Row], transfer: Sequence[Row]) -> tuple[Any, Start, dict[str, Any]]:
        from stillroom.distill.distill import distill_from_model
        from stillroom.student import load_model, load_student

        teachers = [load_student(run.folder / name) for name in teacher_names(recipe)]
        models = [load_model(teacher.folder) for teacher in teachers]
        seen = [rows_seen(partial(encode_for, one.folder, one.task), rows, transfer) for one in teachers]
        seen[0], copies = augmented_rows(run, recipe, teacher_source, seen[0], len(rows))
        everything, first = (*rows, *transfer), teachers[0]
        if start_source is None:
            pieces = _tokenizer_of(first)
            start = cut_vocabulary(recipe, models[0], pieces, first.task, everything, np.unique(seen[0].ids))
        else:
            start = _pretrained(recipe, start_source, first.task, everything)
        if start_source is None and not isinstance(recipe.student.vocabulary, int):
            tokens = replace(seen[0], ids=start.new_ids[seen[0].ids], pad_id=start.pad_id)
        else:  # another tokenizer, or one whose limit lets words fall into other pieces
            tokens = rows_seen(start.tokens, rows, transfer)
        if len(tokens) > len(rows):
            say(
                f"  the student sees {len(tokens)} rows an epoch: {len(rows)} labelled, {len(transfer)} of "
                f"transfer text, {len(tokens) - len(everything)} altered copies"
            )
        model, training = distill_from_model(
            [_teaching(*one, start, tokens) for one in zip(models, teachers, seen, strict=True)],
            tokens,
            start.task,
            training_settings(recipe, recipe.student),
            run.work / "student",
            _shape(recipe),
            _weights(recipe),
            start.model,
            new_head=start.new_head,
            quantized_epochs=recipe.student.quantized_epochs,
            quantized_bits=recipe.student.quantized_bits,
        )
        learned = {"ranges": training.pop("ranges")} if "ranges" in training else {}
        others = [{"sha256": one.weights_sha256, "lineage": one.lineage} for one in teachers[1:]]
        return (
            model,
            start,
            {
                "teacher_sha256": first.weights_sha256,
                "teacher": first.lineage,
                "other_teachers": others,
                "rows_without_labels": {"transfer": len(transfer), "augmentation": copies},
                "training": training,
                **learned,
            },
        )

    start_sha256 = "" if start_source is None else fingerprint(start_source)
    return _model_step(run, recipe, "student", train, start_sha256)


def baseline_step(run: Run, recipe: Recipe, source: Path) -> dict[str, Any]:
    """baseline/: the same layers of the pretrained model, fine-tuned without a teacher."""

    def train(rows: Sequence[Row], transfer: Sequence[Row]) -> tuple[Any, Start, dict[str, Any]]:
        from stillroom.distill.distill import plain_student
        from stillroom.student import load_student

        # The transfer text is only read for its vocabulary: nobody is there to speak on it.
        start = _pretrained(recipe, source, load_student(run.folder / "teacher").task, (*rows, *transfer))
        model, training = plain_student(
            start.model,
            start.tokens(rows),
            start.task,
            training_settings(recipe, recipe.student),
            run.work / "baseline",
            _shape(recipe),
            new_head=start.new_head,
        )
        head = "pretrained encoder" if start.new_head else "trained head"
        return model, start, {"start_sha256": source_sha256, "training": {**training, "start": head}}

    source_sha256 = fingerprint(source)
    return _model_step(run, recipe, "baseline", train, source_sha256)


def _model_step(run: Run, recipe: Recipe, name: str, train: Train, start_sha256: str) -> dict[str, Any]:
    """A student step: train a model on the run's rows and write it to the folder called name."""

    def work() -> dict[str, Any]:
        model, start, lineage = train(load_splits(run.folder / "data").train, load_transfer(run))
        lineage = {**lineage, **start.facts}
        return save_and_score(run, name, model, start.tokenizer_json, start.task, lineage)

    section = {**recipe_to_dict(recipe)["student"], "source": ""}
    transfer = bool(recipe.data.transfer)
    if name == "baseline":
        del section["augment_copies"]  # which only a teacher can speak on
        transfer = transfer and recipe.student.vocabulary != "all"
    if name == "baseline" or not section["quantized_epochs"]:
        del section["quantized_epochs"], section["quantized_bits"]  # a student from before these keys stays
    elif section["quantized_bits"] == 8:
        del section["quantized_bits"]
    made_from = {
        "recipe": {**section, "seed": recipe.seed},
        "start_sha256": start_sha256,
        **recorded(run, "data", *(("transfer",) if transfer else ()), *teacher_names(recipe)),
    }
    return told(run, do_step(run, name, made_from, (name,), work, together=True))


def _shape(recipe: Recipe) -> StudentShape:
    from stillroom.distill.distill import StudentShape

    chosen = recipe.student
    return StudentShape(
        chosen.layers, chosen.layer_choice, chosen.hidden_size, chosen.heads, chosen.intermediate_size
    )


def _weights(recipe: Recipe) -> Any:
    from stillroom.distill.objective import LossWeights

    chosen = recipe.student
    return LossWeights(
        temperature=chosen.temperature,
        soft=chosen.soft_weight,
        hard=chosen.hard_weight,
        cosine=chosen.cosine_weight,
        hidden=chosen.hidden_weight,
        relation=chosen.relation_weight,
        relation_heads=chosen.relation_heads,
    )


def _tokenizer_of(model: Student) -> str:
    return (model.folder / "tokenizer.json").read_text(encoding="utf-8")


def _pretrained(recipe: Recipe, source: Path, task: TaskSpec, rows: Sequence[Row]) -> Start:
    """A student that starts from a model folder, with that folder's own tokenizer."""
    from stillroom.distill.teacher import open_source, start_model

    opened = open_source(source, task.labels, task.max_length, pair=task.pair, kind=task.kind)
    for note in opened.notes:
        say(f"  {note}")
    model, nothing = start_model(opened, recipe.seed), np.empty(0, dtype=np.int64)
    return cut_vocabulary(
        recipe, model, opened.tokenizer_json, opened.task, rows, nothing, new_head=not opened.trained
    )


def cut_vocabulary(
    recipe: Recipe,
    model: Any,
    tokenizer_json: str,
    task: TaskSpec,
    rows: Sequence[Row],
    ids: np.ndarray,
    *,
    new_head: bool = False,
) -> Start:
    """The start with the vocabulary the recipe asks for. ids: tokens to keep beside those of the rows."""
    from stillroom.distill.vocabulary import config_ids, new_ids, trim_model, trim_tokenizer

    before = int(model.config.vocab_size)
    all_ids = np.arange(before, dtype=np.int32)
    whole = Start(model, tokenizer_json, tokenizer_json, task, new_head, all_ids, {})
    wanted = recipe.student.vocabulary
    if wanted == "all":
        return whole
    limit = None if isinstance(wanted, str) else wanted
    texts = [text for row in rows for text in (row.text, row.pair) if text is not None]
    kept = config_ids(model.config) | (set(ids.tolist()) if limit is None else set())
    trimmed = trim_tokenizer(tokenizer_json, texts, limit, kept)
    after, renumbered = len(trimmed.source_ids), np.full(before, -1, dtype=np.int32)
    for old, new in new_ids(trimmed.source_ids).items():
        renumbered[old] = new
    if is_first():
        say(f"  vocabulary: {before:,} tokens cut to {after:,}")
    return replace(
        whole,
        model=trim_model(model, trimmed.source_ids),
        tokenizer_json=trimmed.tokenizer_json,
        new_ids=renumbered,
        facts={"vocabulary": {"before": before, "after": after, "limit": limit}},
    )


def _check_augmentation(recipe: Recipe) -> None:
    """Altered copies are made of one teacher's tokens, which the student must be able to read."""
    student, copies = recipe.student, recipe.student.augment_copies
    limit = student.vocabulary if isinstance(student.vocabulary, int) else ""
    against = {
        "teacher.also": recipe.teacher.also,
        "student.source": student.source,
        "student.vocabulary": limit,
    }
    for key in (key for key, value in against.items() if copies and value):
        raise UsageError(
            f"student.augment_copies {copies}: copies are made of tokens that one teacher and the student "
            f"share, {key} gives them different ones: leave out either"
        )


def _teaching(model: Any, teacher: Student, theirs: Tokens, start: Start, tokens: Tokens) -> Teaching:
    from stillroom.distill.distill import Teaching

    return Teaching(
        model,
        theirs,
        teacher.task.inputs,
        tuple(teacher.task.labels.index(label) for label in start.task.labels),
        # A vocabulary that was cut with a limit may split words otherwise.
        same_pieces=_tokenizer_of(teacher) == start.pieces
        and theirs.offsets.tolist() == tokens.offsets.tolist(),
    )
