"""Steps "student" and "baseline": the distilled model, and the same model trained without a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.processes import is_first
from stillroom.progress import say
from stillroom.recipe import Recipe, recipe_to_dict
from stillroom.splits import load_splits
from stillroom.step_train import save_and_score, told, training_settings
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

    pieces: the tokenizer.json text before the cut, which says whose tokens are the same. facts: for the
    lineage.
    """

    model: Any
    tokenizer_json: str
    pieces: str
    task: TaskSpec
    new_head: bool
    facts: dict[str, Any]

    def tokens(self, rows: Sequence[Row]) -> Tokens:
        """The rows as the student reads them."""
        from stillroom.tokens import encode_rows, tokenizer_from_json

        tokenizer = tokenizer_from_json(self.tokenizer_json, self.task.max_length)
        return encode_rows(tokenizer, rows, self.task, int(self.model.config.pad_token_id or 0))


def teacher_names(recipe: Recipe) -> tuple[str, ...]:
    """Folders of the run with its teachers: "teacher", and "teacher-2" and so on for teacher.also."""
    return ("teacher", *(f"teacher-{number}" for number in range(2, 2 + len(recipe.teacher.also))))


def student_step(run: Run, recipe: Recipe, start_source: Path | None = None) -> dict[str, Any]:
    """student/: some of the first teacher's layers, or of start_source's, distilled."""

    def train(rows: Sequence[Row]) -> tuple[Any, Start, dict[str, Any]]:
        from stillroom.distill.distill import distill_from_model
        from stillroom.distill.objective import LossWeights
        from stillroom.student import load_model, load_student

        chosen = recipe.student
        teachers = [load_student(run.folder / name) for name in teacher_names(recipe)]
        models = [load_model(teacher.folder) for teacher in teachers]
        if start_source is None:
            start = _cut(
                recipe, models[0], _tokenizer_of(teachers[0]), teachers[0].task, rows, new_head=False
            )
        else:
            start = _pretrained(recipe, start_source, teachers[0].task, rows)
        tokens = start.tokens(rows)
        teachings = [
            _teaching(model, teacher, rows, start, tokens)
            for model, teacher in zip(models, teachers, strict=True)
        ]
        model, training = distill_from_model(
            teachings,
            tokens,
            start.task,
            training_settings(recipe, chosen),
            run.work / "student",
            _shape(recipe),
            LossWeights(
                chosen.temperature,
                chosen.soft_weight,
                chosen.hard_weight,
                chosen.cosine_weight,
                chosen.hidden_weight,
                chosen.relation_weight,
                chosen.relation_heads,
            ),
            start.model,
            new_head=start.new_head,
        )
        lineage = {
            "teacher_sha256": teachers[0].weights_sha256,
            "teacher": teachers[0].lineage,
            "other_teachers": [
                {"sha256": one.weights_sha256, "lineage": one.lineage} for one in teachers[1:]
            ],
            "training": training,
        }
        return model, start, lineage

    start_sha256 = "" if start_source is None else fingerprint(start_source)
    return _model_step(run, recipe, "student", train, start_sha256)


def baseline_step(run: Run, recipe: Recipe, source: Path) -> dict[str, Any]:
    """baseline/: the same layers of the pretrained model, fine-tuned without a teacher."""

    def train(rows: Sequence[Row]) -> tuple[Any, Start, dict[str, Any]]:
        from stillroom.distill.distill import plain_student
        from stillroom.student import load_student

        start = _pretrained(recipe, source, load_student(run.folder / "teacher").task, rows)
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


def _model_step(
    run: Run,
    recipe: Recipe,
    name: str,
    train: Callable[[Sequence[Row]], tuple[Any, Start, dict[str, Any]]],
    start_sha256: str,
) -> dict[str, Any]:
    """A student step: train a model on the run's rows and write it to the folder called name.

    train: training rows -> the model, what it started from, and its lineage.
    """

    def work() -> dict[str, Any]:
        model, start, lineage = train(load_splits(run.folder / "data").train)
        lineage = {**lineage, **start.facts}
        return save_and_score(run, name, model, start.tokenizer_json, start.task, lineage)

    made_from = {
        "recipe": {**recipe_to_dict(recipe)["student"], "source": "", "seed": recipe.seed},
        "start_sha256": start_sha256,
        **recorded(run, "data", *teacher_names(recipe)),
    }
    return told(run, do_step(run, name, made_from, (name,), work, together=True))


def _shape(recipe: Recipe) -> StudentShape:
    from stillroom.distill.distill import StudentShape

    chosen = recipe.student
    return StudentShape(
        chosen.layers, chosen.layer_choice, chosen.hidden_size, chosen.heads, chosen.intermediate_size
    )


def _tokenizer_of(model: Student) -> str:
    return (model.folder / "tokenizer.json").read_text(encoding="utf-8")


def _pretrained(recipe: Recipe, source: Path, task: TaskSpec, rows: Sequence[Row]) -> Start:
    """A student that starts from a model folder, with that folder's own tokenizer."""
    from stillroom.distill.teacher import open_source, start_model

    opened = open_source(source, task.labels, task.max_length, pair=task.pair, kind=task.kind)
    for note in opened.notes:
        say(f"  {note}")
    model = start_model(opened, recipe.seed)
    return _cut(recipe, model, opened.tokenizer_json, opened.task, rows, new_head=not opened.trained)


def _cut(
    recipe: Recipe, model: Any, tokenizer_json: str, task: TaskSpec, rows: Sequence[Row], *, new_head: bool
) -> Start:
    """The start with the vocabulary that the recipe asks for."""
    from stillroom.distill.vocabulary import config_ids, trim_model, trim_tokenizer

    whole = Start(model, tokenizer_json, tokenizer_json, task, new_head, {})
    wanted = recipe.student.vocabulary
    if wanted == "all":
        return whole
    limit = None if isinstance(wanted, str) else wanted
    texts = [text for row in rows for text in (row.text, row.pair) if text is not None]
    trimmed = trim_tokenizer(tokenizer_json, texts, limit, config_ids(model.config))
    before, after = int(model.config.vocab_size), len(trimmed.source_ids)
    if is_first():
        say(f"  vocabulary: {before:,} tokens cut to {after:,}")
    return replace(
        whole,
        model=trim_model(model, trimmed.source_ids),
        tokenizer_json=trimmed.tokenizer_json,
        facts={"vocabulary": {"before": before, "after": after, "limit": limit}},
    )


def _teaching(model: Any, teacher: Student, rows: Sequence[Row], start: Start, tokens: Tokens) -> Teaching:
    from stillroom.distill.distill import Teaching
    from stillroom.step_data import encode_for

    theirs = encode_for(teacher.folder, teacher.task, rows)
    return Teaching(
        model,
        theirs,
        teacher.task.inputs,
        tuple(teacher.task.labels.index(label) for label in start.task.labels),
        # A vocabulary that was cut with a limit may split words otherwise.
        same_pieces=_tokenizer_of(teacher) == start.pieces
        and theirs.offsets.tolist() == tokens.offsets.tolist(),
    )
