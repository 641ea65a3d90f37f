"""Exported files on named arm64 cores under emulation: do they answer as they do here, and at what cost?

Never a time: how long an emulator takes says nothing about a phone. What holds is parity (the real arm64
builds of the runtimes pick their kernels by core), and the number of instructions of one inference.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stillroom.benchmarks.machine import describe_machine, usable_cores
from stillroom.benchmarks.measure import finished
from stillroom.benchmarks.phone.adb_runner import Reply, Request, read_reply, texts_of, write_request
from stillroom.benchmarks.phone.emulator_files import Emulator
from stillroom.benchmarks.phone.jobs import ONNXRUNTIME, Job, agreement_of, prepare_jobs
from stillroom.benchmarks.tables import NOT_MEASURED, Table, number, plain
from stillroom.errors import CheckFailed, UsageError
from stillroom.progress import progress_bar

CORES = {"a53": "cortex-a53", "a76": "cortex-a76", "a710": "cortex-a710"}
COUNTED_CORES = ("a53", "a76")  # the emulator that counts knows no newer one
COUNTED_LENGTH = 128
TIMEOUT_S = 300
CHILD = Path(__file__).with_name("executorch_child.py")
# Private writable memory of the whole process, the emulator's own included, which needs some 100 MB.
DATA_LIMIT_BYTES = {"onnx": 1024 * 2**20, "ort": 1024 * 2**20, "executorch": 2048 * 2**20}


@dataclass(frozen=True)
class Emulated:
    """One file on one core. status: "ok", "differs", "failed" or "not run"; reason says why it is not ok.

    flips: of the texts. instructions: of one inference of the counted length on one thread, by
    counted_version of the runtime; None where it was not counted, for the reason not_counted if it was tried;
    instructions_apart: two counts differ by so many. peak_rss_bytes: the emulator's own memory included.
    """

    name: str
    sha256: str
    target: str
    scheme: str
    core: str
    status: str
    reason: str = ""
    runtime_version: str = ""
    texts: int = 0
    max_abs_error: float | None = None
    allowed_error: float | None = None
    flips: int | None = None
    instructions: int | None = None
    instructions_apart: int | None = None
    counted_version: str = ""
    not_counted: str = ""
    peak_rss_bytes: int | None = None


def emulate(
    folders: Sequence[Path],
    emulator: Emulator,
    cores: Sequence[str] = tuple(CORES),
    *,
    count: bool = True,
    length: int = COUNTED_LENGTH,
    timeout_s: float = TIMEOUT_S,
) -> tuple[str, dict[str, Any]]:
    """Run every file's golden vectors on every core: a table for people, and the same as JSON.

    count: also count instructions of length tokens, where the emulator can. A file that crashes or does not
    end within timeout_s has a row that says so. Raises UsageError for an unknown core.
    """
    unknown = [core for core in cores if core not in CORES]
    if unknown:
        raise UsageError(f"no core {unknown[0]!r}: there are {', '.join(CORES)}")
    targets = (*ONNXRUNTIME, "executorch")
    jobs, skipped = prepare_jobs(folders, [length], "emulation", targets)
    work = [(job, core) for job in jobs for core in cores]
    with progress_bar(len(work), "emulating", "core") as bar, ThreadPoolExecutor(usable_cores()) as pool:

        def one(job: Job, core: str) -> Emulated:
            found = _emulated(job, core, emulator, timeout_s, count=count)
            bar.update()
            return found

        rows = [waiting.result() for waiting in [pool.submit(one, *item) for item in work]]
    document = {
        "emulated": True,
        "rows": [asdict(row) for row in rows],
        "skipped": skipped,
        "cores": {core: CORES[core] for core in cores},
        "counted_tokens": length,
        "machine": describe_machine(1),
    }
    lines = [plain(emulated_table(rows)), NOTE]
    lines += [f"{row.name} on {row.core}: {row.reason}" for row in rows if row.reason]
    lines += [f"{row.name} on {row.core}: not counted: {row.not_counted}" for row in rows if row.not_counted]
    lines += [f"{one['name']}: {one['reason']}" for one in skipped]
    return "\n\n".join(lines), document


NOTE = (
    "emulated: arm64 builds of the runtimes on an emulator's model of each core. Parity and instructions "
    "hold; there is no time here, no phone was measured, and memory is the emulator's own too."
)


def _emulated(job: Job, core: str, emulator: Emulator, timeout_s: float, *, count: bool) -> Emulated:
    row = Emulated(job.name, job.artifact.sha256, job.artifact.target, job.artifact.scheme, core, "ok")
    if job.reason:
        return replace(row, status="not run", reason=job.reason)
    request = Request(texts_of(job.goldens), job.artifact.task.inputs, 0, 1, 1)
    try:
        reply = _run(job, core, emulator, request, timeout_s)
        agreement = agreement_of(job, reply)
        row = replace(
            row,
            status="ok" if agreement["holds"] else "differs",
            reason="" if agreement["holds"] else "answers otherwise than on this machine",
            runtime_version=reply.runtime_version,
            texts=agreement["texts"],
            max_abs_error=agreement["max_abs_error"],
            allowed_error=agreement["allowed_error"],
            flips=round(agreement["flip_rate"] * agreement["texts"]),
            peak_rss_bytes=reply.peak_rss_bytes,
        )
    except CheckFailed as error:
        return replace(row, status="failed", reason=str(error))
    if count and job.artifact.target in ONNXRUNTIME and core in COUNTED_CORES:
        try:
            return _counted(row, job, core, emulator, timeout_s)
        except CheckFailed as error:  # the older onnxruntime that counts may lack an operator of today's
            return replace(row, not_counted=str(error))
    return row


def _run(job: Job, core: str, emulator: Emulator, request: Request, timeout_s: float) -> Reply:
    with tempfile.TemporaryDirectory() as work:
        reply = Path(work) / "reply.json"
        (Path(work) / "request").write_text(write_request(request), "utf-8")
        files = [str(job.artifact.path.resolve()), f"{work}/request", str(reply)]
        if job.artifact.target == "executorch":
            command = emulator.python(CORES[core], [str(CHILD), *files])
        else:
            command = emulator.run(CORES[core], emulator.runner(files), {"LD_LIBRARY_PATH": ""})
        limited(command, {}, timeout_s, DATA_LIMIT_BYTES[job.artifact.target])
        if not reply.is_file():
            raise CheckFailed("its process wrote no reply")
        return read_reply(reply.read_bytes(), request, len(job.artifact.task.labels))


def _counted(row: Emulated, job: Job, core: str, emulator: Emulator, timeout_s: float) -> Emulated:
    """The row with instructions: what more calls add to the count of a whole process, over how many more."""
    more = 2
    ids = job.timed_ids
    counts: list[int] = []
    version = ""
    for _ in range(2):
        whole = []
        for samples in (1, 1 + more):
            request = Request(((ids, (0,) * len(ids)),), job.artifact.task.inputs, 0, samples, 1)
            with tempfile.TemporaryDirectory() as work:
                (Path(work) / "request").write_text(write_request(request), "utf-8")
                files = [str(job.artifact.path.resolve()), f"{work}/request", f"{work}/reply.json"]
                command, environment = emulator.counting(CORES[core], files)
                environment["INSN_COUNT_FILE"] = f"{work}/count"
                limited(command, environment, timeout_s, DATA_LIMIT_BYTES[job.artifact.target])
                reply = (Path(work) / "reply.json").read_bytes()
                version = read_reply(reply, request, len(job.artifact.task.labels)).runtime_version
                whole.append(int((Path(work) / "count").read_text()))
        counts.append((whole[1] - whole[0]) // more)
    return replace(
        row, instructions=counts[0], instructions_apart=abs(counts[0] - counts[1]), counted_version=version
    )


def limited(command: list[str], environment: dict[str, str], timeout_s: float, data_bytes: int) -> None:
    """Run a command with so much private memory. Raises CheckFailed when it fails or does not end in time."""
    # Libraries of this machine are not for the emulator's programs.
    finished(command, timeout_s, environment={"LD_LIBRARY_PATH": "", **environment}, data_bytes=data_bytes)


def emulated_table(rows: Sequence[Emulated]) -> Table:
    """One line per file and core."""
    header = ("name", "core", "status", "texts", "max abs error", "allowed", "flips", "M instructions",
              "counted by", "memory with the emulator's, MB")  # fmt: skip
    return Table(header, tuple(
        (
            row.name, row.core, row.status, str(row.texts),
            NOT_MEASURED if row.max_abs_error is None else f"{row.max_abs_error:.2g}",
            NOT_MEASURED if row.allowed_error is None else f"{row.allowed_error:g}",
            NOT_MEASURED if row.flips is None else str(row.flips),
            number(row.instructions, 2, 1e-6),
            f"onnxruntime {row.counted_version}" if row.counted_version else NOT_MEASURED,
            number(row.peak_rss_bytes, 0, 1e-6),
        )
        for row in rows
    ), 3)  # fmt: skip
