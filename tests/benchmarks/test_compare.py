"""Any runs side by side: figures worked out by hand, and what is not averaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillroom.benchmarks.compare import compare, run_figures, score_table, size_table, tasks_of
from stillroom.benchmarks.results import validate_results
from stillroom.cli import main
from stillroom.files import write_json

Invent = Callable[..., dict[str, Any]]

REVIEWS = {"teacher": 0.90, "student": 0.81, "onnx-int8-dynamic": 0.72}
LIKENESS = {"teacher": 0.80, "student": 0.60, "onnx-int8-dynamic": 0.40}
PASSES_MS = {"teacher": 8000.0, "student": 4000.0, "onnx-int8-dynamic": 1000.0}


@pytest.fixture
def two_tasks(invent_run: Invent) -> dict[str, dict[str, Any]]:
    """One run of classes, one of numbers."""
    runs = {
        "runs/reviews": invent_run(REVIEWS, "reviews", passes_ms=PASSES_MS),
        "runs/likeness": invent_run(LIKENESS, "likeness", "regression", passes_ms=PASSES_MS, rows=1500),
    }
    for results in runs.values():
        validate_results(results)
    return runs


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def test_each_task_is_a_column_and_weighs_the_same(two_tasks: dict[str, dict[str, Any]]) -> None:
    table = score_table(run_figures(two_tasks)["scores"])
    assert table.header == (
        "name",
        "reviews, accuracy, %",
        "likeness, Pearson's r, %",
        "average, %",
        "retained, %",
    )
    assert table.rows == (
        ("teacher", "90.00", "80.00", "85.00", "100.0"),
        ("student", "81.00", "60.00", "70.50", "82.5"),  # (81/90 + 60/80) / 2
        ("onnx-int8-dynamic", "72.00", "40.00", "56.00", "65.0"),  # (72/90 + 40/80) / 2
    )


def test_size_pass_and_speed_of_each_task(two_tasks: dict[str, dict[str, Any]]) -> None:
    reviews, likeness = run_figures(two_tasks)["size_and_speed"]
    assert (reviews["task"], reviews["runs"], reviews["evaluation_rows"]) == (
        "reviews",
        ["runs/reviews"],
        1000,
    )
    assert (likeness["task"], likeness["evaluation_rows"]) == ("likeness", 1500)
    assert size_table(reviews).header == (
        "name",
        "parameters, M",
        "size, MB",
        "evaluation pass, s",
        "speed, × teacher",
    )
    assert size_table(reviews).rows == (
        ("teacher", "22.7", "90.9", "8.00", "1.0"),
        ("student", "17.3", "69.4", "4.00", "2.0"),
        ("onnx-int8-dynamic", "17.3", "17.5", "1.00", "8.0"),
    )


def test_seeds_make_one_column_with_their_spread(invent_run: Invent) -> None:
    runs = {
        f"runs/seed-{seed}": invent_run(
            {"teacher": 0.8, "student": score}, seed=seed, passes_ms={"teacher": 6000.0, "student": ms}
        )
        for seed, (score, ms) in enumerate([(0.70, 2000.0), (0.74, 3000.0), (0.78, 4000.0)])
    }
    figures = run_figures(runs)
    (column,) = figures["scores"]["columns"]
    assert column == {"task": "demo", "metric": "accuracy", "runs": list(runs)}
    student = by_name(figures["scores"]["rows"])["student"]
    assert student["scores"] == [{"mean": pytest.approx(0.74), "deviation": pytest.approx(0.04), "n": 3}]
    assert student["average"] == pytest.approx(0.74)
    assert student["retained"] == pytest.approx(0.925)
    assert score_table(figures["scores"]).rows[1] == ("student", "74.00 ± 4.00 (3)", "74.00", "92.5")
    (group,) = figures["size_and_speed"]
    # 6000 over 2000, 3000 and 4000: the mean of 3, 2 and 1.5
    assert size_table(group).rows[1] == ("student", "17.3", "69.4", "3.00 ± 1.00 (3)", "2.2 ± 0.8 (3)")
    assert figures["notes"] == []
    text, _ = compare(runs)
    assert "p50 at 128, ms" in text and "flips, %" in text  # the table of the seeds


def test_a_task_of_many_seeds_weighs_no_more_than_one_of_one(invent_run: Invent) -> None:
    runs = {
        f"runs/{seed}": invent_run({"teacher": 0.9, "student": score}, seed=seed)
        for seed, score in enumerate([0.6, 0.7, 0.8])
    }
    runs["runs/other"] = invent_run({"teacher": 0.9, "student": 0.1}, "other", "multi-label")
    table = score_table(run_figures(runs)["scores"])
    assert table.header[1:3] == ("demo, accuracy, %", "other, micro-F1, %")
    assert table.rows[1] == ("student", "70.00 ± 10.00 (3)", "10.00", "40.00", "44.4")
    assert "p50 at" not in compare(runs)[0]


def test_a_row_that_a_task_lacks_has_no_average(two_tasks: dict[str, dict[str, Any]]) -> None:
    likeness = two_tasks["runs/likeness"]
    likeness["artifacts"] = []
    figures = run_figures(two_tasks)
    assert score_table(figures["scores"]).rows[2] == ("onnx-int8-dynamic", "72.00", "–", "–", "–")
    assert score_table(figures["scores"]).rows[1][3:] == ("70.50", "82.5")
    assert figures["notes"] == ["Not in every task, so without average and retained: onnx-int8-dynamic."]
    assert figures["notes"][0] in compare(two_tasks)[0]


def test_a_row_that_one_seed_lacks_is_the_mean_of_the_others(invent_run: Invent) -> None:
    runs = {
        "a": invent_run({"teacher": 0.8, "student-plain": 0.6, "student": 0.7}, passes_ms=PASSES_MS),
        "b": invent_run({"teacher": 0.8, "student": 0.9}, seed=1, passes_ms=PASSES_MS),
    }
    figures = run_figures(runs)
    assert score_table(figures["scores"]).rows[1] == ("student-plain", "60.00 (1)", "60.00", "75.0")
    (group,) = figures["size_and_speed"]
    assert size_table(group).rows[1][3:] == ("–", "–")  # no pass of it was timed


def test_a_pass_that_was_not_timed_is_a_dash(invent_run: Invent) -> None:
    runs = {"a": invent_run(REVIEWS, "one", rows=0), "b": invent_run(REVIEWS, "two", rows=0)}
    for group in run_figures(runs)["size_and_speed"]:
        assert [row[3:] for row in size_table(group).rows] == [("–", "–")] * 3
    assert compare(runs)[0].count("No evaluation pass was timed.") == 2


def test_a_file_without_the_teachers_pass_has_no_speed(invent_run: Invent) -> None:
    (group,) = run_figures({"a": invent_run(REVIEWS, passes_ms={"student": 500.0})})["size_and_speed"]
    assert size_table(group).rows[1][3:] == ("0.50", "–")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda results: results["machine"].update(cpu="another"), "cpu"),
        (lambda results: results["machine"].update(cores=99), "cores"),
        (lambda results: results["machine"]["versions"].update(torch="1.0"), "versions"),
        (lambda results: results["workload"].update(threads=9), "threads"),
        (lambda results: results["workload"].update(evaluation_rows=9), "number of rows"),
    ],
)
def test_runs_timed_differently_are_shown_apart(
    invent_run: Invent, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    runs = {f"runs/{seed}": invent_run(REVIEWS, seed=seed, passes_ms=PASSES_MS) for seed in range(3)}
    change(runs["runs/2"])
    figures = run_figures(runs)
    assert [group["runs"] for group in figures["size_and_speed"]] == [["runs/0", "runs/1"], ["runs/2"]]
    assert figures["notes"] == [f"demo: timed with different {named}, so its times are not averaged."]
    assert figures["scores"]["rows"][0]["scores"][0]["n"] == 3  # scores are of no machine
    assert "demo (runs/0, runs/1)" in compare(runs)[0] and "demo (runs/2)" in compare(runs)[0]


def test_runs_that_differ_in_more_than_the_seed_are_said_to(invent_run: Invent) -> None:
    runs = {"a": invent_run(REVIEWS, seed=0), "b": invent_run(REVIEWS, seed=1)}
    runs["b"]["recipe"]["student"]["epochs"] = 5
    runs["b"]["recipe"]["max_length"] = 64
    assert run_figures(runs)["notes"] == [
        "demo: its runs differ in more than the seed: student.epochs, max_length."
    ]


def test_other_tasks_under_the_same_name_are_other_columns(invent_run: Invent) -> None:
    runs = {"a": invent_run(REVIEWS), "b": invent_run(LIKENESS, kind="regression"), "c": invent_run(REVIEWS)}
    assert {task: list(found) for task, found in tasks_of(runs).items()} == {
        "demo": ["a", "c"],
        "demo (2)": ["b"],
    }


def test_runs_timed_at_different_lengths_are_still_compared(invent_run: Invent) -> None:
    runs = {"a": invent_run(REVIEWS), "b": invent_run(REVIEWS, seed=1)}
    runs["b"]["workload"]["lengths"] = [16, 64]
    for row in [*runs["b"]["models"], *runs["b"]["artifacts"]]:
        row["by_length"].pop()
        row.update(row["by_length"][-1])
    text, _ = compare(runs)
    assert "demo, accuracy, %" in text and r"different longest lengths \[64, 128\]" in text
    assert "p50 at" not in text


def test_names_are_escaped_and_keep_the_columns(two_tasks: dict[str, dict[str, Any]]) -> None:
    evil = "a|b `c` <script>"
    runs = {f"{evil}{run}": results for run, results in two_tasks.items()}
    for results in runs.values():
        results["recipe"]["name"] = evil
        results["machine"]["cpu"] = evil
        results["artifacts"][0]["name"] = evil
    text, _ = compare(runs)
    assert "<script" not in text
    assert text.count("a\\|b \\`c\\` &lt;script&gt;") >= 8
    tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.fixture
def folders(two_tasks: dict[str, dict[str, Any]], tmp_path: Path) -> list[str]:
    for run, results in two_tasks.items():
        write_json(tmp_path / run / "report" / "results.json", results)
    return [str(tmp_path / run) for run in two_tasks]


def test_the_verb_prints_both_tables(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *folders]) == 0
    said = capsys.readouterr().out
    assert "| student | 81.00 | 60.00 | 70.50 | 82.5 |" in said
    assert said.count("| student | 17.3 | 69.4 | 4.00 | 2.0 |") == 2
    assert main(["report", folders[0]]) == 0
    said = capsys.readouterr().out
    assert "Size and a full evaluation pass" in said and "| student | 17.3 | 69.4 | 4.00 | 2.0 |" in said
    assert "| 81.00 |" in said and "of the teacher's accuracy" in said


def test_the_verb_gives_its_figures_as_numbers(
    folders: list[str], two_tasks: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *folders, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["runs"] == list(two_tasks.values())
    assert [column["runs"] for column in said["scores"]["columns"]] == [[folder] for folder in folders]
    student = by_name(said["scores"]["rows"])["student"]
    assert (student["average"], student["retained"]) == (pytest.approx(0.705), pytest.approx(0.825))
    assert [found["mean"] for found in student["scores"]] == [0.81, 0.60]
    timed = by_name(said["size_and_speed"][1]["rows"])["onnx-int8-dynamic"]
    assert (timed["parameters"], timed["size_bytes"]) == (17_300_000, 17_500_000)
    assert timed["evaluation_pass_ms"] == {"mean": 1000.0, "deviation": None, "n": 1}
    assert timed["speed"] == {"mean": 8.0, "deviation": None, "n": 1}
    assert main(["report", folders[0], "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert by_name(said["scores"]["rows"])["student"]["average"] == pytest.approx(0.81)


def test_a_run_that_cannot_be_read_is_named(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*runs: str) -> str:
        assert main(["report", *runs]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        return captured.err

    assert "nowhere has no report/results.json" in refused(folders[0], str(tmp_path / "nowhere"))
    assert "given twice" in refused(*folders, str(Path(folders[0]) / ".." / "reviews"))
    path = Path(folders[1]) / "report" / "results.json"
    broken = json.loads(path.read_text())
    del broken["workload"]["evaluation_rows"]
    write_json(path, broken)
    said = refused(*folders)
    assert str(path) in said and "evaluation_rows" in said
