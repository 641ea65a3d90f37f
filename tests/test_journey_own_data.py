"""Whole journeys with a user's own files, other kinds of task, and a run that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import stillroom
from stillroom.cli import main
from stillroom.files import sha256_file

Options = Callable[..., list[str]]


def write_reviews(path: Path, *, pairs: bool = False) -> None:
    """Made-up reviews whose label is in one word, as CSV, JSONL or Parquet."""
    rows = []
    for number in range(60):
        for word, stars in (("great", 5), ("awful", 1), ("average", 3)):
            row: dict[str, object] = {"review": f"{word} place number {number}", "stars": stars}
            if pairs:
                row["title"] = f"visit {number}"
            rows.append(row)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        lines = [
            separator.join(rows[0]),
            *(separator.join(str(value) for value in row.values()) for row in rows),
        ]
        path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("family", "suffix", "pairs"),
    [("bert", ".csv", True), ("distilbert", ".tsv", False), ("roberta", ".jsonl", True),
     ("xlm-roberta", ".parquet", False)],
)  # fmt: skip
def test_a_users_own_data_and_teacher(
    tmp_path: Path,
    make_model_folder: Callable[..., Path],
    quick_options: Options,
    family: str,
    suffix: str,
    pairs: bool,
) -> None:
    data = tmp_path / f"reviews{suffix}"
    write_reviews(data, pairs=pairs)
    folder = make_model_folder(tmp_path / "my-bert", family=family)
    pair_options = ["--pair-column", "title"] if pairs else []
    arguments = ["run", "demo", "--data", str(data), "--text-column", "review", "--label-column", "stars",
                 *pair_options, "--teacher", str(folder), "--out", str(tmp_path / "mine"), "--no-baselines",
                 *quick_options()]  # fmt: skip
    assert main(arguments) == 0
    bundle = stillroom.load_bundle(tmp_path / "mine" / "bundle")
    assert bundle.task.labels == ("1", "3", "5")
    expects_kinds = family == "bert" and pairs
    assert ("token_type_ids" in bundle.task.inputs) == expects_kinds
    found = bundle("great place", "visit 7") if pairs else bundle("great place")
    assert sum(found.probabilities.values()) == pytest.approx(1)
    results = json.loads((tmp_path / "mine" / "report" / "results.json").read_text())
    assert [row["name"] for row in results["models"]] == ["teacher", "student"]


def test_files_that_are_not_run_here_are_said_to_be(
    tmp_path: Path,
    make_model_folder: Callable[..., Path],
    quick_options: Options,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, run = tmp_path / "reviews.csv", tmp_path / "mine"
    write_reviews(data)
    formats = ["onnx-int8-dynamic", "coreml-fp16", "executorch_coreml-fp16"]
    arguments = ["run", "demo", "--data", str(data), "--text-column", "review", "--label-column", "stars",
                 "--teacher", str(make_model_folder(tmp_path / "my-bert")), "--out", str(run),
                 "--no-baselines", *quick_options(f"export.artifacts={json.dumps(formats)}")]  # fmt: skip
    assert main(arguments) == 0
    results = json.loads((run / "report" / "results.json").read_text())
    rows = {row["name"]: row for row in results["artifacts"]}
    assert list(rows) == ["teacher-onnx-fp32", "onnx-int8-dynamic", "coreml-fp16"]
    assert rows["coreml-fp16"]["latency_ms"] is None and rows["coreml-fp16"]["flip_rate"] is not None
    for page in ("report.md", "report.html"):
        text = (run / "report" / page).read_text(encoding="utf-8")
        assert "interpreted on Linux, not run on Apple hardware; not timed" in text
        assert "lowered, not run; not timed" in text
    capsys.readouterr()
    assert main(["verify", str(run)]) == 0
    table = capsys.readouterr().out
    assert "lowered, not run" in table and "interpreted on Linux, not run on Apple hardware" in table
    assert main(["verify", str(run), "--json"]) == 0
    proofs = json.loads(capsys.readouterr().out)
    assert main(["verify", str(run), "--jobs", "2", "--json"]) == 0
    apart = json.loads(capsys.readouterr().out)  # each artifact in a process of its own: the same findings
    assert list(apart) == list(proofs) == ["teacher-onnx-fp32", *formats]
    for name, proof in proofs.items():
        assert [case["name"] for case in apart[name]["cases"]] == [case["name"] for case in proof["cases"]]
        assert apart[name].get("flip_rate") == proof.get("flip_rate")
    for name, why in (("coreml-fp16", "interpreted on Linux"), ("executorch_coreml-fp16", "lowered")):
        assert main(["bench", str(run / "artifacts" / name)]) == 2
        assert why in capsys.readouterr().err
    assert main(["bundle", str(run), "--artifact", formats[2], "--out", str(tmp_path / "bundle")]) == 2
    assert "lowered, not run" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["multi-label", "regression"])
def test_other_kinds_of_task_go_the_whole_way(
    tmp_path: Path,
    make_model_folder: Callable[..., Path],
    quick_options: Options,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    data = tmp_path / "reviews.csv"
    lines = ["review,what"]
    for number in range(160):
        food, room = ("great", "awful")[number % 2], ("lovely", "dirty")[number // 2 % 2]
        praised = [name for name, word in (("food", food), ("room", room)) if word in ("great", "lovely")]
        label = f'"{", ".join(praised)}"' if kind == "multi-label" else str(60 + 20 * len(praised))
        lines.append(f"{food} food {room} room number {number},{label}")
    data.write_text("\n".join(lines), encoding="utf-8")
    folder = make_model_folder(tmp_path / "my-bert")
    arguments = ["run", "demo", "--task", kind, "--data", str(data), "--text-column", "review",
                 "--label-column", "what", "--teacher", str(folder), "--out", str(tmp_path / "mine"),
                 *quick_options("teacher.epochs=15", "student.epochs=4", "teacher.learning_rate=2e-3",
                           "teacher.freeze_word_embeddings=false",
                           "data.test_fraction=0.2")]  # fmt: skip
    assert main(arguments) == 0
    results = json.loads((tmp_path / "mine" / "report" / "results.json").read_text())
    scores = {row["name"]: row["scores"] for row in (*results["models"], *results["artifacts"])}
    metric = results["task"]["metric"]
    assert metric == {"multi-label": "micro_f1", "regression": "pearson"}[kind]
    assert scores["teacher"][metric] > 0.9 and scores["student"][metric] > 0.9
    assert scores["onnx-fp32"][metric] == pytest.approx(scores["student"][metric], abs=1e-4)
    bundle = stillroom.load_bundle(tmp_path / "mine" / "bundle")
    best, worst = bundle("great food lovely room number 7"), bundle("awful food dirty room number 7")
    if kind == "multi-label":
        assert best.labels == ("food", "room") and best.label == "food, room" and worst.labels == ()
        assert best.score is None and all(value >= 0.5 for value in best.probabilities.values())
    else:
        assert best.score is not None and worst.score is not None and best.probabilities == {}
        assert worst.score + 10 < best.score < 115 and best.labels == ()
    assert main(["verify", str(tmp_path / "mine" / "bundle")]) == 0
    assert main(["predict", str(tmp_path / "mine" / "bundle"), "great food"]) == 0
    assert main(["report", str(tmp_path / "mine")]) == 0
    assert ("micro-F1, %" if kind == "multi-label" else "Pearson's r, %") in capsys.readouterr().out


def test_a_teacher_that_already_answers_is_used_as_it_is(
    tmp_path: Path, make_model_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "reviews.csv"
    write_reviews(data)
    folder = make_model_folder(tmp_path / "my-bert", head_labels=("5", "3", "1"))
    arguments = ["distill", "demo", "--data", str(data), "--text-column", "review", "--label-column", "stars",
                 "--teacher", str(folder), "--out", str(tmp_path / "mine"),
                 "--set", "student.epochs=1"]  # fmt: skip
    assert main(arguments) == 0
    assert "used as it is" in capsys.readouterr().err
    from safetensors.numpy import load_file

    given, kept = (
        load_file(folder / "model.safetensors"),
        load_file(tmp_path / "mine" / "teacher" / "model.safetensors"),
    )
    assert given.keys() == kept.keys() and all((given[name] == kept[name]).all() for name in given)
    task = json.loads((tmp_path / "mine" / "student" / "stillroom.json").read_text())["task"]
    assert task["labels"] == ["5", "3", "1"]


def test_killed_and_started_again_ends_with_the_same_student(
    tmp_path: Path, make_model_folder: Callable[..., Path]
) -> None:
    """kill -9 while the teacher trains and while the student trains; the weights end bit-identical."""
    data = tmp_path / "reviews.csv"
    write_reviews(data)
    folder = make_model_folder(tmp_path / "my-bert")

    def command(out: str) -> list[str]:
        return [sys.executable, "-m", "stillroom", "distill", "demo", "--data", str(data),
                "--text-column", "review", "--label-column", "stars", "--teacher", str(folder),
                "--out", str(tmp_path / out),
                "--set", "checkpoint_every_s=0",
                 "--set", "teacher.epochs=6", "--set", "student.epochs=6"]  # fmt: skip

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole"), check=True, capture_output=True, env=environment)
    for model in ("teacher", "student"):
        with subprocess.Popen(command("killed"), stderr=subprocess.DEVNULL, env=environment) as process:
            checkpoints = tmp_path / "killed" / ".stillroom" / "work" / model / "checkpoints"
            deadline = time.monotonic() + 120
            while not list(checkpoints.glob("step-*[1-9]")):
                assert process.poll() is None, "ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert not (tmp_path / "killed" / model).exists()
    done = subprocess.run(command("killed"), check=True, capture_output=True, text=True, env=environment)
    assert "going on from step" in done.stderr
    for model in ("teacher", "student"):
        whole, resumed = (tmp_path / out / model / "model.safetensors" for out in ("whole", "killed"))
        assert sha256_file(whole) == sha256_file(resumed)
