"""Splits: nothing leaks, nothing is lost, every label is everywhere, the same seed gives the same rows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stillroom.errors import UsageError
from stillroom.splits import Splits, fold, fold_key, load_splits, make_splits, save_splits
from stillroom.text import Row

PLAN: dict[str, Any] = {
    "min_confidence": 0.0,
    "validation_fraction": 0.1,
    "test_fraction": 0.2,
    "max_train_rows": 0,
    "seed": 0,
}


def row(text: str, label: str = "a", confidence: float = 1.0, pair: str | None = None) -> Row:
    return Row(text, pair, label, confidence, f"rows.csv:{text}")


def rows_of(**sizes: int) -> list[Row]:
    """So many rows of each label; texts tell label and number."""
    return [row(f"{label} {number}", label) for label, size in sizes.items() for number in range(size)]


def split(rows: list[Row], validation: Any = None, test: Any = None, **changes: Any) -> Splits:
    return make_splits(rows, validation, test, **{**PLAN, **changes})


def message(rows: list[Row], validation: Any = None, test: Any = None, **changes: Any) -> str:
    with pytest.raises(UsageError) as caught:
        split(rows, validation, test, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@st.composite
def some_rows(draw: st.DrawFn) -> list[Row]:
    """Two to four labels, three distinct rows each at least, then duplicates and unsure rows among them."""
    labels = draw(st.lists(st.text("abc0", min_size=1, max_size=3), min_size=2, max_size=4, unique=True))
    rows = [row(f"{i} {n}", label) for i, label in enumerate(labels) for n in range(draw(st.integers(3, 12)))]
    again = draw(st.lists(st.sampled_from(rows), max_size=6))
    rows += [row(one.text.upper() + " @someone ", draw(st.sampled_from(labels))) for one in again]
    rows += [row(one.text + " @someone", one.label, 0.1) for one in again]
    return draw(st.permutations(rows))


def deduplicated(rows: list[Row], min_confidence: float) -> set[Row]:
    kept: dict[Any, Row] = {}
    for one in rows:
        if one.confidence >= min_confidence:
            kept.setdefault(fold_key(one), one)
    return set(kept.values())


def splittable(rows: set[Row]) -> bool:
    sizes = Counter(one.label for one in rows)
    return len(sizes) > 1 and min(sizes.values()) > 2


@settings(deadline=None, max_examples=60)
@given(rows=some_rows(), seed=st.integers(0, 5), test=st.floats(0.01, 0.6), validation=st.floats(0.01, 0.39))
def test_nothing_leaks_and_nothing_is_lost(
    rows: list[Row], seed: int, test: float, validation: float
) -> None:
    kept = deduplicated(rows, 0.5)
    assume(splittable(kept))  # the duplicates that come first may have taken a class its rows
    labels = {one.label for one in kept}
    plan = {"seed": seed, "test_fraction": test, "validation_fraction": validation, "min_confidence": 0.5}
    made = split(rows, **plan)
    parts = (made.train, made.validation, made.test)
    keys = [fold_key(one) for part in parts for one in part]
    assert len(keys) == len(set(keys))
    assert {one for part in parts for one in part} == kept
    assert all({one.label for one in part} == labels for part in parts)
    counts = made.counts
    assert (
        counts["rows_read"]
        == len(rows)
        == (len(keys) + counts["dropped_low_confidence"] + counts["dropped_duplicates"])
    )
    assert made == split(rows, **plan)
    for counted in counts["labels"].values():
        size = sum(counted.values())
        assert abs(counted["test"] - size * test) <= 1 or counted["train"] == 1 or counted["test"] == 1


own_rows = st.lists(
    st.builds(
        lambda label, n: row(f"{label.upper()}  {n}", label), st.sampled_from("ab"), st.integers(0, 25)
    ),
    min_size=1,
    max_size=7,
)


@settings(deadline=None, max_examples=60)
@given(rows=st.permutations(rows_of(a=20, b=20)), own_test=own_rows, own_validation=st.none() | own_rows)
def test_own_files_do_not_leak(
    rows: list[Row], own_test: list[Row], own_validation: list[Row] | None
) -> None:
    test_keys = {fold_key(one) for one in own_test}
    assume(own_validation is None or not {fold_key(one) for one in own_validation} <= test_keys)
    made = split(rows, own_validation, own_test)
    test = {fold_key(one) for one in made.test}
    validation = {fold_key(one) for one in made.validation}
    assert set(made.test) == deduplicated(own_test, 0.0)
    assert not test & validation
    assert not (test | validation) & {fold_key(one) for one in made.train}
    counts = made.counts
    assert counts["rows_read"] == sum(
        counts[key]
        for key in ("dropped_duplicates", "dropped_overlaps", "train_rows", "validation_rows", "test_rows")
    )


@settings(deadline=None, max_examples=60)
@given(rows=some_rows(), cap=st.integers(4, 40))
def test_the_cap_takes_only_from_train(rows: list[Row], cap: int) -> None:
    assume(splittable(deduplicated(rows, 0.0)))
    whole = split(rows)
    capped = split(rows, max_train_rows=cap)
    assert (capped.validation, capped.test) == (whole.validation, whole.test)
    assert len(capped.train) == min(cap, len(whole.train))
    assert capped.counts["train_rows_before_cap"] == len(whole.train)
    assert {one.label for one in capped.train} == set(whole.labels)
    assert [one for one in whole.train if one in set(capped.train)] == list(capped.train)
    for label in whole.labels:
        size = whole.counts["labels"][label]["train"]
        share = len(capped.train) * size / len(whole.train)
        assert capped.counts["labels"][label]["train"] <= max(1, share + 1)


def test_fractions_and_proportions() -> None:
    made = split(rows_of(a=100, b=50))
    assert made.counts["labels"] == {
        "a": {"train": 70, "validation": 10, "test": 20},
        "b": {"train": 35, "validation": 5, "test": 10},
    }
    assert (made.counts["fixed_answer"], made.counts["fixed_answer_score"]) == ("a", 20 / 30)
    capped = split(rows_of(a=100, b=50), max_train_rows=30)
    assert Counter(one.label for one in capped.train) == {"a": 20, "b": 10}


def test_seeds_differ_and_order_is_mixed() -> None:
    first, second = split(rows_of(a=50, b=50)), split(rows_of(a=50, b=50), seed=1)
    assert set(first.test) != set(second.test)
    assert len({one.label for one in first.test[:10]}) == 2  # a few rows from the start are a fair sample


def test_the_test_rows_do_not_depend_on_the_validation_fraction() -> None:
    rows = rows_of(a=50, b=50)
    assert split(rows).test == split(rows, validation_fraction=0.4).test


def test_the_same_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_splits as t;"
        "print([one.text for one in t.split(t.rows_of(c=20, a=20, b=20)).test])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert seen == {f"{[one.text for one in split(rows_of(c=20, a=20, b=20)).test]}\n"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["10", "9", "b"], ("10", "9", "b")),
        (["neutral", "Bad", "bad"], ("Bad", "bad", "neutral")),
        (["9" * 5000, "1"], ("1", "9" * 5000)),
    ],
)
def test_label_order(labels: list[str], expected: tuple[str, ...]) -> None:
    assert (
        split([row(f"{i} {n}", label) for i, label in enumerate(labels) for n in range(3)]).labels == expected
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Straße  Good\n", "STRASSE good", True),
        ("see http://t.co/aBc now", "see https://t.co/XYZ now", True),
        ("see www.a.example", "See HTTP://b.example", True),
        ("RT @anna: hi", "rt @ben_2: hi", True),
        ("hi\u00a0there", "hi there", True),
        ("see http://t.co/aBc now", "see now", False),
        ("mail joe@a.example", "mail joe@b.example", False),
        ("good", "goods", False),
    ],
)
def test_fold(one: str, other: str, same: bool) -> None:
    assert (fold(one) == fold(other)) is same


def test_duplicates_are_counted_and_the_first_is_kept() -> None:
    rows = [*rows_of(a=5, b=5), row("A  0", "a"), row("a 0 ", "b"), row("b 0", "a", 0.2)]
    made = split(rows, min_confidence=0.5)
    assert made.counts["dropped_duplicates"] == 2
    assert made.counts["conflicting_duplicates"] == 1
    assert made.counts["dropped_low_confidence"] == 1
    assert set(rows[:10]) == {*made.train, *made.validation, *made.test}


def test_a_row_just_sure_enough_is_kept() -> None:
    rows = [*rows_of(a=3, b=3), row("x", "a", 0.65), row("y", "a", 0.64)]
    assert split(rows, min_confidence=0.65).counts["dropped_low_confidence"] == 1


def test_the_majority_is_that_of_the_training_rows() -> None:
    counts = split(rows_of(a=10, b=5), None, [row("x", "a"), row("y", "b"), row("z", "b")]).counts
    assert (counts["fixed_answer"], counts["fixed_answer_score"]) == ("a", 1 / 3)


def test_pairs_are_one_example() -> None:
    rows = [row(f"t{n}", label, pair=p) for n in range(3) for label, p in (("a", "yes"), ("b", "no"))]
    assert split([*rows, row("T0", "a", pair="YES")]).counts["dropped_duplicates"] == 1


def test_own_files_are_used_whole() -> None:
    rows = rows_of(a=10, b=10)
    test, validation = rows[:2] + rows[10:12], rows[1:5] + rows[14:16]
    made = split(rows, [*validation, row("new", "b")], [*test, row("other", "a")])
    assert made.test == (*test, row("other", "a"))
    assert made.validation == (*validation[1:], row("new", "b"))
    assert set(made.train) == set(rows) - set(test) - set(validation)
    assert made.warnings == (
        "validation rows dropped because they are also test rows: 1",
        "training rows dropped because they are also test rows: 4",
        "training rows dropped because they are also validation rows: 5",
    )
    assert made.counts["dropped_overlaps"] == 10


def test_own_test_file_and_drawn_validation() -> None:
    rows = rows_of(a=10, b=10)
    made = split(rows, None, rows[:1])
    assert made.test == (rows[0],)
    assert {one.label for one in made.validation} == {"a", "b"}
    assert made.warnings == (
        "no test row is labelled 'b'",
        "training rows dropped because they are also test rows: 1",
    )


def test_own_files_are_filtered_and_deduplicated() -> None:
    made = split(rows_of(a=3, b=3), None, [row("x"), row("X "), row("y", confidence=0.1)], min_confidence=0.5)
    assert made.test == (row("x"),)
    assert made.counts["dropped_duplicates"] == made.counts["dropped_low_confidence"] == 1


def test_mistakes() -> None:
    fine = rows_of(a=5, b=5)
    assert message(rows_of(a=5)) == "only one class ('a') in the training rows, at least two are needed"
    assert message(rows_of(a=5, b=2)) == (
        "class 'b' has too few rows: 2 usable, at least 3 needed, one in each of train, validation, test"
    )
    assert message(rows_of(a=5, b=1), None, rows_of(a=1)).startswith(
        "class 'b' has too few rows: 1 usable, at least 2"
    )
    assert message(fine, rows_of(b=5), rows_of(a=5)).startswith(
        "class 'a' has too few rows: 0 usable, at least 1"
    )
    assert message(fine, None, [row("x", "c")]) == (
        "rows.csv:x: label 'c' is not among the training rows': 'a', 'b'"
    )
    assert message(fine, [row("x", "A")]).startswith("rows.csv:x: label 'A' is not among")
    assert message(fine, fine[:1], fine[:2]) == (
        "every validation row is also a test row: the two files must differ"
    )
    assert message(fine, min_confidence=2.0) == (
        "no training rows: 10 were read, none has confidence 2.0 or more"
    )
    assert message(fine, None, []) == "no test rows: 0 were read, none has confidence 0.0 or more"
    assert (
        message(fine, max_train_rows=1) == "max_train_rows is 1, at least one for each of 2 classes is needed"
    )
    assert message(fine, max_train_rows=-1) == "max_train_rows is -1, expected 0 (all rows) or more"


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
@pytest.mark.parametrize("name", ["validation_fraction", "test_fraction"])
def test_fractions_out_of_range(name: str, fraction: float) -> None:
    assert message(rows_of(a=5, b=5), **{name: fraction}) == (
        f"{name} is {fraction}, expected a number between 0 and 1"
    )


def test_fractions_that_leave_nothing() -> None:
    text = message(rows_of(a=5, b=5), validation_fraction=0.5, test_fraction=0.5)
    assert text.startswith("validation_fraction 0.5 and test_fraction 0.5 leave nothing to train on")


anything = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(deadline=None, max_examples=30)
@given(
    texts=st.lists(anything, min_size=1, max_size=4), confidence=st.floats(0, 1), pair=st.none() | anything
)
def test_saved_splits_come_back_exactly(texts: list[str], confidence: float, pair: str | None) -> None:
    rows = tuple(row(text, text, confidence, pair) for text in texts)
    made = Splits(rows, (), rows[:1], ("a", "b"), {"train_rows": 1, "fixed_answer_score": 1 / 3}, ("some",))
    with tempfile.TemporaryDirectory() as folder:
        save_splits(made, Path(folder))
        assert load_splits(Path(folder)) == made


def test_made_splits_come_back_exactly(tmp_path: Path) -> None:
    made = split(rows_of(a=5, b=5), None, rows_of(a=1))
    save_splits(made, tmp_path / "data")
    assert load_splits(tmp_path / "data") == made


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("test.jsonl", "", "test.jsonl was changed after it was written"),
        ("train.jsonl", None, "train.jsonl; make the splits again"),
        ("splits.json", None, "no such file"),
        ("splits.json", "{", "is not valid JSON"),
        ("splits.json", "[]", "expected schema_version 1"),
        ("splits.json", '{"schema_version": 2}', "expected schema_version 1"),
        ("splits.json", '{"schema_version": 1}', "is not a description of splits"),
    ],
)
def test_damaged_splits(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    save_splits(split(rows_of(a=5, b=5)), tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError) as caught:
        load_splits(tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert words in str(caught.value)


def test_saved_rows_are_json_lines(tmp_path: Path) -> None:
    save_splits(split(rows_of(a=5, b=5)), tmp_path)
    lines = (tmp_path / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"text", "pair", "label", "confidence", "where"}] * 2
