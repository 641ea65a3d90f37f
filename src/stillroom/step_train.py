"""Step "teacher"; and how any trained model is saved, scored on the test split, and told of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError, first_line
from stillroom.extras import resolve_source
from stillroom.files import staged_folder
from stillroom.kinds import all_scores, in_words, kind_of
from stillroom.processes import is_first
from stillroom.progress import say
from stillroom.recipe import Recipe, recipe_to_dict
from stillroom.splits import load_splits
from stillroom.step_data import encode
from stillroom.steps import Run, do_step, fingerprint, recorded

if TYPE_CHECKING:
    from stillroom.distill.train import TrainSettings
    from stillroom.fill_mask_recipe import FillMaskRecipe
    from stillroom.task import TaskSpec


def find_model(source: str, *, allow_download: bool) -> Path:
    """The model folder a recipe names; a hub id is fetched only when allowed. Raises UsageError."""
    if not source:
        raise UsageError("no teacher: give --teacher FOLDER, or teacher.source in the recipe")
    path = resolve_source(source)
    if path.exists():
        return path
    if source.startswith("package:") or source.startswith((".", "/", "~")) or not allow_download:
        raise UsageError(f"no teacher folder {source}: give a folder, or a hub id with --allow-download")
    from huggingface_hub import snapshot_download

    say(f"teacher: fetching {source} from the hub")
    try:
        patterns = ["*.json", "*.safetensors", "vocab.txt", "*.model", "merges.txt"]
        return Path(snapshot_download(source, allow_patterns=patterns))
    except Exception as error:  # the hub client raises many kinds, none of them ours to sort
        raise UsageError(f"{source} could not be fetched: {first_line(error)}") from None


def teacher_step(run: Run, recipe: Recipe, source: Path, name: str = "teacher") -> dict[str, Any]:
    """teacher/, or another folder called name: the given model as it is, or fine-tuned."""

    def work() -> dict[str, Any]:
        from stillroom.distill.teacher import open_source, train_teacher
        from stillroom.tokens import encode_rows, pad_id_of, tokenizer_from_json

        splits = load_splits(run.folder / "data")
        opened = open_source(
            source, splits.labels, recipe.max_length, pair=bool(recipe.data.pair_column), kind=recipe.task
        )
        for note in opened.notes:
            say(f"  {note}")
        tokenizer = tokenizer_from_json(opened.tokenizer_json, opened.task.max_length)
        tokens = encode_rows(tokenizer, splits.train, opened.task, pad_id_of(source, tokenizer))
        if opened.trained:
            say("  its head already answers these labels: used as it is")
        settings = training_settings(recipe, recipe.teacher)
        model, training = train_teacher(
            opened, tokens, settings, run.work / name / "checkpoints", source_sha256
        )
        lineage = {
            "source_sha256": source_sha256,
            "data": _data_lineage(run),
            "training": training,
            "notes": list(opened.notes),
        }
        return save_and_score(run, name, model, opened.tokenizer_json, opened.task, lineage)

    source_sha256 = fingerprint(source)
    made_from = {
        "recipe": {**recipe_to_dict(recipe)["teacher"], "source": "", "also": [],
                   "max_length": recipe.max_length, "seed": recipe.seed},
        "task": recipe.task,
        "pair": bool(recipe.data.pair_column),
        "model_sha256": source_sha256,
        **recorded(run, "data"),
    }  # fmt: skip
    facts = told(run, do_step(run, name, made_from, (name,), work, together=True))
    metric = kind_of(recipe.task).metric
    if not facts["test"][metric] > 0:
        raise UsageError(
            f"the {name}'s {metric} on the {run.facts('data')['counts']['test_rows']} test rows is "
            f"{facts['test'][metric]:.3g}: check the labels, bring more rows, or raise teacher.epochs"
        )
    return facts


def training_settings(recipe: Recipe | FillMaskRecipe, section: Any) -> TrainSettings:
    """What the loop needs of a recipe and its section for a model; a flat recipe is its own section."""
    from stillroom.distill.train import TrainSettings

    return TrainSettings(
        section.epochs,
        section.learning_rate,
        section.batch_size,
        recipe.seed,
        section.freeze_word_embeddings,
        recipe.checkpoint_every_s,
        recipe.checkpoints_kept,
    )


def _data_lineage(run: Run) -> dict[str, Any]:
    return {"sha256": recorded(run, "data")["data"], "counts": run.facts("data")["counts"]}


def save_and_score(
    run: Run, name: str, model: Any, tokenizer_json: str, task: TaskSpec, lineage: dict[str, Any]
) -> dict[str, Any]:
    """Score a model on validation and test, and write its folder and test logits, all or nothing.

    Of several processes the first does it.
    """
    if not is_first():
        return {}
    from stillroom.distill.evaluate import predict_logits
    from stillroom.student import parameter_count, save_student

    with staged_folder(run.folder / name) as partial:
        save_student(partial, model, tokenizer_json, task, lineage)
        scores = {}
        for split in ("validation", "test"):
            tokens, _ = encode(run, partial, task, split)
            logits = predict_logits(model, tokens, task.inputs, f"{name} on {split}")
            scores[split] = all_scores(task.kind, logits, tokens.labels)
        np.save(partial / "test_logits.npy", logits)
    size_bytes = (run.folder / name / "model.safetensors").stat().st_size
    return {
        "parameters": parameter_count(model),
        "size_bytes": size_bytes,
        **scores,
        "training": lineage["training"],
    }


def told(run: Run, facts: dict[str, Any]) -> dict[str, Any]:
    say(f"  {facts['parameters'] / 1e6:.1f} M parameters; on test {in_words(facts['test'])}")
    if weakness := learned_nothing(run, facts):
        say(f"  warning: {weakness}")
    return facts


def learned_nothing(run: Run, facts: dict[str, Any]) -> str:
    """What to tell of a model that one fixed answer would beat or equal on test; "" for any other."""
    counts = run.facts("data")["counts"]
    if next(iter(facts["test"].values())) > counts["fixed_answer_score"]:
        return ""
    return (
        f"no better than always answering {counts['fixed_answer']!r} ({counts['fixed_answer_score']:.1%} on "
        "test): check the labels, bring more rows, or train for more epochs"
    )
