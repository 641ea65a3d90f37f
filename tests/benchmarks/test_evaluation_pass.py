"""One pass over the validation split per subject: every row once, and none of its ids in what is kept."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stillroom import step_measure
from stillroom.benchmarks import measure_child as module
from stillroom.benchmarks.measure import Measurement, Subject, measure
from stillroom.benchmarks.measure_child import run_child
from stillroom.benchmarks.workload import Workload
from stillroom.errors import CheckFailed
from stillroom.files import write_json
from stillroom.recipe import load_recipe
from stillroom.steps import Run
from stillroom.task import TaskSpec
from stillroom.text import Row
from stillroom.tokens import Tokens

WORKLOAD = Workload(
    token_ids=(1, 2, 3, 4, 5),
    lengths=(2, 4),
    rounds=2,
    samples=3,
    warmup=1,
    threads=1,
    batch_size=2,
    evaluation=((1, 77, 2), (1, 2), (1, 77, 78, 79, 2)),
)
# Writes the shape and the largest id of every call it gets into calls.txt of the folder it is given.
RECORDING_CHILD = """
import sys
import numpy as np
from stillroom.benchmarks.measure_child import child_main

def load_predictor(target, folder, threads, lengths):
    def predict(input_ids, attention_mask):
        with (folder / "calls.txt").open("a") as file:
            file.write(f"{input_ids.shape[0]}x{input_ids.shape[1]}:{input_ids.max()}\\n")
        return np.zeros((input_ids.shape[0], 2), dtype=np.float32)
    return predict

sys.exit(child_main(lambda target: None, load_predictor))
"""
PER_PROCESS = ["2x4:4", *["2x2:2"] * 4, *["2x4:4"] * 4]


@pytest.fixture
def subjects(tmp_path: Path) -> list[Subject]:
    found = [Subject(name, "t", str(tmp_path / name), ("input_ids", "attention_mask")) for name in "ab"]
    for subject in found:
        Path(subject.folder).mkdir()
    return found


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "child.py"
    script.write_text(RECORDING_CHILD, encoding="utf-8")
    return [sys.executable, str(script)]


def test_every_row_is_fed_once_per_subject_in_its_first_process(
    subjects: list[Subject], command: list[str]
) -> None:
    found = measure(subjects, WORKLOAD, command=command)
    for subject in subjects:
        calls = (Path(subject.folder) / "calls.txt").read_text().splitlines()
        assert calls == [*PER_PROCESS, "1x3:77", "1x2:2", "1x5:79", *PER_PROCESS]
        assert len(found[subject.name].evaluation_samples_ms) == 3


def test_no_rows_are_no_pass(subjects: list[Subject], command: list[str]) -> None:
    found = measure(subjects, replace(WORKLOAD, evaluation=()), command=command)
    assert [measurement.evaluation_samples_ms for measurement in found.values()] == [(), ()]
    assert (Path(subjects[0].folder) / "calls.txt").read_text().splitlines() == PER_PROCESS * 2


def test_what_was_measured_holds_no_ids(subjects: list[Subject], command: list[str]) -> None:
    marked = replace(WORKLOAD, evaluation=((1, 987654321, 2),), rounds=1)
    found = measure(subjects, marked, command=command)
    kept = json.dumps([asdict(measurement) for measurement in found.values()]) + json.dumps(marked.to_dict())
    assert "987654321" not in kept and "evaluation_rows" in kept


def child_request(workload: Workload) -> dict[str, Any]:
    subject = {
        "name": "m",
        "target": "t",
        "folder": "f",
        "inputs": ["input_ids", "attention_mask"],
        "lengths": [],
    }
    return dict(json.loads(json.dumps({"subject": subject, "workload": asdict(workload)})))


def test_the_pass_is_the_sum_of_its_calls_and_comes_after_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    times = iter(range(10**6))
    monkeypatch.setattr(module.time, "perf_counter_ns", lambda: next(times) * 1_000_000)
    monkeypatch.setattr(module, "resident_bytes", lambda: (happened.append("memory"), (1, 2))[1])

    def load_predictor(target: str, folder: Path, threads: int, lengths: object) -> Callable[..., np.ndarray]:
        def predict(*inputs: np.ndarray) -> np.ndarray:
            happened.append(f"call {inputs[0].shape}")
            return np.zeros((len(inputs[0]), 2))

        return predict

    def rows() -> list[list[int]]:
        happened.append("rows")
        return [list(row) for row in WORKLOAD.evaluation]

    request = child_request(replace(WORKLOAD, evaluation=()))
    reply = run_child(request, lambda target: None, load_predictor, rows)
    assert reply["evaluation_samples_ms"] == [1.0] * 3  # this clock ticks a millisecond per look
    assert happened[-5:] == ["memory", "rows", "call (1, 3)", "call (1, 2)", "call (1, 5)"]
    assert run_child(request, lambda target: None, load_predictor)["evaluation_samples_ms"] == []


def test_an_answer_that_is_not_finite_is_found_in_the_pass_too(tmp_path: Path) -> None:
    def load_predictor(target: str, folder: Path, threads: int, lengths: object) -> Callable[..., np.ndarray]:
        return lambda *inputs: np.full((len(inputs[0]), 2), math.nan if inputs[0].max() == 77 else 0.0)

    with pytest.raises(CheckFailed, match="not finite, at length 3"):
        run_child(
            child_request(replace(WORKLOAD, evaluation=())),
            lambda target: None,
            load_predictor,
            lambda: WORKLOAD.evaluation,
        )


@pytest.mark.parametrize(
    "value", [None, [], [1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, -1.0], ["fast"] * 3, [math.nan] * 3]
)
def test_a_reply_without_the_pass_that_was_asked_for_fails(subjects: list[Subject], value: Any) -> None:
    reply = {
        "import_ms": 1.0,
        "load_ms": 1.0,
        "first_ms": 1.0,
        "samples_ms": {"2": [1.0, 1.0, 1.0], "4": [1.0, 1.0, 1.0]},
        "peak_rss_bytes": 2,
        "baseline_rss_bytes": 1,
        "cpu_ms": {"2": 1.0, "4": 1.0},
        "runtime_bytes": None,
        "evaluation_samples_ms": value,
    }
    command = [sys.executable, "-S", "-c", f"print({json.dumps(reply)!r})"]
    with pytest.raises(CheckFailed, match="other than its measurements"):
        measure(subjects, replace(WORKLOAD, rounds=1), command=command)
    good = {**reply, "evaluation_samples_ms": [1.0, 2.0, 3.0]}
    command = [sys.executable, "-S", "-c", f"print({json.dumps(good)!r})"]
    found = measure(subjects, replace(WORKLOAD, rounds=1), command=command)["a"]
    assert found.evaluation_samples_ms == (1.0, 2.0, 3.0)


def test_a_long_pass_is_given_its_time(subjects: list[Subject], tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    slow = RECORDING_CHILD.replace("import sys\n", "import sys, time\n").replace(
        "    def predict", "    time.sleep(1.5)\n    def predict"
    )
    script.write_text(slow, encoding="utf-8")
    with pytest.raises(CheckFailed, match=r"within 1 s"):
        measure(subjects, replace(WORKLOAD, rounds=1, evaluation=()), 1, [sys.executable, str(script)])
    thirty = replace(WORKLOAD, rounds=1, evaluation=WORKLOAD.evaluation * 10)
    assert measure(subjects[:1], thirty, 1, [sys.executable, str(script)])["a"].evaluation_samples_ms


def test_the_step_feeds_the_validation_split_and_keeps_no_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = Run(tmp_path), []
    exported = {
        "onnx-fp32": {"target": "onnx", "proof": "run"},
        "coreml-fp16": {"target": "coreml", "proof": "interpreted"},  # its time would be the interpreter's
    }
    for step in ("data", "teacher", "student", "export"):
        write_json(run.record(step), {"outputs": {}, "facts": exported if step == "export" else {}})
    splits = {"test": [[987654]], "validation": [[1, 876543, 2], [1, 2], [1, 876544, 876545, 2]]}

    def encode(run: Run, folder: Path, task: TaskSpec, split: str) -> tuple[Tokens, list[str]]:
        ids = [np.array(row, dtype=np.int32) for row in splits[split]]
        offsets = np.cumsum([0, *map(len, ids)]).astype(np.int64)
        flat = np.concatenate(ids)
        return Tokens(flat, np.zeros_like(flat), offsets, np.zeros(len(ids), dtype=np.int64), 0), []

    splits_of_texts = SimpleNamespace(validation=[Row("a text nobody keeps", None, "no")] * 3)

    def measured(subjects: list[Subject], workload: Workload) -> dict[str, Measurement]:
        asked.append(workload)
        return {
            subject.name: Measurement(
                subject.name,
                (1.0,),
                (1.0,),
                (1.0,),
                {64: (1.0,)},
                (1,),
                (1,),
                "warm",
                {64: (1.0,)},
                7,
                (4.0,),
            )
            for subject in subjects
        }

    task = TaskSpec(("no", "yes"), 64, ("input_ids", "attention_mask"))
    monkeypatch.setattr(step_measure, "encode", encode)
    monkeypatch.setattr(step_measure, "load_splits", lambda folder: splits_of_texts)
    nothing = {"peaks": {}, "profiles": {}}
    monkeypatch.setattr("stillroom.benchmarks.limits.limits_beside", lambda *given: nothing)
    monkeypatch.setattr("stillroom.benchmarks.tokenization.time_tokenizer", lambda *given: (0.1,) * 3)
    monkeypatch.setattr("stillroom.benchmarks.sweep.sweep", lambda *given: [])
    monkeypatch.setattr("stillroom.benchmarks.measure.measure", measured)
    monkeypatch.setattr("stillroom.student.load_student", lambda folder: SimpleNamespace(task=task))
    facts = step_measure.measure_step(run, load_recipe("demo"), baselines=False)
    assert asked[0].evaluation == tuple(tuple(row) for row in splits["validation"])
    assert facts["workload"]["evaluation_rows"] == 3
    assert (
        facts["rows"]["onnx-fp32"]["evaluation_samples_ms"] == (4.0,) and "coreml-fp16" not in facts["rows"]
    )
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert not any(marked in written for marked in ("987654", "876543", "876544", "876545", "nobody"))
