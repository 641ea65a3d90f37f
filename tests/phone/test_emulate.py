"""Files made here run on emulated arm64 cores by the real arm64 runtimes, and answer as they do here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from stillroom.artifact import Artifact
from stillroom.benchmarks.phone.device_profiles import read_counts, read_profiles
from stillroom.benchmarks.phone.emulate import CORES, emulate
from stillroom.benchmarks.phone.emulator_files import Emulator, build_emulator
from stillroom.cli import main
from stillroom.export.options import ExportOptions
from stillroom.export.targets import export
from stillroom.files import read_json
from stillroom.observe import calibration_of
from stillroom.student import load_model, load_student, save_student
from stillroom.task import TaskSpec
from stillroom.text import Row
from stillroom.tokens import encode_rows, load_tokenizer

FOLDER = Path(__file__).parents[2] / "build" / "phone"


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return build_emulator(FOLDER)


@pytest.fixture(scope="module")
def files(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """A tiny model in every form that is tried, in a folder like a run's, its tokenizer in the student."""
    run = tmp_path_factory.mktemp("run")
    task = TaskSpec(("good", "bad"), 64, ("input_ids", "attention_mask", "token_type_ids"))
    save_student(
        run / "student",
        load_model(tiny_teacher),
        (tiny_teacher / "tokenizer.json").read_text("utf-8"),
        task,
        {},
    )
    student = load_student(run / "student")
    rows = [
        Row(text, None, "good") for text in ("the food was great", "my hotel was so dirty", "what a crew")
    ]
    tokens = encode_rows(load_tokenizer(student.folder, 64), rows, task, pad_id=0)
    options = ExportOptions(calibration=calibration_of(tokens, task.inputs, 3), ranges="minmax")
    return [
        export(student.folder, target, scheme, run / "artifacts" / f"{target}-{scheme}", options)
        for target, scheme in (
            ("onnx", "fp32"), ("onnx", "int8-dynamic"), ("onnx", "int8-static"),
            ("executorch", "int8-dynamic"),
        )
    ]  # fmt: skip


def test_every_file_answers_on_every_core_as_it_does_here(emulator: Emulator, files: list[Artifact]) -> None:
    text, document = emulate([artifact.folder for artifact in files], emulator, length=64)
    rows = document["rows"]
    assert [row["status"] for row in rows] == ["ok"] * len(files) * len(CORES), text
    assert {row["core"] for row in rows} == set(CORES) and document["emulated"] is True
    assert all(row["texts"] == 32 and row["max_abs_error"] <= row["allowed_error"] for row in rows)
    assert all(row["flips"] == 0 for row in rows)
    versions = {row["target"]: row["runtime_version"] for row in rows}
    assert versions["onnx"] == "1.32.0" and versions["executorch"].startswith("1.4.1")
    counted = {(row["scheme"], row["core"]): row["instructions"] for row in rows if row["instructions"]}
    assert len(counted) == 4  # two ONNX files on the two cores that are counted
    refused = [row for row in rows if row["not_counted"]]
    assert {row["scheme"] for row in refused} == {
        "int8-static"
    }  # the onnxruntime that counts is too old for it
    assert all(
        row["instructions_apart"] <= 0.001 * row["instructions"] for row in rows if row["instructions"]
    )
    # The older core has no dot product instruction for int8, so it needs more instructions for the same.
    assert counted["int8-dynamic", "a53"] > counted["int8-dynamic", "a76"]


def test_a_file_that_hangs_is_a_row_and_too_little_memory_too(
    emulator: Emulator, files: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [files[0].folder]
    _, document = emulate(folders, emulator, ["a76"], count=False, length=64, timeout_s=0.05)
    assert "did not finish within 0.05 s" in document["rows"][0]["reason"]
    monkeypatch.setitem(emulate.__globals__["DATA_LIMIT_BYTES"], "onnx", 8 * 2**20)
    _, document = emulate(folders, emulator, ["a76"], count=False, length=64)
    assert document["rows"][0]["status"] == "failed" and "exit code" in document["rows"][0]["reason"]


def test_the_command_line_says_the_same(
    emulator: Emulator, files: Sequence[Artifact], tmp_path: Path
) -> None:
    arguments = ["bench", str(files[1].folder), "--target", "arm64", "--tools", str(FOLDER)]
    arguments += ["--length", "48"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert [row["status"] for row in read_json(tmp_path / "bench.json")["rows"]] == ["ok"] * len(CORES)
    profiles = read_profiles().values()
    counts = read_counts(tmp_path / "bench.json", profiles, 48)  # what estimates take
    assert set(counts) == {(files[1].sha256, "smlal"), (files[1].sha256, "sdot")}
    assert read_counts(tmp_path / "bench.json", profiles, 64) == {}
