"""The table of kinds: targets, strata and fixed answers; and labels as files write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import UsageError
from stillroom.kinds import KINDS, SCORE_WORDS, all_scores, fixed_answer, in_words, kind_of, label_set
from stillroom.splits import make_splits
from stillroom.text import Columns, Row, read_rows

names = st.lists(st.sampled_from(["ash", "birch", "cedar", "fir"]), unique=True).map(
    lambda chosen: "\n".join(sorted(chosen))
)


def test_every_score_has_words() -> None:
    for kind in KINDS.values():
        assert set(kind.scores) <= set(SCORE_WORDS)
        assert SCORE_WORDS[kind.metric][1], "retention is a share of a share"
    assert in_words({"pearson": 0.5, "rmse": 1.25}) == "Pearson's r 50.00 %, RMSE 1.25"
    with pytest.raises(UsageError, match="'poetry': expected one of text-classification, multi-label"):
        kind_of("poetry")


@given(st.lists(names, min_size=1))
def test_multilabel_targets_say_the_labels_back(row_labels: list[str]) -> None:
    labels = ("ash", "birch", "cedar", "fir")
    wanted = KINDS["multi-label"].targets(row_labels, labels)
    assert wanted.dtype == np.float32 and wanted.shape == (len(row_labels), 4)
    back = ["\n".join(label for label, one in zip(labels, row, strict=True) if one) for row in wanted]
    assert back == row_labels
    assert all_scores("multi-label", 2 * wanted - 1, wanted)["exact_match"] == 1.0


def test_rows_are_dealt_out_by_their_rarest_label_and_by_fifths() -> None:
    assert KINDS["multi-label"].strata(["a", "a\nb", "a", "", "b\na\nc"]) == ["a", "b", "a", "", "c"]
    strata = KINDS["regression"].strata([str(value) for value in range(100)])
    assert [strata.count(name) for name in "01234"] == [20] * 5


def test_fixed_answers() -> None:
    assert fixed_answer("regression", ["1.0", "2.0"], ("score",))[0] == "1.5"
    answer, logits = fixed_answer("multi-label", ["a\nb", "b", ""], ("a", "b"))
    assert answer == "b" and logits.tolist() == [[-1.0, 1.0]]


def rows(labels: list[str]) -> list[Row]:
    return [Row(f"text {index}", None, label) for index, label in enumerate(labels)]


def split(made: list[Row], kind: str, **changes: int) -> object:
    plan = {"min_confidence": 0.0, "validation_fraction": 0.2, "test_fraction": 0.2, "max_train_rows": 0,
            "seed": 0, **changes}  # fmt: skip
    return make_splits(made, None, None, kind=kind, **plan)  # type: ignore[arg-type]


@given(st.lists(names, min_size=30, max_size=60), st.integers(0, 20))
def test_multilabel_splits_keep_every_row_once(row_labels: list[str], seed: int) -> None:
    made = rows(row_labels)
    try:
        found = split(made, "multi-label", seed=seed)
    except UsageError as error:
        assert "too few" in str(error) or "no training row has a label" in str(error)
        return
    parts = [*found.train, *found.validation, *found.test]
    assert sorted(row.text for row in parts) == sorted(row.text for row in made)
    assert set(found.labels) == {name for label in row_labels for name in label_set(label)}


def test_regression_splits_cover_the_whole_range() -> None:
    found = split(rows([str(value / 7) for value in range(100)]), "regression", max_train_rows=30)
    assert found.labels == ("score",) and len(found.train) == 30
    for part in (found.train, found.validation, found.test):
        values = [float(row.label) for row in part]
        assert min(values) < 3 and max(values) > 11
    assert found.counts["fixed_answer_score"] == 0.0
    with pytest.raises(UsageError, match=r"every training row has the score 1\.0"):
        split(rows(["1.0"] * 30), "regression")


def test_labels_as_files_write_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    written = ["b, a", ["c", "a", "c"], "", [], 7]
    path.write_text("\n".join(json.dumps({"text": "t", "label": label}) for label in written), "utf-8")
    found = [row.label for row in read_rows(path, Columns("text", "label"), kind="multi-label")]
    assert found == ["a\nb", "a\nc", "", "", "7"]
    path.write_text('{"text": "t", "label": "3.50"}\n{"text": "t", "label": -2}', "utf-8")
    assert [row.label for row in read_rows(path, Columns("text", "label"), kind="regression")] == [
        "3.5",
        "-2.0",
    ]
    assert [row.label for row in read_rows(path, Columns("text", ""))] == ["", ""]


@pytest.mark.parametrize("label", ['"high"', "null", "true", "1e300", '"nan"', "[1]"])
def test_what_is_no_score(tmp_path: Path, label: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"text": "t", "label": {label}}}', "utf-8")
    with pytest.raises(UsageError, match=r"rows\.jsonl:1: column 'label': expected a number to predict"):
        read_rows(tmp_path / "rows.jsonl", Columns("text", "label"), kind="regression")


@pytest.mark.parametrize("label", ["null", '["a", null]', '{"a": 1}'])
def test_what_is_no_set_of_labels(tmp_path: Path, label: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"text": "t", "label": {label}}}', "utf-8")
    with pytest.raises(UsageError, match=r"rows\.jsonl:1: column 'label': expected a label"):
        read_rows(tmp_path / "rows.jsonl", Columns("text", "label"), kind="multi-label")
