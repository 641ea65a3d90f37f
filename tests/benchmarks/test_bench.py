"""stillroom bench on real files, and on folders broken in every way; no time's value is looked at."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stillroom.benchmarks import bench as module
from stillroom.benchmarks.bench import Plan, bench
from stillroom.benchmarks.bench_tables import bench_lines
from stillroom.benchmarks.measure import Subject
from stillroom.benchmarks.results import validate_bench
from stillroom.benchmarks.sustained import sustain
from stillroom.benchmarks.sweep import sweep, thread_counts
from stillroom.benchmarks.tokenization import time_tokenizer
from stillroom.cli import main
from stillroom.errors import CheckFailed, UsageError
from stillroom.export.targets import export
from stillroom.files import read_json
from stillroom.student import save_student
from stillroom.task import TaskSpec

QUICK = Plan(lengths=(8, 16), rounds=2, samples=3, threads=1)


@pytest.fixture(scope="module")
def student(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers

    folder = tmp_path_factory.mktemp("bench") / "student"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_teacher)
    task = TaskSpec(("good", "bad"), 32, ("input_ids", "attention_mask", "token_type_ids"))
    save_student(folder, model, (tiny_teacher / "tokenizer.json").read_text("utf-8"), task, {})
    return folder


@pytest.fixture(scope="module")
def files(student: Path) -> list[Path]:
    for scheme in ("fp32", "int8-dynamic"):
        export(student, "onnx", scheme, student.parent / f"onnx-{scheme}")
    return [student.parent / "onnx-fp32", student.parent / "onnx-int8-dynamic"]


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / folder.name))


def test_everything_is_measured_and_shown(files: list[Path], student: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the food was great\n\nmy hotel was so dirty and sad\n", "utf-8")
    plan = Plan((8, 16), 2, 3, 1, tmp_path / "texts.txt", sweeps=True, limits=True, sustained_s=0.2)
    document = bench([*files, student], plan, "stillroom bench ...")
    validate_bench(json.loads(json.dumps(document)))
    assert [row["failure"] for row in document["rows"]] == [None] * 3
    assert document["noise"]["subject"] == str(student)
    assert document["workload"]["evaluation_rows"] == len(document["tokenization_samples_ms"]) == 2
    assert {point["name"] for point in document["sweeps"]} == {str(folder) for folder in (*files, student)}
    assert set(document["limits"]["profiles"]) == {str(folder) for folder in files}
    assert len(document["sustained"]) == 3
    assert all(len(one["windows"]) == 20 and one["samples_ms"] for one in document["sustained"])
    text = bench_lines(document)
    for words in ("p95 ms", "end to end p50 ms", "rows/s", "drift %", "peaks measured", "took part twice"):
        assert words in text


def test_broken_folders_have_rows_that_say_why(files: list[Path], student: Path, tmp_path: Path) -> None:
    truncated, changed = (copied(files[0], tmp_path / name) for name in ("truncated", "changed"))
    model = (truncated / "model.onnx").read_bytes()
    (truncated / "model.onnx").write_bytes(model[: len(model) // 2])
    (changed / "model.onnx").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    empty = tmp_path / "empty"
    empty.mkdir()
    document = bench([truncated, changed, empty, files[1], student], QUICK)
    said = {Path(row["name"]).parent.name: row["failure"] for row in document["rows"][:2]}
    assert "truncated or changed" in said["truncated"] and "it was changed" in said["changed"]
    assert document["rows"][2]["failure"] and document["rows"][3]["failure"] is None
    text = bench_lines(document)
    assert text.count("failed") == 3 and "truncated or changed" in text


CRASHING_CHILD = """
import os, sys, time
import numpy as np
from stillroom.benchmarks.measure_child import child_main

def load_predictor(target, folder, threads, lengths):
    if "fp32" in str(folder):
        {what}
    return lambda *inputs: np.zeros((len(inputs[0]), 2), dtype=np.float32)

sys.exit(child_main(lambda target: None, load_predictor))
"""


@pytest.mark.parametrize(
    ("what", "why"),
    [("os.kill(os.getpid(), 11)", "SIGSEGV"), ("time.sleep(60)", "not finish within 3 s")],
)
def test_a_file_that_kills_its_process_is_a_row_and_the_rest_goes_on(
    files: list[Path], student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    script = tmp_path / "child.py"
    script.write_text(CRASHING_CHILD.format(what=what), "utf-8")
    real = module.measure

    def measure(*given: object, failures: dict[str, str]) -> object:
        return real(*given, command=[sys.executable, str(script)], failures=failures)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "measure", measure)
    # What the evaluation pass adds to the limit would let the sleeper wake up in the first round.
    monkeypatch.setattr("stillroom.benchmarks.measure.EVALUATION_ROW_TIMEOUT_S", 0)
    arguments = ["bench", *map(str, (*files, student)), "--rounds", "2", "--samples", "3", "--length", "8",
                 "--timeout", "3", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(arguments) == 1
    document = read_json(tmp_path / "out" / "bench.json")
    validate_bench(document)
    assert [row["failure"] is None for row in document["rows"]] == [False, True, True]
    assert why in document["rows"][0]["failure"]
    assert why in capsys.readouterr().err


def test_what_fails_after_the_first_measurement_is_said_in_the_row_too(
    files: list[Path], student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sustain(subject: Subject, *given: object) -> dict[str, object]:
        raise CheckFailed(f"{subject.name}: its process was stopped")

    monkeypatch.setattr(module, "sustain", sustain)
    document = bench([files[0], student], replace(QUICK, sustained_s=1))
    assert [row["failure"] for row in document["rows"]] == ["its process was stopped"] * 2
    assert all(row["samples_ms"] for row in document["rows"]) and document["sustained"] == []


def test_wrong_questions_are_one_line(files: list[Path], student: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        bench([tmp_path / "missing"], QUICK)
    with pytest.raises(UsageError, match="given twice"):
        bench([files[0], files[0]], QUICK)
    with pytest.raises(UsageError, match="shortest max_length of these models is 32"):
        bench([student], Plan((64,)))
    with pytest.raises(UsageError, match="no text in it"):
        (tmp_path / "empty.txt").write_text("\n \n", "utf-8")
        bench([student], Plan((8,), text_file=tmp_path / "empty.txt"))
    with pytest.raises(UsageError, match="not UTF-8"):
        (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
        bench([student], Plan((8,), text_file=tmp_path / "latin.txt"))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="nothing to time"):
        bench([tmp_path / "nothing"], QUICK)


def test_long_text_files_are_sampled_over_their_whole_length(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("".join(f"text {at}\n" for at in range(5000)), "utf-8")
    found = module._texts(tmp_path / "many.txt")
    assert len(found) <= module.MAX_TEXTS and found[0] == "text 0" and found[-1] > "text 49"


def test_tokenizing_is_timed_text_by_text(student: Path, tmp_path: Path) -> None:
    found = time_tokenizer(student, 32, [("the food was great", None), ("a", "the room")])
    assert len(found) == 2 and min(found) > 0
    with pytest.raises(CheckFailed, match=r"no tokenizer\.json"):
        time_tokenizer(tmp_path, 32, [("a", None)])


def test_threads_double_up_to_all_cores() -> None:
    assert [thread_counts(cores) for cores in (1, 2, 3, 8)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 8)]


def test_a_sweep_has_a_point_for_everything_that_was_asked(
    monkeypatch: pytest.MonkeyPatch, files: list[Path]
) -> None:
    from stillroom.benchmarks.measure import Measurement

    def measure(subjects: list[Subject], workload: object, failures: object) -> dict[str, Measurement]:
        per_length = {length: (2.0, 4.0) for length in workload.lengths}  # type: ignore[attr-defined]
        return {
            one.name: Measurement(one.name, *[(1.0,)] * 3, per_length, (1,), (1,), "warm", {}, None)
            for one in subjects
        }

    monkeypatch.setattr("stillroom.benchmarks.sweep.measure", measure)
    takes_one_row = Subject("b", "executorch", str(files[0]), ())
    fixed = Subject("c", "onnx", str(files[0]), (), (40,))
    subjects = [Subject("a", "onnx", str(files[0]), ()), takes_one_row, fixed]
    points = sweep(subjects, tuple(range(1, 41)), 2)
    assert {point["name"] for point in points} == {"a", "b"}
    keys = ("threads", "length", "batch_size")
    ways = [tuple(point[key] for key in keys) for point in points if point["name"] == "a"]
    assert ways == [(t, n, 1) for t in (1, 2) for n in (16, 32, 40)] + [(2, 40, 4), (2, 40, 16)]
    assert [point["batch_size"] for point in points if point["name"] == "b"] == [1] * 6
    assert points[-1]["rows_per_s"] == pytest.approx(16 / 3e-3)


def test_a_run_without_a_pause_tells_drift_and_growth(
    monkeypatch: pytest.MonkeyPatch, files: list[Path]
) -> None:
    from stillroom.benchmarks.workload import Workload

    samples = [1.0] * 50 + [1.5] * 50
    windows = [(float(at), 1.0, 1000 + 100 * at) for at in range(1, 21)]
    answer: Callable[..., object] = lambda *given: {"samples_ms": samples, "windows": windows}  # noqa: E731
    monkeypatch.setattr("stillroom.benchmarks.sustained.ask", answer)
    workload = Workload((1, 2, 3), (3,), 1, 1, 0, 1)
    found = sustain(Subject("a", "onnx", str(files[0]), ()), workload, 1.0)
    assert found["p50_drift"] == pytest.approx(0.5) and found["rss_growth_bytes"] == 1500
    assert np.median(found["samples_ms"]) == 1.25
    monkeypatch.setattr("stillroom.benchmarks.sustained.ask", lambda *given: {"samples_ms": "no"})
    with pytest.raises(CheckFailed, match="other than its samples"):
        sustain(Subject("a", "onnx", str(files[0]), ()), workload, 1.0)
