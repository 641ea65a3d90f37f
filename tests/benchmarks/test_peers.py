"""The comparison with other tools: its child, rows that say why, and a page made from the JSON alone."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stillroom.errors import CheckFailed, UsageError
from stillroom.files import read_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS, LOOPS = ROOT / "docs" / "results" / "peers.json", ROOT / "docs" / "throughput.json"
# What a child of ours does, with loaders that break as runtimes do.
BROKEN = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from time_one import LOADERS, Loader, main

def crash(path, threads):
    os.abort()

def fail(path, threads):
    raise RuntimeError("an operator that is not there | twice")

def hang(path, threads):
    time.sleep(600)

def wrong(path, threads):
    return lambda ids, mask, types: np.full((1, 2), np.nan, np.float32)

def count(path, threads):
    return lambda ids, mask, types: np.array([[mask.sum(), threads]], np.float32)

main({**LOADERS, **{f.__name__: Loader((), (), f) for f in (crash, fail, hang, wrong, count)}})
"""
WORKLOAD = {"threads": (2, 1), "lengths": (4, 8), "rounds": 2, "samples": 3, "warmup": 1}


@pytest.fixture(scope="module")
def peers() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "docs" / "experiments"))  # as for a script that is run
    yield importlib.import_module("measure_peers")
    sys.path.remove(str(ROOT / "docs" / "experiments"))


@pytest.fixture
def child(tmp_path: Path, peers: ModuleType) -> list[str]:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN, encoding="utf-8")
    return [str(script), str(peers.FOLDER)]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "inputs.npz"
    np.savez(
        path, timed_ids=np.arange(8, dtype=np.int32), test_ids=np.arange(6, dtype=np.int32),
        test_offsets=np.array([0, 2, 6]), test_labels=np.array([0, 1]),
        student_logits=np.array([[2.0, 1.0], [1.0, 2.0]], np.float32),
    )  # fmt: skip
    return path


def measured(peers: ModuleType, loaders: list[str], inputs: Path, child: list[str], timeout_s: float) -> Any:
    rows = [replace(peers.EMPTY, name=loader, loader=loader) for loader in loaders]
    return peers.measure_peers(dict.fromkeys(loaders, ""), rows, WORKLOAD, inputs, timeout_s, child)


def test_a_trivial_predictor_is_timed(peers: ModuleType, inputs: Path, child: list[str]) -> None:
    found = measured(peers, ["count"], inputs, child, 120)["count"]
    assert found["logits"] == [[2, 2], [4, 2]]  # all tokens of each test row, and the threads first asked for
    assert {threads: len(rounds) for threads, rounds in found["rounds"].items()} == {"2": 2, "1": 2}
    for reply in (reply for rounds in found["rounds"].values() for reply in rounds):
        assert {length: len(row) for length, row in reply["samples_ms"].items()} == {"4": 3, "8": 3}
        assert reply["peak_rss_bytes"] >= reply["baseline_rss_bytes"] > 1e6


def test_one_that_breaks_is_a_row_that_says_why(peers: ModuleType, inputs: Path, child: list[str]) -> None:
    found = measured(peers, ["crash", "fail", "wrong", "count"], inputs, child, 120)
    assert "its process ended with Aborted" in found["crash"]["reason"]
    assert found["fail"]["reason"].endswith("RuntimeError: an operator that is not there | twice")
    assert "not finite, at 8 tokens" in found["wrong"]["reason"]
    assert len(found["count"]["rounds"]["1"]) == 2  # the rest goes on


def test_one_that_hangs_is_stopped(peers: ModuleType, inputs: Path, child: list[str]) -> None:
    found = measured(peers, ["hang"], inputs, child, 3)
    assert found == {"hang": {"reason": "its process did not finish within 3 s and was stopped"}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"samples_ms": {"4": [1.0]}}, "other lengths"),
        ({"samples_ms": {"4": [1.0], "8": [1.0, 1.0]}}, "another number of samples"),
        ({"load_ms": float("nan")}, "not a positive number"),
        ({"logits": None}, "something other"),
    ],
)
def test_a_reply_that_is_none(peers: ModuleType, change: dict[str, Any], why: str, tmp_path: Path) -> None:
    reply = {
        "import_ms": 1.0, "load_ms": 1.0, "first_ms": 1.0, "peak_rss_bytes": 2, "baseline_rss_bytes": 1,
        "samples_ms": {"4": [1.0], "8": [1.0]}, "logits": [], "versions": {},
    }  # fmt: skip
    asked = {"lengths": (4, 8), "samples": 1}
    script = tmp_path / "answer.py"

    def answered(given: dict[str, Any]) -> Any:
        script.write_text(f"print({json.dumps(given)!r})", encoding="utf-8")
        return peers.run_one([sys.executable, str(script)], asked, 60)

    assert answered(reply) == reply
    with pytest.raises(CheckFailed, match=why):
        answered({**reply, **change})


def test_children_import_nothing_of_ours(peers: ModuleType) -> None:
    for name in ("time_one", "convert_optimum", "convert_ort", "convert_openvino", "convert_litert"):
        source = (peers.FOLDER / f"{name}.py").read_text(encoding="utf-8")
        assert "import stillroom" not in source and "from stillroom" not in source


def test_conversion_that_fails_is_a_row(peers: ModuleType, tmp_path: Path, inputs: Path) -> None:
    (peer,) = (peer for peer in peers.PEERS if peer.name == "torch int8 dynamic")
    made = peers.make_all([peer], tmp_path / "no-run", tmp_path / "models", inputs)[peer.name]
    assert "its conversion ended with exit code 1" in made["reason"]
    assert made["command"].startswith(".venv/bin/python docs/experiments/peers/convert_torch.py")
    missing = replace(peer, environment="not-there")
    made = peers.make_all([missing], tmp_path / "no-run", tmp_path / "models", inputs)[peer.name]
    assert made["reason"].endswith("make build/peers/not-there/installed")


def test_the_page_is_what_the_results_render(peers: ModuleType, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    page = tmp_path / "benchmarks.md"
    begin, end = "<!-- peers:begin -->", "<!-- peers:end -->"
    page.write_text(text.split(begin)[0] + begin + "\nold\n" + end + text.split(end)[1], encoding="utf-8")
    peers.update_page(page, read_json(RESULTS), read_json(LOOPS))
    assert page.read_text(encoding="utf-8") == text
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(UsageError, match="expected one"):
        peers.update_page(page, read_json(RESULTS), read_json(LOOPS))


def test_every_peer_has_a_row_whether_measured_or_not(peers: ModuleType) -> None:
    results = read_json(RESULTS)
    assert [name for name in results["peers"] if name != peers.NOTHING] == [p.name for p in peers.PEERS]
    rendered = importlib.import_module("peers.page").main_table
    name = "LiteRT fp32"
    reason = "it ended with exit code 1: a | b\n<c>"
    results["peers"][name] = {"status": "not converted", "reason": reason, "environment": "", "settings": ""}
    lines = {line.split("|")[1].strip(): line for line in rendered(results).splitlines()}
    assert all(peer.name in lines for peer in peers.PEERS)
    assert "not converted: it ended with exit code 1: a / b &lt;c>" in lines[name]
    assert len({line.count("|") for line in lines.values()}) == 1


def test_figures_are_those_of_the_raw_samples(peers: ModuleType) -> None:
    results = read_json(RESULTS)
    rounds = results["workload"]["rounds"]
    for name, peer in results["peers"].items():
        if peer["status"] != "measured":
            continue
        for facts in peer["threads"].values():
            for length, row in facts["samples_ms"].items():
                assert len(row) == rounds * results["workload"]["samples"]
                assert np.median(row) == pytest.approx(facts["latency_ms"][length]["p50"])
        if name != peers.NOTHING and "answers" in peer:
            assert len(peer["answers"]) == results["test_rows"]
    aa = results["peers"]["stillroom onnx int8-dynamic"]["threads"]["2"]
    assert aa["latency_ms"]["64"] == peers.latency(aa["samples_ms"]["64"], rounds)
