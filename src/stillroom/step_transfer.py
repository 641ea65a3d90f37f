"""Step "transfer": texts without labels, on which only the teacher speaks; and all rows a student sees."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.extras import resolve_source
from stillroom.files import sha256_file, staged_folder
from stillroom.processes import is_first
from stillroom.progress import say
from stillroom.recipe import Recipe
from stillroom.splits import PARTS, Splits, fold_key, load_rows, load_splits, save_rows
from stillroom.steps import Run, do_step, fingerprint, recorded
from stillroom.text import Columns, Row, read_rows

if TYPE_CHECKING:
    from stillroom.tokens import Tokens


def transfer_step(run: Run, recipe: Recipe) -> None:
    """Read data.transfer into transfer/, but no row of the splits; nothing where the recipe has none."""
    data = recipe.data
    if not data.transfer:
        _forget(run)
        return
    path, encoding = resolve_source(data.transfer), _encoding(recipe)
    columns = Columns(data.text_column, "", data.pair_column)

    def work() -> dict[str, Any]:
        rows, counts = new_rows(
            read_rows(path, columns, encoding),
            load_splits(run.folder / "data"),
            max_rows=data.max_transfer_rows,
            seed=data.split_seed,
        )
        if not rows:
            raise UsageError(
                f"{path}: every text is in the training, validation or test rows already: "
                "--transfer needs other texts"
            )
        with staged_folder(run.folder / "transfer") as partial:
            sha256 = save_rows(rows, partial / "rows.jsonl")
        return {"counts": counts, "sha256": sha256}

    if not path.is_file():
        raise UsageError(f"no such transfer file: {path}")
    made_from = {
        "file": sha256_file(path),
        "name": path.name,  # its ending says how it is read
        "encoding": encoding,
        "columns": {"text": columns.text, "pair": columns.pair},
        "max_transfer_rows": data.max_transfer_rows,
        "split_seed": data.split_seed,
        **recorded(run, "data"),
    }
    counts = do_step(run, "transfer", made_from, ("transfer",), work)["counts"]
    in_splits = ", ".join(f"{counts[f'dropped_{part}']} {part}" for part in PARTS)
    say(
        f"  {counts['rows']} rows without labels, of {counts['rows_read']} read; dropped: "
        f"{counts['dropped_duplicates']} duplicates, rows of the splits ({in_splits}), "
        f"{counts['dropped_by_cap']} above max_transfer_rows"
    )


def load_transfer(run: Run) -> tuple[Row, ...]:
    """The rows of a finished transfer step, none if there was none.

    Raises UsageError when their file was changed.
    """
    if not run.record("transfer").is_file():
        return ()
    return load_rows(run.folder / "transfer" / "rows.jsonl", run.facts("transfer")["sha256"])


def new_rows(
    rows: Sequence[Row], splits: Splits, *, max_rows: int, seed: int
) -> tuple[tuple[Row, ...], dict[str, int]]:
    """Rows whose fold key is in no split, the first of every key, and the counts of what was dropped.

    A test row must not be learned from, not even through what the teacher says of it. max_rows: a seeded
    sample of so many, in their order; 0 for all.
    """
    part_of = {fold_key(row): part for part in PARTS for row in getattr(splits, part)}
    counts = {"rows_read": len(rows), "dropped_duplicates": 0, **{f"dropped_{part}": 0 for part in PARTS}}
    kept: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = fold_key(row)
        if key in part_of:
            counts[f"dropped_{part_of[key]}"] += 1
        elif key in kept:
            counts["dropped_duplicates"] += 1
        else:
            kept[key] = row
    found = list(kept.values())
    if max_rows and max_rows < len(found):
        sample = np.random.default_rng(seed).permutation(len(found))[:max_rows]
        found = [found[index] for index in sorted(sample.tolist())]
    return tuple(found), {**counts, "dropped_by_cap": len(kept) - len(found), "rows": len(found)}


def rows_seen(
    read: Callable[[Sequence[Row]], Tokens], rows: Sequence[Row], transfer: Sequence[Row]
) -> Tokens:
    """The training rows, then those of the transfer text without labels, as read makes tokens of them."""
    from stillroom.tokens import joined, without_labels

    tokens = read(rows)
    return joined(tokens, without_labels(read(transfer))) if transfer else tokens


def augmented_rows(
    run: Run, recipe: Recipe, source: Path, tokens: Tokens, labelled: int
) -> tuple[Tokens, dict[str, Any]]:
    """tokens, then altered copies of the first labelled rows of them; and what to record of the copies.

    source: the folder the teacher came from, whose masked-LM head a fine-tuned teacher has lost.
    """
    from stillroom.tokens import joined, some_rows

    copies = recipe.student.augment_copies
    if not copies:
        return tokens, {}
    from stillroom.distill.augment import augmented

    more, method = augmented(
        some_rows(tokens, np.arange(labelled)), source, fingerprint(source), copies, recipe.seed,
        run.work / "student" / "augmented",
    )  # fmt: skip
    say(f"  augmentation: {method}")
    return joined(tokens, more), {"rows": len(more), "copies": copies, "method": method}


def _encoding(recipe: Recipe) -> str:
    """data.encoding; but that of a packaged source describes this source, not the user's file beside it."""
    data = recipe.data
    own = data.source.startswith("package:") and not data.transfer.startswith("package:")
    return "utf-8" if own else data.encoding


def _forget(run: Run) -> None:
    """Remove what an earlier call transferred: this one's student is made without."""
    if is_first() and run.record("transfer").is_file():
        run.record("transfer").unlink()
        shutil.rmtree(run.folder / "transfer", ignore_errors=True)
        say("transfer: removed, because there is no data.transfer any more")
