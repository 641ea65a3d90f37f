"""Unlabelled text: nothing of the splits gets in, none of it has a label, and a student is made with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.cli import main
from stillroom.distill.task_loss import has_label
from stillroom.errors import UsageError
from stillroom.files import read_json
from stillroom.recipe import Recipe, override
from stillroom.splits import Splits, fold, fold_key, load_splits
from stillroom.step_data import data_step, encode, encode_for
from stillroom.step_transfer import augmented_rows, load_transfer, new_rows, rows_seen, transfer_step
from stillroom.steps import Run, open_run
from stillroom.task import TaskSpec
from stillroom.text import Row
from stillroom.tokens import without_labels


def row(text: str, pair: str | None = None) -> Row:
    return Row(text, pair, "", 1.0, f"more.txt:{text}")


def splits_of(train: list[str], validation: list[str], test: list[str]) -> Splits:
    parts = [tuple(Row(text, None, "good") for text in part) for part in (train, validation, test)]
    return Splits(*parts, labels=("bad", "good"), counts={}, warnings=())


@given(
    st.lists(st.sampled_from("abcdefgh").flatmap(lambda one: st.sampled_from([one, one.upper(), f" {one}"]))),
    st.integers(0, 9),
    st.integers(0, 5),
)
def test_new_rows_are_new_and_once(written: list[str], max_rows: int, seed: int) -> None:
    splits = splits_of(["a", "A b"], ["b"], ["C", "d "])
    found, counts = new_rows([row(text) for text in written], splits, max_rows=max_rows, seed=seed)
    keys = [fold_key(one) for one in found]
    assert len(set(keys)) == len(keys) and {text for text, _ in keys} <= set("efgh")
    first = [row(text) for place, text in enumerate(written) if fold(text) not in map(fold, written[:place])]
    new = [one for one in first if fold(one.text) in "efgh"]
    assert [one for one in new if one in found] == list(found)  # the first of each key, in order
    assert len(found) == (min(max_rows, len(new)) if max_rows else len(new))
    assert counts["rows_read"] == len(written) and counts["rows"] == len(found)
    assert counts["rows_read"] == counts["rows"] + sum(counts[key] for key in counts if "dropped" in key)
    for part, texts in (("train", "a"), ("validation", "b"), ("test", "cd")):
        assert counts[f"dropped_{part}"] == sum(fold(text) in texts for text in written)
    assert (found, counts) == new_rows(list(map(row, written)), splits, max_rows=max_rows, seed=seed)


def test_another_seed_samples_other_rows() -> None:
    rows, splits = [row(f"text {number}") for number in range(100)], splits_of([], [], [])
    first, second = (new_rows(rows, splits, max_rows=50, seed=seed)[0] for seed in (0, 1))
    assert len(first) == len(second) == 50 and first != second and set(first) != set(rows[:50])


def test_a_pair_is_dropped_as_a_pair() -> None:
    splits = Splits((), (), (Row("a", "b", "good"),), ("bad", "good"), {}, ())
    found, _ = new_rows([row("A", " b"), row("a", "c"), row("b", "a")], splits, max_rows=0, seed=0)
    assert [(one.text, one.pair) for one in found] == [("a", "c"), ("b", "a")]


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Unlabelled texts, none of them among the reviews."""
    path = tmp_path / "more.txt"
    path.write_text("\n".join(f"this hotel was great number {n}" for n in range(30)), encoding="utf-8")
    return path


@pytest.fixture
def reviews(tmp_path: Path, review_csv: Callable[..., Path]) -> Path:
    return review_csv(tmp_path / "reviews.csv")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(tmp_path / "run") as opened:
        yield opened


def recipe_of(reviews: Path, more: Path | str, **changes: Any) -> Recipe:
    keys = {"data.source": str(reviews), "data.text_column": "review", "data.label_column": "stars",
            "data.transfer": str(more)}  # fmt: skip
    return override(Recipe(), {**keys, **{name.replace("__", "."): value for name, value in changes.items()}})


def transfer(run: Run, recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> str:
    """Do the two steps; return what the second one said."""
    data_step(run, recipe)
    capsys.readouterr()
    transfer_step(run, recipe)
    return capsys.readouterr().err


def test_nothing_of_the_splits_gets_in(
    run: Run, reviews: Path, more: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(reviews, more)
    data_step(run, recipe)
    splits = load_splits(run.folder / "data")
    known = [one.text for part in (splits.train, splits.validation, splits.test) for one in part]
    # As reposts of them would come: in other letters, with other spaces.
    more.write_text(
        more.read_text("utf-8") + "\n" + "\n".join(f" {text.upper()}  " for text in known), encoding="utf-8"
    )
    said = transfer(run, recipe, capsys)
    found = load_transfer(run)
    assert len(found) == 30 and {one.label for one in found} == {""}
    assert not {fold(one.text) for one in found} & {fold(text) for text in known}
    counts = run.facts("transfer")["counts"]
    assert counts["dropped_test"] == len(splits.test) > 0 and counts["dropped_train"] == len(splits.train)
    assert "30 rows without labels, of 150 read; dropped: 0 duplicates" in said
    assert f"{len(splits.test)} test" in said


def test_done_once_and_again_when_something_changed(
    run: Run, reviews: Path, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(reviews, more)
    assert "transfer ..." in transfer(run, recipe, capsys)
    assert "done before, kept" in transfer(run, recipe, capsys)
    moved = tmp_path / "elsewhere" / "more.txt"
    moved.parent.mkdir()
    more.rename(moved)
    recipe = recipe_of(reviews, moved)
    assert "done before, kept" in transfer(run, recipe, capsys)
    moved.write_text(moved.read_text("utf-8") + "\none more", encoding="utf-8")
    assert "done again, because file changed" in transfer(run, recipe, capsys)
    assert len(load_transfer(run)) == 31
    capped = override(recipe, {"data.max_transfer_rows": 7})
    assert "max_transfer_rows changed (0 -> 7)" in transfer(run, capped, capsys)
    assert len(load_transfer(run)) == 7 and run.facts("transfer")["counts"]["dropped_by_cap"] == 24
    reseeded = override(capped, {"data.split_seed": 1})
    assert "transfer: done again" in transfer(run, reseeded, capsys)
    (run.folder / "transfer" / "rows.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="changed after it was written"):
        load_transfer(run)
    assert "transfer changed on disk" in transfer(run, reseeded, capsys)


def test_other_splits_and_columns_do_it_again(
    run: Run, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text('{"review": "new", "note": "other", "stars": 7}\n', encoding="utf-8")
    recipe = recipe_of(reviews, more)
    transfer(run, recipe, capsys)
    assert [(one.text, one.label) for one in load_transfer(run)] == [("new", "")]
    fewer = override(recipe, {"data.max_train_rows": 40})
    assert "transfer: done again, because data changed" in transfer(run, fewer, capsys)
    content = reviews.read_text("utf-8").replace("review,stars", "note,stars")
    reviews.write_text(content, encoding="utf-8")
    renamed = override(fewer, {"data.text_column": "note"})
    assert "columns.text changed (review -> note)" in transfer(run, renamed, capsys)
    assert [one.text for one in load_transfer(run)] == ["other"]


def test_the_splits_do_not_depend_on_it(
    run: Run, reviews: Path, more: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_step(run, recipe_of(reviews, ""))
    capsys.readouterr()
    data_step(run, recipe_of(reviews, more, data__max_transfer_rows=5))
    assert "data: done before, kept" in capsys.readouterr().err


def test_no_transfer_is_no_step(
    run: Run, reviews: Path, more: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transfer(run, recipe_of(reviews, ""), capsys) == ""
    assert load_transfer(run) == () and not (run.folder / "transfer").exists()
    transfer(run, recipe_of(reviews, more), capsys)
    assert len(load_transfer(run)) == 30
    assert "transfer: removed" in transfer(run, recipe_of(reviews, ""), capsys)
    assert load_transfer(run) == () and not (run.folder / "transfer").exists()


def test_fresh_forgets_it(
    run: Run, reviews: Path, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    with open_run(other) as opened:
        transfer(opened, recipe_of(reviews, more), capsys)
    with open_run(other, fresh=True) as opened:
        assert load_transfer(opened) == () and not (other / "transfer").exists()


def test_encodings(run: Run, reviews: Path, more: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more.write_bytes("café\n".encode("latin-1"))
    with pytest.raises(UsageError, match="not valid utf-8"):
        transfer(run, recipe_of(reviews, more), capsys)
    transfer(run, recipe_of(reviews, more, data__encoding="latin-1"), capsys)
    assert [one.text for one in load_transfer(run)] == ["café"]


def test_a_packaged_source_has_an_encoding_of_its_own(
    run: Run, more: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stillroom.recipe import load_recipe

    more.write_text("سلام\n", encoding="utf-8")
    demo = override(load_recipe("demo"), {"data.transfer": str(more)})
    assert demo.data.encoding == "latin-1"
    transfer(run, demo, capsys)
    assert [one.text for one in load_transfer(run)] == ["سلام"]
    own = override(demo, {"data.transfer": demo.data.source, "data.max_transfer_rows": 20_000})
    assert "20000 rows without labels" in transfer(run, own, capsys)
    assert run.facts("transfer")["counts"]["dropped_test"] >= 2007


@pytest.mark.parametrize(
    ("name", "content", "changes", "words"),
    [
        ("none.txt", None, {}, "no such transfer file"),
        ("rows.xlsx", "x", {}, "expected a file named .csv, .tsv, .jsonl, .ndjson, .parquet, .txt"),
        ("rows.csv", "text\nfine\n", {}, "no column 'review'"),
        ("rows.txt", "\n \n", {}, "has no data rows"),
        ("rows.txt", "fine\n", {"data__pair_column": "stars"}, "a .txt file holds texts alone"),
    ],
)
def test_mistakes(
    run: Run, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, content: str | None, changes: dict[str, Any], words: str,
) -> None:  # fmt: skip
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        transfer(run, recipe_of(reviews, path, **changes), capsys)
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert not (run.folder / "transfer").exists() and load_transfer(run) == ()


def test_the_data_itself_is_no_transfer_text(
    run: Run, reviews: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="every text is in the training, validation or test rows already"):
        transfer(run, recipe_of(reviews, reviews), capsys)


LABELS = {
    "text-classification": ("yes", "no"),
    "multi-label": ('"food, room"', "food", '""'),
    "regression": ("1.5", "2", "-3"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_only_training_rows_have_labels(
    run: Run, more: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    labels = LABELS[kind]
    data = tmp_path / "data.csv"
    lines = [f"the food number {n},{labels[n % len(labels)]}" for n in range(60)]
    data.write_text("\n".join(["review,stars", *lines]), encoding="utf-8")
    recipe = recipe_of(data, more, task=kind, student__augment_copies=2)
    transfer(run, recipe, capsys)
    task = TaskSpec(load_splits(run.folder / "data").labels, 16, ("input_ids", "attention_mask"), kind=kind)
    tokens, _ = encode(run, tiny_bert, task, "train")
    rows_of_split = load_splits(run.folder / "data").train
    seen = rows_seen(partial(encode_for, tiny_bert, task), rows_of_split, load_transfer(run))
    everything, facts = augmented_rows(run, recipe, tiny_bert, seen, len(tokens))
    said = capsys.readouterr().err
    rows = len(tokens)
    assert len(everything) == 3 * rows + 30
    assert has_label(torch.from_numpy(everything.labels)).tolist() == [True] * rows + [False] * (
        2 * rows + 30
    )
    assert everything.labels.dtype == tokens.labels.dtype
    assert np.isnan(everything.labels).sum() == (0 if kind == "text-classification" else
                                                 (2 * rows + 30) * len(task.labels))  # fmt: skip
    assert facts["rows"] == 2 * rows
    method = "token dropout, the teacher has no masked-LM head"
    assert f"augmentation: {method}" in said and facts["method"] == method
    plain = override(recipe, {"student.augment_copies": 0, "data.transfer": ""})
    transfer_step(run, plain)
    assert load_transfer(run) == ()
    assert augmented_rows(run, plain, tiny_bert, tokens, rows) == (tokens, {})
    assert not has_label(torch.from_numpy(without_labels(tokens).labels)).any()


QUICK = ("teacher.epochs=1", "student.epochs=1")


def test_a_student_with_unlabelled_text(
    tmp_path: Path,
    reviews: Path,
    more: Path,
    make_model_folder: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_model_folder(tmp_path / "my-bert")

    def distill(*more_options: str) -> tuple[str, dict[str, Any]]:
        settings = [word for one in QUICK for word in ("--set", one)]
        arguments = ["distill", "demo", "--data", str(reviews), "--text-column", "review", "--label-column",
                     "stars", "--teacher", str(folder), "--out", str(tmp_path / "mine")]  # fmt: skip
        assert main([*arguments, *settings, *more_options]) == 0
        lineage = read_json(tmp_path / "mine" / "student" / "stillroom.json")["lineage"]
        return capsys.readouterr().err, lineage

    _, plain = distill()
    rows = plain["training"]["rows"]
    assert plain["rows_without_labels"] == {"transfer": 0, "augmentation": {}}
    said, lineage = distill("--transfer", str(more))
    assert "data: done before, kept" in said and "teacher: done before, kept" in said
    assert "student: done again, because transfer changed" in said
    assert f"the student sees {rows + 30} rows an epoch: {rows} labelled, 30 of transfer" in said
    assert lineage["training"]["rows"] == rows + 30
    assert lineage["rows_without_labels"]["transfer"] == 30
    assert str(tmp_path) not in json.dumps(lineage)
    assert "student: done before, kept" in distill("--transfer", str(more))[0]
    more.write_text(more.read_text("utf-8") + "\none more", encoding="utf-8")
    said, lineage = distill("--transfer", str(more))
    assert "student: done again, because transfer changed" in said
    assert lineage["training"]["rows"] == rows + 31
    said, lineage = distill("--set", "student.augment_copies=1")
    assert "transfer: removed" in said and "augment_copies changed (0 -> 1)" in said
    assert lineage["training"]["rows"] == 2 * rows and not lineage["rows_without_labels"]["transfer"]
    said, again = distill()
    assert "augment_copies changed (1 -> 0)" in said
    assert again["training"] == plain["training"]  # what was added once leaves no trace


def test_a_mistaken_transfer_file_at_the_command_line(
    tmp_path: Path, reviews: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "demo", "--data", str(reviews), "--text-column", "review", "--label-column", "stars",
                 "--teacher", str(tiny_bert), "--out", str(tmp_path / "mine")]  # fmt: skip
    assert main([*arguments, "--transfer", str(tmp_path / "none.txt")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("stillroom: no such transfer file: ")
    assert not (tmp_path / "mine" / "teacher").exists()  # said before anything is trained
    alone = tmp_path / "alone.txt"
    alone.write_text("good\nbad\n", encoding="utf-8")
    assert main(["run", "demo", "--data", str(alone), "--out", str(tmp_path / "two"),
                 "--teacher", str(tiny_bert)]) == 2  # fmt: skip
    assert "a .txt file holds texts alone, it has no column 'label'" in capsys.readouterr().err


def test_the_step_loads_nothing_heavy() -> None:
    code = "import sys, stillroom.step_transfer; print({'torch', 'transformers'} & set(sys.modules))"
    seen = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert seen.stdout.strip() == "set()"
