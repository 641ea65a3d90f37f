"""stillroom bench --target adb: exported files on a real device, interleaved, and nothing left on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import stillroom
from stillroom.benchmarks.phone.adb_client import Device, DeviceGone, choose_devices, find_adb, one_line
from stillroom.benchmarks.phone.adb_device import DeviceState, choose_cores, device_facts, device_state
from stillroom.benchmarks.phone.adb_folder import (
    device_folder,
    push_checked,
    require_device_space,
    run_request,
)
from stillroom.benchmarks.phone.adb_runner import Reply, Request, Runner, texts_of
from stillroom.benchmarks.phone.adb_tables import adb_text
from stillroom.benchmarks.phone.jobs import Job, agreement_of, prepare_jobs
from stillroom.benchmarks.statistics import latency
from stillroom.errors import CheckFailed, UsageError
from stillroom.progress import progress_bar, say

SCHEMA_VERSION = 1
SLOWER = 1.05  # late samples beside early ones: less is not told apart from noise


@dataclass(frozen=True)
class AdbPlan:
    """What is asked. rounds: fresh processes per file and length. samples, warmup: calls in each.

    cores: "big", "little" or "any". emulated: the device is an emulator whatever it says. timeout_s: per
    process. server_port: a private port for adb's server, None for adb's own.
    """

    lengths: tuple[int, ...] = (64, 128)
    rounds: int = 3
    samples: int = 20
    warmup: int = 3
    threads: int = 1
    cores: str = "big"
    emulated: bool = False
    timeout_s: float = 120
    server_port: int | None = None


def bench_adb(
    folders: Sequence[Path], serials: Sequence[str], plan: AdbPlan, runner: Runner
) -> tuple[str, dict[str, Any]]:
    """Run every file on the devices with these serials, one after the other; none: the only one connected.

    A table for people and one JSON document with the raw samples. A file that crashes or hangs has a row that
    says why, a device that fails among several has an entry that does; the rest goes on.
    Raises UsageError without adb or a ready device and for wrong folders, CheckFailed when the only device
    fails: unplugged, full, or not what it was.
    """
    for field in ("rounds", "samples", "threads"):
        if getattr(plan, field) < 1:
            raise UsageError(f"{field} is {getattr(plan, field)}, at least 1 is needed")
    if not plan.lengths or min(plan.lengths) < 1 or plan.warmup < 0:
        raise UsageError("lengths of at least 1 token and a warmup of at least 0 calls are needed")
    devices = choose_devices(find_adb(plan.server_port), serials)
    jobs, skipped = prepare_jobs(folders, plan.lengths)
    entries = []
    for device in devices:
        try:
            entries.append(bench_device(device, jobs, plan, runner))
        except (CheckFailed, UsageError) as error:
            if len(devices) == 1:
                raise
            entries.append({"error": one_line(str(error), 600)})
    document = {
        "schema_version": SCHEMA_VERSION,
        "stillroom_version": stillroom.__version__,
        "plan": {**asdict(plan), "lengths": list(plan.lengths)},
        "skipped": skipped,
        "devices": entries,
    }
    return adb_text(document), document


def bench_device(device: Device, jobs: Sequence[Job], plan: AdbPlan, runner: Runner) -> dict[str, Any]:
    """One device's entry in the document. Raises CheckFailed or UsageError when the device fails."""
    facts = device_facts(device, plan.emulated)
    pinning = choose_cores(facts, plan.cores, plan.threads)
    asked = [job for job in jobs if not job.reason]
    models = {f"{at}.onnx": job.artifact.path for at, job in enumerate(jobs) if not job.reason}
    pushed = {**runner.files, **models}
    left_behind: list[str] = []
    replies: dict[str, list[dict[int, Reply]]] = {job.name: [] for job in asked}
    failures: dict[str, str] = {}
    agreements: dict[str, dict[str, Any]] = {}
    try:
        require_device_space(device, facts.free_bytes, sum(path.stat().st_size for path in pushed.values()))
        with device_folder(device, left_behind) as folder:
            verified = push_checked(device, pushed, folder, has_sha256sum=facts.has_sha256sum)
            before = device_state(device)
            at = {job.name: f"{at}.onnx" for at, job in enumerate(jobs)}

            def run(job: Job, request: Request) -> Reply:
                labels = len(job.artifact.task.labels)
                model = at[job.name]
                return run_request(
                    device, folder, runner, model, request, labels, pinning.mask, plan.timeout_s
                )

            with progress_bar(len(asked) * plan.rounds, "measuring", "process") as bar:
                for round_index in range(plan.rounds):
                    for job in in_turn(asked, round_index):
                        bar.update()
                        if job.name in failures:
                            continue
                        try:
                            if round_index == 0 and job.goldens:
                                reply = run(job, golden_request(job))
                                agreements[job.name] = agreement_of(job, reply)
                            found = {
                                length: run(job, timed_request(job, length, plan)) for length in plan.lengths
                            }
                            replies[job.name].append(found)
                        except DeviceGone:
                            raise
                        except CheckFailed as error:
                            failures[job.name] = one_line(str(error), 400)
            after = device_state(device)
    except (CheckFailed, UsageError) as error:
        if left_behind:
            raise type(error)(f"{error}; {'; '.join(left_behind)}") from None
        raise
    except KeyboardInterrupt:
        for sentence in left_behind:
            say(sentence)
        raise
    rows = [
        row_of(job, replies.get(job.name, []), failures.get(job.name, job.reason), agreements.get(job.name),
               emulated=facts.emulated)
        for job in jobs
    ]  # fmt: skip
    return {
        "device": facts.to_dict(),
        "emulated": facts.emulated,
        "cores": pinning.words,
        "pinned_cores": list(pinning.cores),
        "threads": plan.threads,
        "copies_checked_by": verified,
        "state_before": asdict(before),
        "state_after": asdict(after),
        "notes": [*device_notes(facts.emulated_because, verified, before, after), *left_behind],
        "error": None,
        "rows": rows,
    }


def in_turn(jobs: Sequence[Job], round_index: int) -> list[Job]:
    """The order of one round: begun at another file each round, so that heat hits all alike."""
    start = round_index % len(jobs) if jobs else 0
    return [*jobs[start:], *jobs[:start]]


def golden_request(job: Job) -> Request:
    """Every golden text once."""
    return Request(texts_of(job.goldens), job.artifact.task.inputs, 0, 1, 1)


def timed_request(job: Job, length: int, plan: AdbPlan) -> Request:
    """One text of one length, timed."""
    text = (job.timed_ids[:length], (0,) * length)
    return Request((text,), job.artifact.task.inputs, plan.warmup, plan.samples, plan.threads)


def row_of(
    job: Job,
    rounds: Sequence[dict[int, Reply]],
    failure: str,
    agreement: dict[str, Any] | None,
    *,
    emulated: bool,
) -> dict[str, Any]:
    """One file's row. Latencies are None on an emulator; its raw samples are kept, marked by "emulated"."""
    by_length = []
    for length in sorted(rounds[0]) if rounds and not failure else ():
        samples = [ms for found in rounds for ms in found[length].samples_ms[0]]
        by_length.append(
            {
                "length": length,
                "latency_ms": None if emulated else latency(samples, len(rounds)),
                "samples_ms": samples,
                "slowed": None if emulated else slowed(samples),
            }
        )
    replies = [] if failure else [reply for found in rounds for reply in found.values()]
    status = "ok" if by_length else "not run" if job.reason else "failed"
    return {
        "name": job.name,
        "target": job.artifact.target,
        "scheme": job.artifact.scheme,
        "sha256": job.artifact.sha256,
        "size_bytes": job.artifact.size_bytes,
        "status": status,
        "failure": failure or None,
        "runtime_version": replies[0].runtime_version if replies else None,
        "by_length": by_length,
        "load_samples_ms": [reply.load_ms for reply in replies],
        "first_samples_ms": [reply.first_ms for reply in replies],
        "peak_rss_bytes": max((reply.peak_rss_bytes for reply in replies), default=None),
        "portable": job.artifact.portable,
        "agreement": agreement,
    }


def slowed(samples_ms: Sequence[float]) -> float | None:
    """How many times slower the last quarter is than the first, None when that is within noise.

    Noise: less than SLOWER, or a late median that three quarters of the early samples do not stay below.
    """
    quarter = max(1, len(samples_ms) // 4)
    early, late = np.asarray(samples_ms[:quarter]), np.asarray(samples_ms[-quarter:])
    factor = float(np.median(late) / np.median(early))
    if len(samples_ms) < 8 or factor < SLOWER or np.median(late) <= np.percentile(early, 75):
        return None
    return factor


def device_notes(emulated_because: str, verified: str, before: DeviceState, after: DeviceState) -> list[str]:
    """What a reader of the numbers should know of the device."""
    notes = []
    if emulated_because:
        notes.append(f"emulated ({emulated_because}): times say nothing about a phone and are not shown")
    if verified == "size":
        notes.append("the device has no sha256sum: only the sizes of the copies were checked")
    fell = [
        f"core {core} from {khz / 1e6:.2f} to {after.limit_khz[core] / 1e6:.2f} GHz"
        for core, khz in before.limit_khz.items()
        if after.limit_khz.get(core, khz) < khz
    ]
    if fell:
        notes.append(f"throttled: the highest clock fell for {', '.join(fell)}")
    if before.battery_celsius is not None and after.battery_celsius is not None:
        notes.append(f"battery {before.battery_celsius:.1f} °C before, {after.battery_celsius:.1f} °C after")
    else:
        notes.append("the battery's temperature cannot be read")
    kinds = sorted(set(before.governors.values()))
    notes.append(f"governor {', '.join(kinds)}" if kinds else "the governor cannot be read")
    return notes


def samples_by_file(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What device_profiles.measured_of takes: one entry per device and file, at its longest length."""
    return [
        {
            "device": entry["device"],
            "emulated": entry["emulated"],
            "sha256": row["sha256"],
            "threads": entry["threads"],
            "samples_ms": row["by_length"][-1]["samples_ms"],
        }
        for entry in document["devices"]
        if entry["error"] is None
        for row in entry["rows"]
        if row["by_length"]
    ]
