"""Step "data": files -> cleaned rows in three splits; and those rows as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.errors import UsageError
from stillroom.extras import resolve_source
from stillroom.files import sha256_file, staged_folder
from stillroom.progress import say
from stillroom.recipe import Recipe, recipe_to_dict
from stillroom.splits import Splits, load_splits, make_splits, save_splits
from stillroom.steps import Run, do_step
from stillroom.text import Columns, Row, read_rows

if TYPE_CHECKING:
    from stillroom.task import TaskSpec
    from stillroom.tokens import Tokens


def data_step(run: Run, recipe: Recipe) -> Splits:
    """Read, clean and split the rows into data/."""
    data = recipe.data
    if not data.source:
        raise UsageError("no data: give --data FILE, or data.source in the recipe")
    sources = _data_files(recipe)

    def work() -> dict[str, Any]:
        splits = splits_of(recipe)
        with staged_folder(run.folder / "data") as partial:
            save_splits(splits, partial)
        return {"counts": splits.counts, "warnings": list(splits.warnings)}

    for path in sources.values():
        if not path.is_file():
            raise UsageError(f"no such data file: {path}")
    made_from = {
        "task": recipe.task,
        # What is transferred is compared with the splits later and has no part in them.
        "recipe": {
            key: value for key, value in recipe_to_dict(recipe)["data"].items() if "transfer" not in key
        },
        "files": {name: sha256_file(path) for name, path in sources.items()},
    }
    facts = do_step(run, "data", made_from, ("data",), work)
    for warning in facts["warnings"]:
        say(f"  warning: {warning}")
    counts = facts["counts"]
    say(
        f"  {counts['train_rows']} train, {counts['validation_rows']} validation, {counts['test_rows']} test "
        f"rows; {counts['dropped_duplicates']} duplicates and {counts['dropped_low_confidence']} unsure rows "
        f"dropped; always answering {counts['fixed_answer']!r} scores {counts['fixed_answer_score']:.1%} "
        f"on test"
    )
    return load_splits(run.folder / "data")


def splits_of(recipe: Recipe) -> Splits:
    """Read, clean and split the rows of a recipe's files; nothing is written."""
    data, sources = recipe.data, _data_files(recipe)
    columns = Columns(data.text_column, data.label_column, data.pair_column, data.confidence_column)

    def rows_of(name: str) -> list[Row] | None:
        return read_rows(sources[name], columns, data.encoding, recipe.task) if name in sources else None

    return make_splits(
        rows_of("source") or [],
        rows_of("validation"),
        rows_of("test"),
        min_confidence=data.min_confidence,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        max_train_rows=data.max_train_rows,
        seed=data.split_seed,
        kind=recipe.task,
    )


def _data_files(recipe: Recipe) -> dict[str, Path]:
    data = recipe.data
    named = {"source": data.source, "validation": data.validation, "test": data.test}
    return {name: resolve_source(path) for name, path in named.items() if path}


def encode(run: Run, model: Path, task: TaskSpec, split: str) -> tuple[Tokens, list[str]]:
    """One split as tokens of this model's tokenizer, and its texts as people read them."""
    rows = getattr(load_splits(run.folder / "data"), split)
    texts = [row.text if row.pair is None else f"{row.text} | {row.pair}" for row in rows]
    return encode_for(model, task, rows), texts


def encode_for(model: Path, task: TaskSpec, rows: Sequence[Row]) -> Tokens:
    """Rows as tokens of a model folder's tokenizer."""
    from stillroom.tokens import encode_rows, load_tokenizer, pad_id_of

    tokenizer = load_tokenizer(model, task.max_length)
    return encode_rows(tokenizer, rows, task, pad_id_of(model, tokenizer))
