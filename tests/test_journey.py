"""Whole journeys: the demo's own teacher and tweets, a user's own files, and a run that is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import stillroom
from stillroom.cli import main
from stillroom.files import sha256_file
from stillroom.splits import fold, load_splits
from stillroom.student import load_student

# Smaller numbers for every step, the same steps.
QUICK = ("measure.rounds=1", "measure.samples=3", "measure.warmup=1", "measure.lengths=[8, 16]",
         "measure.sweeps=false", "teacher.epochs=1", "student.epochs=1")  # fmt: skip
SPLITS = ("data.test_fraction=0.005", "data.validation_fraction=0.005")


def settings(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded recipe on real text and the real teacher, with few rows."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    quick = settings(*QUICK, *SPLITS, "measure.sweeps=true")
    assert main(["run", "demo", "--out", str(out), "--max-train-rows", "96", *quick]) == 0
    return out


def test_demo_leaves_the_documented_folders(demo: Path) -> None:
    for name in (
        "teacher",
        "student",
        "artifacts/onnx-fp32",
        "artifacts/onnx-int8-dynamic",
        "bundle",
        "report",
    ):
        assert (demo / name).is_dir(), name
    assert {path.name for path in (demo / "report").iterdir()} >= {"results.json", "report.md", "report.html"}
    assert not list(demo.rglob("*.partial"))


def test_demo_test_rows_were_never_trained_on(demo: Path) -> None:
    splits = load_splits(demo / "data")
    trained = {fold(row.text) for row in (*splits.train, *splits.validation)}
    assert len(splits.train) == 96 and len(splits.test) > 100
    assert not trained & {fold(row.text) for row in splits.test}


def test_demo_results_hold_together(demo: Path) -> None:
    results = json.loads((demo / "report" / "results.json").read_text())
    models = {row["name"]: row for row in results["models"]}
    artifacts = {row["name"]: row for row in results["artifacts"]}
    assert set(models) == {"teacher", "student-plain", "student"}
    assert set(artifacts) == {"teacher-onnx-fp32", "onnx-fp32", "onnx-int8-dynamic"}
    for row in (*models.values(), *artifacts.values()):
        assert len(row["samples_ms"]) == 3 and row["peak_rss_bytes"] > row["baseline_rss_bytes"] > 0
        assert row["evaluation_pass_ms"] > 0
        assert row["retention"] == pytest.approx(
            row["scores"]["accuracy"] / models["teacher"]["scores"]["accuracy"]
        )
    int8 = artifacts["onnx-int8-dynamic"]
    assert int8["size_bytes"] * 4 <= artifacts["teacher-onnx-fp32"]["size_bytes"]
    assert int8["size_bytes"] == (demo / "artifacts" / "onnx-int8-dynamic" / "model.onnx").stat().st_size
    assert artifacts["onnx-fp32"]["scores"] == models["student"]["scores"]
    assert artifacts["onnx-fp32"]["max_abs_error"] <= 1e-4 and artifacts["onnx-fp32"]["flip_rate"] == 0
    assert models["student"]["parameters"] < models["teacher"]["parameters"]
    rows = results["workload"]["evaluation_rows"]
    assert rows == results["data"]["validation_rows"] == len(results["tokenization_samples_ms"]) > 100
    assert len(int8["evaluation_samples_ms"]) == rows and int8["cpu_ms"] > 0
    assert int8["quality"]["against"]["student"]["p_value"] <= 1
    assert (
        sum(found["rows"] for found in int8["quality"]["flips_by_label"].values())
        == (results["data"]["test_rows"])
    )
    assert results["noise"]["subject"] == "onnx-int8-dynamic"
    assert {point["batch_size"] for point in results["sweeps"]} == {1, 4, 16}
    assert set(results["limits"]["profiles"]) == set(artifacts)
    assert results["limits"]["profiles"]["onnx-int8-dynamic"]["int8_operations"] > 0
    assert set(results["parity"]) == set(artifacts)


def test_a_second_run_does_nothing_and_loads_no_torch(demo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()}
    quick = settings(*QUICK, *SPLITS, "measure.sweeps=true")
    arguments = ["run", "demo", "--out", str(demo), "--max-train-rows", "96", *quick]
    code = (
        "import sys; from stillroom.cli import main; "
        f"code = main({arguments!r}); "
        "print('torch' in sys.modules, 'onnxruntime' in sys.modules, file=sys.stderr); "
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False False"
    assert done.stderr.count("done before, kept") == 9
    after = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path]} <= {demo / ".stillroom" / "lock"}
    assert (
        done.stdout.splitlines()[-1]
        == f"report: {demo / 'report' / 'report.html'}   bundle: {demo / 'bundle'}"
    )


def test_a_changed_recipe_and_a_damaged_file_are_noticed(
    demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (demo / "bundle" / "labels.txt").open("a") as file:
        file.write("surplus\n")
    quick = settings(*QUICK, *SPLITS, "measure.samples=4")
    assert main(["run", "demo", "--out", str(demo), "--max-train-rows", "96", *quick]) == 0
    said = capsys.readouterr().err
    assert "measure: done again, because recipe.samples changed (3 -> 4); recipe.sweeps changed" in said
    assert "bundle: done again, because bundle changed on disk" in said
    assert "student: done before, kept" in said


def test_the_bundle_answers_from_python_and_the_shell(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = stillroom.load_bundle(demo / "bundle")("the crew was wonderful")
    assert found.label in ("negative", "neutral", "positive")
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert main(["predict", str(demo / "bundle"), "the crew was wonderful", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["label"] == found.label and said["probabilities"] == pytest.approx(found.probabilities)


def test_readmes_python_example_runs(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    found = re.search(r"^From Python:\n\n((?:    .*\n|\n)+)", readme, re.MULTILINE)
    assert found is not None
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(demo)
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(found[1]), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Prediction(label=") and lines[-1].startswith("[0, 5] [")
    assert int(lines[-2]) == (tmp_path / "my-model" / "model.onnx").stat().st_size


def test_verify_report_bench_and_bundle_on_a_finished_run(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(demo), "--json"]) == 0
    proofs = json.loads(capsys.readouterr().out)
    assert all(case["passed"] for proof in proofs.values() for case in proof["cases"])
    assert main(["verify", str(demo / "bundle")]) == 0
    table = capsys.readouterr().out
    assert "32 golden vectors" in table and "three at a time, padded" in table
    assert main(["report", str(demo)]) == 0
    assert "onnx-int8-dynamic" in capsys.readouterr().out
    assert main(["bundle", str(demo), "--artifact", "onnx-fp32", "--out", str(tmp_path / "fp32")]) == 0
    assert stillroom.load_bundle(tmp_path / "fp32")("fine").label
    capsys.readouterr()
    folder = demo / "artifacts" / "onnx-int8-dynamic"
    assert main(["bench", str(folder), "--rounds", "1", "--samples", "2", "--length", "9", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (measured,) = document["rows"]
    assert len(measured["samples_ms"]) == 2 and measured["failure"] is None
    assert measured["length"] == 9 and document["noise"]["subject"] == str(folder)
    assert main(["bench", str(demo / "bundle"), "--rounds", "1", "--samples", "2", "--length", "9"]) == 0
    lone = shutil.copytree(folder, tmp_path / "lone" / "artifact")
    (lone / "tokenizer.json").unlink()
    assert main(["bench", str(lone), "--rounds", "1", "--samples", "2"]) == 2
    assert "no tokenizer.json in or around" in capsys.readouterr().err


def test_which_part_suffers_from_8_bits(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensitivity", str(demo), "--rows", "40"]) == 0
    _, *rows, last, note, cut, plot = capsys.readouterr().out.splitlines()
    groups = {row[:28].strip() for row in rows}
    parts = ("qkv", "attention output", "ffn up", "ffn down")
    assert groups == {
        "embeddings", "pooler", "head", *(f"layer {at} {part}" for at in range(3) for part in parts)
    }  # fmt: skip
    errors = [float(row[28:48]) for row in rows]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0
    assert last.startswith("everything ") and note.startswith("40 validation rows")
    assert re.match(r"on an x86 CPU without VNNI \d\.\d{3}% of [\d,]+ dot products saturate", cut)
    picture = Path(plot.removeprefix("plot: ")).read_text("utf-8")
    assert picture.startswith("<svg ") and all(f">{group}</text>" in picture for group in groups)
    assert main(["sensitivity", str(demo), "--rows", "0"]) == 2


def test_a_student_trained_in_8_bits_brings_its_ranges(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shutil.copytree(demo, out)
    names = ["onnx-int8-static"]
    chosen = settings(
        *QUICK, "data.test_fraction=0.005", "data.validation_fraction=0.005", "student.quantized_epochs=1",
        f"export.artifacts={json.dumps(names)}", "export.bundle=onnx-int8-static",
    )  # fmt: skip
    arguments = ["run", "demo", "--out", str(out), "--max-train-rows", "96", "--no-baselines", *chosen]
    assert main(arguments) == 0
    lineage = load_student(out / "student").lineage
    assert len(lineage["ranges"]) == 3 * 6 + 2 and lineage["training"]["quantized"]["steps"] == 3
    before = load_student(demo / "student")
    assert before.lineage.get("ranges") is None
    assert before.weights_sha256 != load_student(out / "student").weights_sha256
    results = json.loads((out / "report" / "results.json").read_text())
    assert {row["name"] for row in results["artifacts"]} == {"teacher-onnx-fp32", *names}
    assert main(["verify", str(out / "bundle")]) == 0
    own = ["export", str(out / "student"), "--format", "onnx-int8-static", "--out", str(tmp_path / "own")]
    assert main([*own, "--keep", "layer 0 ffn down"]) == 0
    graph = onnx.load(tmp_path / "own" / "model.onnx").graph
    in_fp32 = [node.op_type for node in graph.node if node.op_type == "MatMul"]
    assert len(in_fp32) == 1
    assert main([*own, "--keep", "layer 7 ffn down"]) == 2


def test_an_artifact_that_answers_otherwise_stops_with_exit_1(
    demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    import onnx

    from stillroom.artifact import load_artifact, save_artifact

    artifact = load_artifact(demo / "artifacts" / "onnx-fp32")
    original = artifact.path.read_bytes()
    model = onnx.load(artifact.path)
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [3])  # the head's
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 0.5
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, artifact.path)
    save_artifact(
        replace(artifact, sha256=sha256_file(artifact.path), size_bytes=artifact.path.stat().st_size)
    )
    try:
        assert main(["verify", str(demo)]) == 1
        said = capsys.readouterr().err
        assert "onnx-fp32: test split, one by one: max abs error 0.5" in said and "worst text: " in said
    finally:
        artifact.path.write_bytes(original)
        save_artifact(artifact)


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
    tmp_path: Path, make_model_folder: Callable[..., Path], family: str, suffix: str, pairs: bool
) -> None:
    data = tmp_path / f"reviews{suffix}"
    write_reviews(data, pairs=pairs)
    folder = make_model_folder(tmp_path / "my-bert", family=family)
    pair_options = ["--pair-column", "title"] if pairs else []
    arguments = ["run", "demo", "--data", str(data), "--text-column", "review", "--label-column", "stars",
                 *pair_options, "--teacher", str(folder), "--out", str(tmp_path / "mine"), "--no-baselines",
                 *settings(*QUICK)]  # fmt: skip
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
    tmp_path: Path, make_model_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "reviews.csv", tmp_path / "mine"
    write_reviews(data)
    formats = ["onnx-int8-dynamic", "coreml-fp16", "executorch_coreml-fp16"]
    arguments = ["run", "demo", "--data", str(data), "--text-column", "review", "--label-column", "stars",
                 "--teacher", str(make_model_folder(tmp_path / "my-bert")), "--out", str(run),
                 "--no-baselines", *settings(*QUICK, f"export.artifacts={json.dumps(formats)}")]  # fmt: skip
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
    tmp_path: Path, make_model_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str], kind: str
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
                 *settings(*QUICK, "teacher.epochs=15", "student.epochs=4", "teacher.learning_rate=2e-3",
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
                 *settings("student.epochs=1")]  # fmt: skip
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
                *settings("checkpoint_every_s=0", "teacher.epochs=6", "student.epochs=6")]  # fmt: skip

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
