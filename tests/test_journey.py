"""The whole journey of the demo: its own teacher and tweets, and what can be done with the run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import stillroom
from stillroom.artifact import load_artifact, save_artifact
from stillroom.cli import main
from stillroom.files import read_json, sha256_file, write_json
from stillroom.splits import fold, load_splits
from stillroom.student import load_student

Options = Callable[..., list[str]]
SPLITS = ("data.test_fraction=0.005", "data.validation_fraction=0.005")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, quick_options: Options) -> Path:
    """The embedded recipe on real text and the real teacher, with few rows."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    quick = quick_options(*SPLITS, "measure.sweeps=true")
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


def test_a_second_run_does_nothing_and_loads_no_torch(demo: Path, quick_options: Options) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()}
    quick = quick_options(*SPLITS, "measure.sweeps=true")
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
    demo: Path, quick_options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    with (demo / "bundle" / "labels.txt").open("a") as file:
        file.write("surplus\n")
    quick = quick_options(*SPLITS, "measure.samples=4")
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


def test_a_student_trained_in_8_bits_brings_its_ranges(
    demo: Path, quick_options: Options, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    shutil.copytree(demo, out)
    names = ["onnx-int8-static"]
    chosen = quick_options(
        "data.test_fraction=0.005", "data.validation_fraction=0.005", "student.quantized_epochs=1",
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


def test_what_was_emulated_and_the_apps_size_are_in_the_report(
    demo: Path, quick_options: Options, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    shutil.copytree(demo, out)
    artifact = load_artifact(out / "artifacts" / "onnx-int8-dynamic")
    lengths = read_json(out / "report" / "results.json")["workload"]["lengths"]
    row = {"name": str(artifact.folder), "sha256": artifact.sha256, "core": "a53", "status": "ok",
           "runtime_version": "1.32.0", "texts": 32, "max_abs_error": 0.001, "flips": 0,
           "instructions": 123_450_000}  # fmt: skip
    counted = {"rows": [row], "cores": {"a53": "cortex-a53"}, "counted_tokens": max(lengths)}
    for folder in ("emulated", "android"):
        (out / folder).mkdir()
    write_json(out / "emulated" / "bench.json", counted)
    parts = {"dex": 1_230_000, "runtime": 2, "model": 3, "tokenizer": 4, "resources": 5, "other": 6}
    built = {"artifact_sha256": artifact.sha256, "abi": "arm64-v8a", "flavour": "onnxruntime",
             "runtime_version": "1.29.0", "parts_bytes": parts}  # fmt: skip
    write_json(out / "android" / "app.json", built)
    again = ["run", "demo", "--out", str(out), "--max-train-rows", "96",
             *quick_options(*SPLITS, "measure.sweeps=true")]  # fmt: skip
    assert main(again) == 0
    results = read_json(out / "report" / "results.json")
    assert results["app"]["artifact"] == "onnx-int8-dynamic" and results["app"]["parts_bytes"] == parts
    (emulated,) = results["emulated"]
    assert (emulated["name"], emulated["tokens"]) == ("onnx-int8-dynamic", max(lengths))
    by_both = {one["name"] for one in results["estimates"] if one["instructions"]}
    assert by_both == {"onnx-int8-dynamic"}
    page, text = ((out / "report" / name).read_text("utf-8") for name in ("report.html", "report.md"))
    assert "Size of the Android app" in page and "## Android app" in text and "1.230" in text
    assert "123.45" in page and "123.45" in text
    write_json(out / "android" / "app.json", {**built, "artifact_sha256": "0" * 64})  # of another run's file
    assert main(again) == 0
    assert read_json(out / "report" / "results.json")["app"] is None
