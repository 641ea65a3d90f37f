"""Fresh processes, interleaved; and what is said when one of them fails. No test looks at a time's value."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.benchmarks import measure as module
from stillroom.benchmarks import measure_child as module_child
from stillroom.benchmarks.measure import Subject, drop_page_cache, measure
from stillroom.benchmarks.measure_child import run_child
from stillroom.benchmarks.workload import Workload
from stillroom.errors import CheckFailed, UsageError

WORKLOAD = Workload(token_ids=(1, 2, 3, 4, 5), lengths=(2, 4), rounds=2, samples=3, warmup=1, threads=1)

# A child like the real one, but with a model of a few lines in the place of a runtime.
FAKE_CHILD = """
import os, sys, time
from pathlib import Path
import numpy as np
from stillroom.benchmarks.measure_child import child_main

def load_predictor(target, folder, threads, lengths):
    def predict(*inputs):
        return np.zeros((inputs[0].shape[0], 2), dtype=np.float32)
{body}
    return predict

sys.exit(child_main(lambda target: None, load_predictor))
"""


def fake_child(folder: Path, body: str = "") -> list[str]:
    """A command that measures the fake; body runs when it is loaded and sees target and folder."""
    script = folder / "child.py"
    lines = [f"    {line}" for line in body.splitlines()]
    script.write_text(FAKE_CHILD.format(body="\n".join(lines)), encoding="utf-8")
    return [sys.executable, str(script)]


def subject(folder: Path, name: str = "model") -> Subject:
    return Subject(name=name, target=name, folder=str(folder), inputs=("input_ids", "attention_mask"))


def test_every_process_gives_all_samples(tmp_path: Path) -> None:
    found = measure([subject(tmp_path)], WORKLOAD, command=fake_child(tmp_path))["model"]
    assert {length: len(samples) for length, samples in found.samples_ms.items()} == {2: 6, 4: 6}
    assert len(found.import_samples_ms) == len(found.load_samples_ms) == len(found.first_samples_ms) == 2
    assert all(
        peak >= baseline > 1_000_000
        for peak, baseline in zip(found.peak_rss_bytes, found.baseline_rss_bytes, strict=True)
    )


def test_rounds_are_interleaved_in_fresh_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = fake_child(
        tmp_path, f"with open({str(log)!r}, 'a') as f: f.write(f'{{target}} {{os.getpid()}}\\n')"
    )
    subjects = [subject(tmp_path, name) for name in "abc"]
    assert list(measure(subjects, replace(WORKLOAD, rounds=3), command=command)) == ["a", "b", "c"]
    names, processes = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    assert "".join(names) == "abc" + "bca" + "cab"
    assert len(set(processes)) == 9


def failure(tmp_path: Path, body: str, timeout_s: float = 60) -> str:
    with pytest.raises(CheckFailed) as caught:
        measure([subject(tmp_path, "bad-model")], WORKLOAD, timeout_s, fake_child(tmp_path, body))
    assert str(caught.value).startswith("bad-model: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_killed_child_is_named_with_its_signal_and_last_words(tmp_path: Path) -> None:
    said = failure(tmp_path, "print('last words', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 11)")
    assert "exit code -11 (SIGSEGV)" in said
    assert said.endswith("last words")


def test_an_exception_in_the_child_is_passed_on(tmp_path: Path) -> None:
    said = failure(tmp_path, "raise RuntimeError('unknown operator Foo')")
    assert "exit code 1" in said
    assert said.endswith("RuntimeError: unknown operator Foo")


def test_an_error_meant_for_the_user_comes_without_a_traceback(tmp_path: Path) -> None:
    said = failure(
        tmp_path, "from stillroom.errors import UsageError\nraise UsageError('no model.onnx here')"
    )
    assert said == "bad-model: its process ended with exit code 2: no model.onnx here"


def test_a_hanging_child_is_stopped(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    body = f"Path({str(pid_file)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    assert "did not finish within 1.5 s" in failure(tmp_path, body, timeout_s=1.5)
    if pid_file.exists():  # it is also right to stop a child that did not get this far
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)


@pytest.mark.parametrize("logits", ["np.full((1, 2), np.nan)", "np.array([[0.0, np.inf]])"])
def test_logits_that_are_not_finite_fail(tmp_path: Path, logits: str) -> None:
    assert "not finite" in failure(tmp_path, f"return lambda *inputs: {logits}")


def test_logits_of_a_wrong_shape_fail(tmp_path: Path) -> None:
    assert "shape (2,)" in failure(tmp_path, "return lambda *inputs: np.zeros(2)")


def reply(**changes: Any) -> str:
    whole = {
        "import_ms": 1.0,
        "load_ms": 1.0,
        "first_ms": 1.0,
        "samples_ms": {"2": [1.0, 1.0, 1.0], "4": [1.0, 1.0, 1.0]},
        "peak_rss_bytes": 2,
        "baseline_rss_bytes": 1,
        "cpu_ms": {"2": 2.0, "4": 2.0},
        "runtime_bytes": 5,
        "evaluation_samples_ms": [],
    }
    return json.dumps({**whole, **changes})


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "model loaded!",
        "[]",
        "null",
        "{}",
        reply(load_ms=None),
        reply(load_ms="fast"),
        reply(first_ms=-1.0),
        reply(first_ms=math.nan),
        reply(samples_ms={"2": [1.0, 1.0, 1.0]}),
        reply(samples_ms={"2": [1.0], "4": [1.0]}),
        reply(samples_ms={"2": [1.0, 1.0, 1.0], "4": [1.0, 1.0, 0.0]}),
        reply(samples_ms=[]),
        reply(cpu_ms={"2": 1.0}),
        reply(cpu_ms={"2": -1.0, "4": 1.0}),
        reply(runtime_bytes="many"),
        reply(evaluation_samples_ms=[1.0]),
    ],
)
def test_an_answer_that_is_no_measurement_fails(tmp_path: Path, printed: str) -> None:
    command = [sys.executable, "-S", "-c", f"print({printed!r})"]
    with pytest.raises(CheckFailed, match=r"model: .*other than its measurements"):
        measure([subject(tmp_path)], WORKLOAD, command=command)


def test_the_reply_made_up_above_would_be_accepted(tmp_path: Path) -> None:
    found = measure(
        [subject(tmp_path)], WORKLOAD, command=[sys.executable, "-S", "-c", f"print({reply()!r})"]
    )
    assert found["model"].samples_ms[4] == (1.0,) * 6


def test_what_a_runtime_prints_does_not_spoil_the_reply(tmp_path: Path) -> None:
    command = fake_child(tmp_path, "os.write(1, b'runtime v1.2 loaded')\nprint('ready', flush=True)")
    assert measure([subject(tmp_path)], WORKLOAD, command=command)["model"].load_samples_ms


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is read in another way")
def test_peak_memory_is_the_childs_own(tmp_path: Path) -> None:
    ballast = b"x" * 300_000_000  # resident here; ru_maxrss of a child would show it
    found = measure([subject(tmp_path)], replace(WORKLOAD, rounds=1), command=fake_child(tmp_path))["model"]
    assert found.peak_rss_bytes[0] < len(ballast)


def test_a_folder_that_is_missing_and_a_name_used_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        measure([subject(tmp_path / "missing")], WORKLOAD)
    with pytest.raises(UsageError, match="different names"):
        measure([subject(tmp_path), subject(tmp_path)], WORKLOAD)


def test_warm_up_is_untimed_and_inputs_grow_to_each_length() -> None:
    seen: list[tuple[int, ...]] = []

    def load_predictor(target: str, folder: Path, threads: int, lengths: object) -> Callable[..., np.ndarray]:
        assert (target, folder, threads, lengths) == ("t", Path("f"), 1, [64])

        def predict(*inputs: np.ndarray) -> np.ndarray:
            assert len(inputs) == 2
            seen.append(inputs[0].shape)
            return np.zeros((1, 3))

        return predict

    imported: list[str] = []
    chosen = {
        "name": "m",
        "target": "t",
        "folder": "f",
        "inputs": ["input_ids", "attention_mask"],
        "lengths": [64],
    }
    request = json.loads(json.dumps({"subject": chosen, "workload": asdict(WORKLOAD)}))
    answer = run_child(request, imported.append, load_predictor)
    assert imported == ["t"]
    first, per_length = [(1, 4)], WORKLOAD.warmup + WORKLOAD.samples
    assert seen == first + [(1, 2)] * per_length + [(1, 4)] * per_length
    assert {length: len(samples) for length, samples in answer["samples_ms"].items()} == {2: 3, 4: 3}


def test_the_page_cache_is_dropped_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("model.bin", "inner/weights.bin"):
        (tmp_path / name).write_bytes(b"weights")
    advised: list[tuple[int, int, int]] = []
    monkeypatch.setattr(module.os, "POSIX_FADV_DONTNEED", 4, raising=False)
    monkeypatch.setattr(module.os, "posix_fadvise", lambda fd, *rest: advised.append(rest), raising=False)
    assert drop_page_cache(tmp_path) == "dropped"
    assert advised == [(0, 0, 4)] * 2

    def refuse(*arguments: int) -> None:
        raise OSError("not on this file system")

    monkeypatch.setattr(module.os, "posix_fadvise", refuse)
    assert drop_page_cache(tmp_path) == "warm"
    monkeypatch.delattr(module.os, "posix_fadvise")
    assert drop_page_cache(tmp_path) == "warm"


def onnx_model(folder: Path, weight: float) -> Path:
    """folder/model.onnx: logits = the sum over the attended tokens' rows of a table."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    names = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
            helper.make_node("Mul", ["rows", "weights"], ["attended"]),
            helper.make_node("ReduceSum", ["attended", "tokens"], ["logits"], keepdims=0),
        ],
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.full((10, 2), weight, dtype=np.float32), "table"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "tokens"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return folder


def test_a_real_onnx_file_is_measured_by_the_real_child(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    good = Subject("good", "onnx", str(onnx_model(tmp_path / "good", 0.5)), ("input_ids", "attention_mask"))
    found = measure([good], replace(WORKLOAD, rounds=1, batch_size=2))["good"]
    assert len(found.samples_ms[4]) == WORKLOAD.samples
    assert found.peak_rss_bytes[0] > found.baseline_rss_bytes[0]
    broken = Subject("broken", "onnx", str(onnx_model(tmp_path / "broken", math.nan)), good.inputs)
    with pytest.raises(CheckFailed, match=r"broken: .*exit code 1: logits that are not finite"):
        measure([broken], replace(WORKLOAD, rounds=1))
    (tmp_path / "good" / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(CheckFailed, match=r"good: .*model\.onnx"):
        measure([good], replace(WORKLOAD, rounds=1))


def test_a_file_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    body = "if target == 'crashes': os.kill(os.getpid(), 11)\nif target == 'hangs': time.sleep(60)"
    subjects = [subject(tmp_path, name) for name in ("crashes", "works", "hangs")]
    failures: dict[str, str] = {}
    found = measure(subjects, WORKLOAD, 4, fake_child(tmp_path, body), failures)
    assert list(found) == ["works"] and len(found["works"].load_samples_ms) == WORKLOAD.rounds
    assert "SIGSEGV" in failures["crashes"] and "did not finish within 4 s" in failures["hangs"]


def test_native_libraries_of_the_runtime_are_counted(tmp_path: Path) -> None:
    libraries = module_child._mapped_libraries()
    assert libraries is not None and any("numpy" in path for path in libraries)
    body = "import ctypes, importlib.util\nctypes.CDLL(importlib.util.find_spec('_sqlite3').origin)"
    found = measure([subject(tmp_path)], WORKLOAD, command=fake_child(tmp_path, body))["model"]
    assert found.runtime_bytes is not None and found.runtime_bytes > 10_000


def test_peak_memory_agrees_with_what_the_system_accounts(tmp_path: Path) -> None:
    """GNU time -v prints ru_maxrss, as wait4 gives it to a parent that is smaller than the child."""
    ballast = "ballast = bytearray(200_000_000)\nballast[::4096] = bytes(len(ballast[::4096]))"
    child = fake_child(tmp_path, ballast)
    request = {"subject": asdict(subject(tmp_path)), "workload": asdict(replace(WORKLOAD, evaluation=()))}
    (tmp_path / "request").write_text(f"{json.dumps(request)}\n[]\n")
    parent = (
        "import os, sys\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.dup2(os.open(sys.argv[1], os.O_RDONLY), 0)\n"
        "    os.execv(sys.argv[2], sys.argv[2:])\n"
        "_, status, usage = os.wait4(pid, 0)\n"
        "print(); print(usage.ru_maxrss)\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    command = [sys.executable, "-S", "-c", parent, str(tmp_path / "request"), *child]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    accounted = int(done.stdout.split()[-1])
    said = json.loads(done.stdout[: done.stdout.rindex("}") + 1])["peak_rss_bytes"]
    assert said > 200_000_000
    assert said == pytest.approx(accounted * 1024, rel=0.02)
