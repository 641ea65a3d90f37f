"""stillroom search on a tiny run: one winner, nothing measured twice, and what it says if none holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillroom
from stillroom import step_search, step_search_try
from stillroom.cli import main
from stillroom.step_search import overlap

QUICK = ("measure.rounds=1", "measure.samples=3", "measure.warmup=1", "measure.lengths=[8]",
         "measure.sweeps=false",
         "teacher.epochs=3", "student.epochs=3", "teacher.learning_rate=0.01",
         "student.learning_rate=0.01",
         "teacher.freeze_word_embeddings=false",
         "student.freeze_word_embeddings=false",
         'export.artifacts=["torchscript-fp32"]',
         "export.bundle=torchscript-fp32", "max_length=24")  # fmt: skip


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, make_model_folder: Callable[..., Path], review_csv: Any
) -> Path:
    folder = tmp_path_factory.mktemp("search")
    data, teacher = review_csv(folder / "reviews.csv"), make_model_folder(folder / "teacher")
    words = [word for setting in QUICK for word in ("--set", setting)]
    arguments = ["run", "demo", "--data", str(data), "--teacher", str(teacher), "--no-baselines"]
    columns = ["--text-column", "review", "--label-column", "stars"]
    assert main([*arguments, *columns, "--out", str(folder / "run"), *words]) == 0
    return folder / "run"


def search(run: Path, *options: str) -> int:
    return main(["search", str(run), "--targets", "torchscript", *options])


def facts_of(run: Path) -> Any:
    return json.loads((run / "search" / "search.json").read_text(encoding="utf-8"))


def test_one_winner_and_a_rerun_measures_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (step_search, step_search_try):
        monkeypatch.setattr(module, "ROUNDS", 1)
    asked = [
        "--min-retention",
        "0.2",
        "--max-p90-ms",
        "10000",
        "--max-rss-mb",
        "2000",
        "--max-size-mb",
        "0.12",
    ]

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(step_search_try, "_time", killed)
        assert search(run, *asked) == 130
    made = {
        path: path.stat().st_mtime_ns for path in (run / ".stillroom" / "search" / "artifacts").glob("*/*")
    }
    assert made and not (run / "search").exists()
    assert search(run, *asked) == 0  # it goes on with the files that were made
    text = capsys.readouterr().out
    facts = facts_of(run)
    rows = {row["name"]: row for row in facts["tried"]}
    (winner,) = (name for name, row in rows.items() if row["verdict"] == "winner")
    assert facts["winner"]["name"] == winner and rows[winner]["holds"]
    assert {len(row["p90_rounds_ms"]) for row in rows.values() if row["holds"]} == {1, 2}
    assert len(rows[winner]["p90_rounds_ms"]) == 2  # the best is timed twice before it is confirmed
    assert f"winner: {winner}." in text and text.count("\n| ") == len(rows) + 1
    assert {"torchscript-int8-dynamic", "torchscript-int8-dynamic+vocabulary-trim"} <= set(rows)
    smallest = min(row["size_bytes"] for row in rows.values() if row["holds"])
    assert rows[winner]["size_bytes"] <= 1.02 * smallest
    assert 0 < facts["confirmed"]["test_retention_interval"][0] <= facts["confirmed"]["test_retention"]
    bundle = stillroom.load_bundle(run / "search" / "winner")
    assert bundle.artifact.size_bytes == rows[winner]["size_bytes"] and bundle("great food").label
    assert (run / "search" / "pareto.svg").read_text("utf-8").startswith("<svg ")
    assert not (run / ".stillroom" / "search" / "artifacts").exists()  # one winner, no heap of files

    def not_again(*_: Any) -> None:
        raise AssertionError("measured before")

    monkeypatch.setattr(step_search_try, "_time", not_again)
    monkeypatch.setattr(step_search_try, "_compare", not_again)
    assert search(run, *asked) == 0
    again = facts_of(run)
    assert again["winner"] == facts["winner"] and again["tried"] == facts["tried"]


def test_if_nothing_holds_it_says_what_and_what_came_nearest(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(run, "--max-size-mb", "0.001") == 1
    said = capsys.readouterr().err
    assert (
        "nothing met --max-size-mb 0.001: the best was 0.0" in said
        and "nearest miss: torchscript-int8" in said
    )
    facts = facts_of(run)
    assert facts["winner"] is None and facts["nobody"] in said.replace("\n", " ")
    assert not (run / "search" / "winner").exists()  # that of another search
    assert all(
        row["retention"] is None for row in facts["tried"] if not row["made"]
    )  # the cheapest check first


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--targets", "coreml"], "--targets coreml: expected some of onnx"),
        (["--max-size-mb", "0"], "--max-size-mb 0: expected a number above 0"),
        (["--max-p90-ms", "nan"], "--max-p90-ms nan: expected a number above 0"),
        (["--minutes", "-1"], "--minutes -1: expected a number above 0"),
        (["--layers", "0"], "--layers 0: expected 1 or more"),
    ],
)
def test_bad_options(run: Path, options: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(run, *options) == 2
    assert why in capsys.readouterr().err


def test_no_run_and_an_unfinished_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(tmp_path / "nowhere") == 2
    assert "is not a run folder: stillroom run first" in capsys.readouterr().err
    (tmp_path / ".stillroom").mkdir()
    assert search(tmp_path) == 2
    assert "has no report/results.json: stillroom run first" in capsys.readouterr().err


def test_two_measurements_agree_where_their_ranges_meet() -> None:
    assert overlap((2.0, 2.2), (2.1, 2.5)) and overlap((2.1, 2.5), (2.0, 2.2)) and overlap((2.0,), (2.0,))
    assert not overlap((2.0, 2.2), (2.3, 2.5))
