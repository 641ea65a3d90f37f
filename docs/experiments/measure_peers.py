"""Our files beside other tools', in one run: make peers, or python docs/experiments/measure_peers.py

The same student, texts, token ids and threads for all. Every peer's files are made in its own environment
(peers/table.py says how) and kept below build/peers/models by the student's sha256, so that a repeat only
measures. Each is then timed in fresh processes of its own environment, all peers in turn, round by round.
Writes docs/results/peers.json, raw samples and all, and the tables of docs/benchmarks.md. A peer that could
not be made, crashed or hung stays as a row that says why.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers.convert import LENGTHS, make_all, prepare_inputs, run_to_end
from peers.page import update_page
from peers.table import FOLDER, NOTHING, PEERS, ROOT, Peer

from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.statistics import latency
from stillroom.errors import CheckFailed, StillroomError, UsageError
from stillroom.files import read_json, sha256_file, write_json
from stillroom.progress import progress_bar, say

KEPT, PAGE = ROOT / "docs" / "results" / "peers.json", ROOT / "docs" / "benchmarks.md"
THREADS = (2, 1)
CHILD = (str(FOLDER / "time_one.py"),)
EMPTY = Peer(NOTHING, "", "", "", "nothing", ("",), "an empty predictor: what the clock itself takes")


def measure_peers(
    opened: dict[str, str],
    peers: Sequence[Peer],
    workload: dict[str, Any],
    inputs: Path,
    timeout_s: float,
    child: Sequence[str] = CHILD,
) -> dict[str, dict[str, Any]]:
    """Peer -> {"rounds": threads -> one reply a round} or {"reason": why it has none}.

    opened: peer -> the file it opens. workload: rounds, threads, lengths, warmup, samples. Each round begins
    with another peer, so that a machine which slows down does so for all. The first process of a peer also
    answers every test row. A peer that failed once is not started again.
    """
    found: dict[str, dict[str, Any]] = {peer.name: {"rounds": {}} for peer in peers}
    steps = [(at, threads) for at in range(workload["rounds"]) for threads in workload["threads"]]
    with progress_bar(len(steps) * len(peers), "measuring", "process") as bar:
        for at, (round_index, threads) in enumerate(steps):
            start = round_index % len(peers)
            for peer in (*peers[start:], *peers[:start]):
                kept = found[peer.name]
                bar.update()
                if "reason" in kept:
                    continue
                request = {
                    "loader": peer.loader, "file": opened[peer.name], "threads": threads,
                    "inputs": str(inputs), "answers": at == 0 and not peer.again and peer.name != NOTHING,
                    **{key: workload[key] for key in ("lengths", "warmup", "samples")},
                }  # fmt: skip
                try:
                    reply = run_one([str(peer.python), "-P", *child], request, timeout_s)
                except CheckFailed as error:
                    found[peer.name] = {"reason": str(error)}
                    continue
                kept.setdefault("logits", reply.pop("logits"))
                kept["versions"] = reply.pop("versions")
                kept["rounds"].setdefault(str(threads), []).append(reply)
    return found


def run_one(command: Sequence[str], request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """One fresh process's reply. Raises CheckFailed when it crashes, hangs or answers something else."""
    printed = run_to_end(command, json.dumps(request), timeout_s, "its process")
    try:
        reply: dict[str, Any] = json.loads(printed)
        rows = reply["samples_ms"]
        numbers = [value for row in rows.values() for value in row]
        numbers += [reply[key] for key in ("load_ms", "first_ms", "peak_rss_bytes", "baseline_rss_bytes")]
        if set(rows) != {str(length) for length in request["lengths"]}:
            raise ValueError("other lengths than asked for")
        if {len(row) for row in rows.values()} != {request["samples"]}:
            raise ValueError("another number of samples than asked for")
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError("a measurement is not a positive number")
        reply["logits"], reply["versions"] = list(reply["logits"]), dict(reply["versions"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckFailed(f"its process printed something other than its measurements: {error}") from None
    return reply


def facts_of(peer: Peer, found: dict[str, Any], arrays: Any, rounds: int) -> dict[str, Any]:
    """What the results file keeps of one measured peer. Times are milliseconds."""
    facts: dict[str, Any] = {"versions": found["versions"], "threads": {}}
    if found["logits"]:
        logits = np.asarray(found["logits"], dtype=np.float64)
        answers, student = logits.argmax(axis=1), arrays["student_logits"]
        facts |= {
            "answers": "".join(str(answer) for answer in answers),
            "accuracy": float((answers == arrays["test_labels"]).mean()),
            "flips": int((answers != student.argmax(axis=1)).sum()),
            "max_abs_error": float(np.abs(logits - student).max()),
        }
    for threads, replies in found["rounds"].items():
        samples = {
            length: [round(ms, 5) for reply in replies for ms in reply["samples_ms"][length]]
            for length in replies[0]["samples_ms"]
        }
        facts["threads"][threads] = {
            "latency_ms": {length: latency(row, rounds) for length, row in samples.items()},
            "samples_ms": samples,
            **{
                key: [reply[key] for reply in replies]
                for key in ("import_ms", "load_ms", "first_ms", "peak_rss_bytes", "baseline_rss_bytes")
            },
        }
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "demo", help="finished run (runs/demo)")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each peer, per threads (5)")
    parser.add_argument("--samples", type=int, default=30, help="timed calls per length and process (30)")
    parser.add_argument("--warmup", type=int, default=5, help="untimed calls before them (5)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one process (300)")
    parser.add_argument("--only", action="append", default=[], help="a peer by name; may be repeated")
    parser.add_argument("--out", type=Path, default=KEPT, help="results (docs/results/peers.json)")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose tables are made anew")
    parser.add_argument("--render", action="store_true", help="only the page, from results that are there")
    asked = parser.parse_args()
    try:
        if not asked.render:
            write_json(asked.out, measured(asked))
        update_page(asked.page, read_json(asked.out), read_json(ROOT / "docs" / "throughput.json"))
    except StillroomError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    say(f"{asked.out} and the tables of {asked.page} are written")


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """Make, measure; everything that the results file holds. Raises UsageError for a wrong request."""
    unknown = [name for name in asked.only if name not in [peer.name for peer in PEERS]]
    if unknown:
        names = ", ".join(peer.name for peer in PEERS)
        raise UsageError(f"no peer {unknown[0]!r}: there are {names}")
    if min(asked.rounds, asked.samples) < 1 or asked.warmup < 0:
        raise UsageError("--rounds and --samples must be at least 1, --warmup at least 0")
    chosen = [peer for peer in PEERS if not asked.only or peer.name in asked.only]
    run = asked.run.resolve()
    weights = run / "student" / "model.safetensors"
    if not weights.is_file():
        raise UsageError(f"no {weights}: make demo")
    sha256 = sha256_file(weights)
    folder = ROOT / "build" / "peers" / "models" / sha256[:16]
    begun = time.monotonic()
    inputs = prepare_inputs(run, folder)
    made = make_all(chosen, run, folder, inputs)
    converted_s = time.monotonic() - begun
    ready = [peer for peer in chosen if "reason" not in made[peer.name]]
    opened = {
        peer.name: str((folder / peer.made_as.replace(" ", "-") / peer.ships[0]).resolve()) for peer in ready
    }
    workload = {
        "threads": THREADS, "lengths": LENGTHS, "rounds": asked.rounds,
        "samples": asked.samples, "warmup": asked.warmup,
    }  # fmt: skip
    machine, begun = describe_machine(max(THREADS)), time.monotonic()
    found = measure_peers({**opened, NOTHING: ""}, [*ready, EMPTY], workload, inputs, asked.timeout)
    arrays = np.load(inputs, allow_pickle=False)
    peers: dict[str, dict[str, Any]] = {}
    for peer in (*chosen, EMPTY):
        about = {
            "environment": peer.environment or "this project's own", "settings": peer.settings,
            "loader": peer.loader, **{k: v for k, v in made.get(peer.name, {}).items() if k != "made_from"},
        }  # fmt: skip
        if "reason" in about:
            peers[peer.name] = {"status": "not converted", **about}
        elif "reason" in found[peer.name]:
            peers[peer.name] = {"status": "not measured", **about, **found[peer.name]}
        else:
            kept = facts_of(peer, found[peer.name], arrays, asked.rounds)
            peers[peer.name] = {"status": "measured", **about, **kept}
    for peer in chosen:
        shared = {key: peers.get(peer.made_as, {}).get(key) for key in ("accuracy", "flips", "max_abs_error")}
        if peer.again and peers[peer.name]["status"] == "measured":
            peers[peer.name] |= shared
    return {
        "schema_version": 1, "machine": machine, "student_sha256": sha256,
        "inputs_sha256": sha256_file(inputs), "test_rows": len(arrays["test_labels"]),
        "calibration_rows": len(arrays["calibration_offsets"]) - 1, "workload": workload,
        "seconds": {"converting": converted_s, "measuring": time.monotonic() - begun}, "peers": peers,
    }  # fmt: skip


if __name__ == "__main__":
    main()
