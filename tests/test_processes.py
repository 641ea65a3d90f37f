"""Two processes train what one would: same rows, same losses, one writer; stopped and started at will."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from stillroom.cli import main
from stillroom.distill.train import combine, share_of
from stillroom.files import sha256_file
from stillroom.processes import run_processes

# Dropout draws other numbers in other processes; without it two processes compute what one does.
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LEARNING = ("teacher.epochs=8", "student.epochs=6", "teacher.batch_size=20", "student.batch_size=20",
            "teacher.learning_rate=3e-3", "student.learning_rate=1e-3",
            "teacher.freeze_word_embeddings=false")  # fmt: skip


@pytest.fixture(scope="module")
def given_files(
    tmp_path_factory: pytest.TempPathFactory,
    make_model_folder: Callable[..., Path],
    review_csv: Callable[..., Path],
) -> tuple[Path, Path]:
    """(data file, model folder)"""
    folder = tmp_path_factory.mktemp("given")
    # Rows that batches of 20 do not divide: the last batch of an epoch is short.
    return review_csv(folder / "reviews.csv", 118), make_model_folder(folder / "my-bert", **NO_DROPOUT)


def arguments(given_files: tuple[Path, Path], out: Path, *more: str, **keys: Any) -> list[str]:
    data, folder = given_files
    settings = [*LEARNING, "checkpoint_every_s=0", *(f"{key}={value}" for key, value in keys.items())]
    return ["demo", "--data", str(data), "--text-column", "review", "--label-column", "stars",
            "--teacher", str(folder), "--out", str(out), *more,
            *(word for assignment in settings for word in ("--set", assignment))]  # fmt: skip


def stillroom(*words: str, processes: int = 1) -> list[str]:
    several = ["--num-processes", str(processes)] if processes != 1 else []
    return [sys.executable, "-m", "stillroom", "distill", *words, *several]


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def done(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ONE_THREAD, timeout=240)


@pytest.fixture(scope="module")
def alone(given_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    done(stillroom(*arguments(given_files, out)))
    return out


@pytest.fixture(scope="module")
def two(given_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "run"
    found = done(stillroom(*arguments(given_files, out), "--json", processes=2))
    assert found.stderr.count("2 processes train together") == found.stderr.count("student ...") == 1
    assert "Traceback" not in found.stderr
    assert set(json.loads(found.stdout)) == {"teacher", "student", "student_folder"}  # one document, not two
    return out


def lineage(out: Path, model: str) -> dict[str, Any]:
    return dict(json.loads((out / model / "stillroom.json").read_text())["lineage"]["training"])


@pytest.mark.parametrize("model", ["teacher", "student"])
def test_two_processes_have_the_losses_of_one(alone: Path, two: Path, model: str) -> None:
    single, double = lineage(alone, model), lineage(two, model)
    # bf16 rounds sums that are split otherwise to neighbours, no more.
    assert double["epoch_losses"] == pytest.approx(single["epoch_losses"], rel=5e-3)
    assert single["epoch_losses"][-1] < 0.95 * single["epoch_losses"][0]  # what they agree on is learning
    assert double["steps"] == single["steps"] and double["rows"] == single["rows"]


def test_two_processes_write_one_run(alone: Path, two: Path) -> None:
    def names(out: Path) -> set[str]:
        return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}

    assert names(alone) == names(two)


def test_another_launcher_is_the_same(given_files: tuple[Path, Path], two: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done([*launch, "-m", "stillroom.distill", *arguments(given_files, tmp_path / "run")])
    for model in ("teacher", "student"):
        ours, theirs = (load_file(out / model / "model.safetensors") for out in (two, tmp_path / "run"))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def stopped(command: list[str], out: Path, how: signal.Signals, group: bool) -> subprocess.Popen[bytes]:
    """Run a command until its student has a checkpoint, then send the signal."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=ONE_THREAD, start_new_session=True)
    checkpoints = out / ".stillroom" / "work" / "student" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*[1-9]")):
        assert process.poll() is None and time.monotonic() < deadline, "ended before it could be stopped"
        time.sleep(0.002)
    (os.killpg if group else os.kill)(process.pid, how)
    return process


def test_killed_with_two_and_resumed_with_two_is_bit_identical(
    given_files: tuple[Path, Path], two: Path, tmp_path: Path
) -> None:
    command = stillroom(*arguments(given_files, tmp_path / "run"), processes=2)
    stopped(command, tmp_path / "run", signal.SIGKILL, group=True).communicate(timeout=60)
    assert not (tmp_path / "run" / "student").exists()
    assert "going on from step" in done(command).stderr
    for model in ("teacher", "student"):
        whole, resumed = (out / model / "model.safetensors" for out in (two, tmp_path / "run"))
        assert sha256_file(whole) == sha256_file(resumed)


def test_sigterm_saves_and_another_number_of_processes_goes_on(
    given_files: tuple[Path, Path], alone: Path, tmp_path: Path
) -> None:
    two_of_them = stillroom(*arguments(given_files, tmp_path / "run"), processes=2)
    process = stopped(two_of_them, tmp_path / "run", signal.SIGTERM, group=False)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"which is saved; the same command goes on from here" in said and b"Traceback" not in said
    assert "going on from step" in done(stillroom(*arguments(given_files, tmp_path / "run"))).stderr
    losses, wanted = (lineage(out, "student")["epoch_losses"] for out in (tmp_path / "run", alone))
    assert losses == pytest.approx(wanted, rel=5e-3)


def test_sigterm_saves_what_no_checkpoint_had(given_files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    seldom = stillroom(*arguments(given_files, out, checkpoint_every_s=1e6, **{"teacher.epochs": 5000}))
    process = subprocess.Popen(seldom, stderr=subprocess.PIPE, env=ONE_THREAD)
    work = out / ".stillroom" / "work"
    deadline = time.monotonic() + 120
    while not (out / "data").is_dir():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    said = b""
    while process.stderr is not None and b"teacher:" not in said:  # its bar: training has begun
        said += process.stderr.read1()  # type: ignore[attr-defined]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert len(list((work / "teacher" / "checkpoints").glob("step-*"))) == 1


def test_they_part_before_they_end() -> None:
    """Else gloo's threads are still there when Python ends, and abort the process now and then."""
    program = """
import atexit, os, torch.distributed
def say(words):  # in one write: both processes have the same pipe, and print may take several
    os.write(1, (words + "\\n").encode())
atexit.register(lambda: say(f"parted {not torch.distributed.is_initialized()}"))
from stillroom.processes import told_by_first
say(f"{told_by_first('here')} {torch.distributed.is_initialized()}")
"""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert sorted(done([*launch, "--no-python", sys.executable, "-c", program]).stdout.splitlines()) == [
        "here True",
        "here True",
        "parted True",
        "parted True",
    ]


def test_a_mistake_is_told_once(given_files: tuple[Path, Path], tmp_path: Path) -> None:
    words = arguments(given_files, tmp_path / "run", "--label-column", "absent")
    command = stillroom(*words, processes=2)
    found = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, timeout=240)
    assert found.returncode == 2
    assert found.stderr.count("no column 'absent'") == 1 and "Traceback" not in found.stderr


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_processes_that_cannot_be(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "demo", f"--num-processes={count}"]) == 2
    assert f"--num-processes {count}: expected 1 or more" in capsys.readouterr().err


def test_exit_code_of_a_process_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stillroom.py").write_text(
        "import os, sys, time\nif os.environ['RANK'] == '1':\n    sys.exit(7)\ntime.sleep(0.5)"
    )
    monkeypatch.chdir(tmp_path)  # `python -m stillroom` finds this one first
    assert run_processes(2, []) == 7


@given(st.integers(1, 70), st.integers(1, 9))
def test_shares_are_the_batch(rows: int, processes: int) -> None:
    batch = np.random.default_rng(0).permutation(1000)[:rows]
    shares = [share_of(batch, rank, processes) for rank in range(processes)]
    counted = np.concatenate([mine for mine, counts in shares if counts])
    assert sorted(counted) == sorted(batch)
    assert all(len(mine) for mine, _ in shares)  # every process must take part in the averaging
    sizes = [len(mine) for mine, _ in shares]
    assert max(sizes) - min(sizes) <= 1


class Several:
    """Stands for an Accelerator: what all processes would reduce to, given what the others hold."""

    def __init__(self, count: int, others: torch.Tensor) -> None:
        self.num_processes, self.others, self.device = count, others, torch.device("cpu")

    def reduce(self, here: torch.Tensor, how: str) -> torch.Tensor:
        return here + self.others if how == "sum" else here


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(-5, 5)), min_size=2, max_size=5))
def test_the_mean_of_the_processes_losses_is_the_mean_over_the_batch(
    shares: list[tuple[int, float]],
) -> None:
    total = sum(count for count, _ in shares)
    wanted = sum(count * mean for count, mean in shares) / total
    losses = []
    for count, mean in shares:
        others = torch.tensor([total - count, 0], dtype=torch.float64)
        machinery: Any = Several(len(shares), others)
        loss, _, stop = combine({"x": (torch.tensor(mean), count)}, True, False, machinery)
        losses.append(loss.item())
        assert not stop
    assert np.mean(losses) == pytest.approx(wanted, abs=1e-5)
