"""Makes every peer's files, each in its own environment, and keeps them by the student they are of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers.table import FOLDER, PLAIN, ROOT, Peer

from stillroom.errors import CheckFailed, UsageError
from stillroom.files import read_json, sha256_file, sha256_of, size_of, staged_folder, write_json
from stillroom.observe import ROWS
from stillroom.splits import load_splits
from stillroom.step_data import encode_for
from stillroom.student import load_student
from stillroom.tokens import spread_rows

LENGTHS = (64, 128)
DONE = "made.json"
CONVERSION_TIMEOUT_S = 1800
TOOLS = ("optimum", "optimum_onnx", "nncf", "litert_torch", "ai_edge_quantizer", "onnxruntime", "torch")
# No runtime shall call home, and none shall look for files that the hub may have.
QUIET = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "CI": "true"}


def prepare_inputs(run: Path, folder: Path) -> Path:
    """Write folder/inputs.npz: what every peer gets, encoded once by our tokenizer. Returns its path.

    timed_ids [128], test_ids flat with test_offsets [rows + 1], test_labels [rows], the same of calibration
    (training rows, evenly spread), student_logits float32 [rows, labels] of the fp32 student.
    Raises UsageError when the run is not finished or its parts do not belong together.
    """
    student = run / "student"
    task = load_student(student).task
    if task.kind != "text-classification" or task.pair:
        raise UsageError(f"{run}: a {task.kind} run; peers are compared on single-text classification")
    splits = load_splits(run / "data")
    test = encode_for(student, task, splits.test)
    chosen = [splits.train[at] for at in spread_rows(len(splits.train), ROWS)]
    calibration = encode_for(student, task, chosen)
    logits = np.load(student / "test_logits.npy", allow_pickle=False)
    if len(logits) != len(test):
        raise UsageError(
            f"{student}: logits of {len(logits)} test rows, the split has {len(test)}; run it again"
        )
    # Whole texts one after the other, so that every length is of real text.
    at = int(np.searchsorted(test.offsets, max(LENGTHS)))
    path = folder / "inputs.npz"
    with staged_folder(folder / "inputs") as partial:
        np.savez(
            partial / "inputs.npz", timed_ids=test.ids[: test.offsets[at]][: max(LENGTHS)],
            test_ids=test.ids, test_offsets=test.offsets, test_labels=test.labels, student_logits=logits,
            calibration_ids=calibration.ids, calibration_offsets=calibration.offsets,
        )  # fmt: skip
        path = folder / "inputs" / "inputs.npz"
    return path


def make_all(peers: Sequence[Peer], run: Path, folder: Path, inputs: Path) -> dict[str, dict[str, Any]]:
    """Every peer's files below folder: name -> made (size_bytes, seconds, command) or why it was not made.

    What is there and was made by the same scripts from the same inputs is not made again.
    """
    found: dict[str, dict[str, Any]] = {}
    # What others start from comes first.
    for peer in sorted(peers, key=lambda peer: peer.name != PLAIN):
        if peer.again:
            continue
        try:
            found[peer.name] = make(peer, run, folder, inputs)
        except CheckFailed as error:
            found[peer.name] = {"reason": str(error), "command": shown_command(peer)}
    return {peer.name: found[peer.made_as] for peer in peers}


def make(peer: Peer, run: Path, folder: Path, inputs: Path) -> dict[str, Any]:
    """One peer's files in folder/<its name>. Raises CheckFailed with the converter's last words."""
    out = folder / peer.name.replace(" ", "-")
    script = FOLDER / peer.converter
    made_from = {
        "script": sha256_file(script), "inputs": sha256_file(inputs), "scheme": peer.scheme,
        "packages": packages_of(peer.python),
    }  # fmt: skip
    if (out / DONE).is_file():
        known: dict[str, Any] = read_json(out / DONE)
        if known["made_from"] == made_from:
            return known
    if not peer.python.is_file():
        raise CheckFailed(f"no {shortened(str(peer.python))}: make build/peers/{peer.environment}/installed")
    with staged_folder(out) as partial:
        request = {
            "scheme": peer.scheme, "student": str(run / "student"), "inputs": str(inputs),
            "plain": str(folder / PLAIN.replace(" ", "-")), "lengths": LENGTHS, "out": str(partial),
        }  # fmt: skip
        command = [str(peer.python), str(script)]
        run_to_end(command, json.dumps(request), CONVERSION_TIMEOUT_S, "its conversion")
        missing = [name for name in peer.ships if not (partial / name).exists()]
        if missing:
            raise CheckFailed(f"its converter ended well but wrote no {missing[0]}")
        facts = {
            "command": shown_command(peer), "size_bytes": sum(size_of(partial / name) for name in peer.ships),
            "converted_with": [name for name in made_from["packages"] if name.rpartition("-")[0] in TOOLS],
            "sha256": sha256_of(partial / peer.ships[0]),
            "made_from": made_from,
        }  # fmt: skip
        write_json(partial / DONE, facts)
    return facts


def packages_of(python: Path) -> list[str]:
    """Names and versions of what an environment holds, as its folders of metadata are named."""
    return sorted(
        folder.stem for folder in python.parent.parent.glob("lib/python*/site-packages/*.dist-info")
    )


def shown_command(peer: Peer) -> str:
    """What converts a peer, from the root of a clone."""
    python = f"build/peers/{peer.environment}/bin/python" if peer.environment else ".venv/bin/python"
    return f"{python} docs/experiments/peers/{peer.converter} ({peer.scheme})"


def run_to_end(command: Sequence[str], given: str, timeout_s: float, what: str) -> str:
    """Standard output of a command. Raises CheckFailed when it fails or does not end: what, and why."""
    try:
        process = subprocess.run(
            command, input=given, capture_output=True, encoding="utf-8", errors="replace",
            timeout=timeout_s, env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"{what} did not finish within {timeout_s:g} s and was stopped") from None
    except OSError as error:
        raise CheckFailed(f"{what} could not be started: {error.strerror}") from None
    if process.returncode:
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        last = shortened(lines[-1]) if lines else "nothing on standard error"
        code = process.returncode
        ending = f"exit code {code}" if code > 0 else signal.strsignal(-code) or f"signal {-code}"
        raise CheckFailed(f"{what} ended with {ending}: {last}")
    return process.stdout


def environment() -> dict[str, str]:
    """The variables of every child: ours, without those that set a runtime's threads behind its back."""
    return {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")} | QUIET


def shortened(text: str) -> str:
    """A line for the record: paths of this checkout from its root, at most 300 characters."""
    return text.replace(f"{ROOT}/", "")[:300]
