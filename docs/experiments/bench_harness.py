"""What does the harness cost, and is it right? python docs/experiments/bench_harness.py ARTIFACT [OUT.json]

Three checks of an ONNX artifact: the median of a predictor that does nothing beside the file's own; the file
in our harness beside the C runner (benchmarks/phone/runner.c on the same libonnxruntime), in fresh processes
that take turns; and the peak resident memory beside what the system accounts (wait4, which GNU time -v
prints).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.measure import CHILD_COMMAND, Subject, run_process
from stillroom.benchmarks.measure_child import run_child
from stillroom.benchmarks.phone.adb_runner import Request, read_reply, write_request
from stillroom.benchmarks.phone.compile import X86_64, compile_c
from stillroom.benchmarks.phone.device_files import DEFAULT_FOLDER, HEADERS, SOURCE, TABLE
from stillroom.benchmarks.statistics import ratio_of_medians
from stillroom.benchmarks.workload import Workload
from stillroom.export.bundle import artifact_at
from stillroom.fetch import fetch_debs, unpack_wheel
from stillroom.files import write_json

ROUNDS, SAMPLES, WARM_UP, LENGTH = 12, 60, 10, 128
IDS = (101, *range(1996, 1996 + LENGTH - 2), 102)
# As small as a parent can be: what wait4 says of a child includes what its parent held when it forked.
ACCOUNT = """
import os, sys
pid = os.fork()
if pid == 0:
    os.dup2(os.open(sys.argv[1], os.O_RDONLY), 0)
    os.dup2(os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT), 1)
    os.execv(sys.argv[3], sys.argv[3:])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def empty_ms(workload: Workload) -> float:
    """Median of a predictor that returns at once, by the code that measures files."""
    nothing = np.zeros((1, 2), np.float32)
    subject = {"name": "empty", "target": "none", "folder": ".", "inputs": ["input_ids", "attention_mask"]}
    request = {"subject": {**subject, "lengths": []}, "workload": {**vars(workload), "samples": 20_000}}
    reply = run_child(request, lambda target: None, lambda *given: lambda *inputs: nothing)
    return float(np.median(reply["samples_ms"][LENGTH]))


def build(folder: Path) -> tuple[Path, Path]:
    """The C runner for this machine, and a folder with this environment's own libonnxruntime."""
    unpack_wheel(TABLE, "compiler", DEFAULT_FOLDER, folder / "compiler")
    headers = fetch_debs(TABLE, DEFAULT_FOLDER) / "arm64" / HEADERS
    compile_c(folder / "compiler", X86_64, SOURCE, folder / "runner", [f"-I{headers}"])
    capi = Path(str(distribution("onnxruntime").locate_file("onnxruntime/capi")))
    (library,) = capi.glob("libonnxruntime.so.*")
    (folder / "lib").mkdir()
    shutil.copyfile(library, folder / "lib" / "libonnxruntime.so.1")
    return folder / "runner", folder / "lib"


def runner_ms(runner: Path, library: Path, model: Path, request: Request, labels: int) -> list[float]:
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "request").write_text(write_request(request), "utf-8")
        environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "ORT_DISABLE_TELEMETRY": "1"}
        words = [str(runner), str(model), f"{work}/request", f"{work}/reply"]
        subprocess.run(words, env=environment, check=True, timeout=300)
        return [*read_reply((Path(work) / "reply").read_bytes(), request, labels).samples_ms[0]]


def memory_pair(subject: Subject, workload: Workload) -> tuple[int, int]:
    """Peak resident bytes of one process: as the harness says, and as the system accounts."""
    with tempfile.TemporaryDirectory() as work:
        request = {"subject": vars(subject), "workload": vars(workload)}
        (Path(work) / "request").write_text(f"{json.dumps(request)}\n[]\n", "utf-8")
        command = [sys.executable, "-S", "-c", ACCOUNT, f"{work}/request", f"{work}/reply", *CHILD_COMMAND]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said = json.loads((Path(work) / "reply").read_text())["peak_rss_bytes"]
        return int(said), int(done.stdout) * 1024


def main() -> None:
    folder = Path(sys.argv[1])
    artifact = artifact_at(folder)
    subject = Subject("harness", artifact.target, str(folder), artifact.task.inputs)
    facts: dict[str, Any] = {"rows": [], "memory": []}
    with tempfile.TemporaryDirectory() as scratch:
        runner, library = build(Path(scratch))
        for threads in (1, 2):
            workload = Workload(IDS, (LENGTH,), 1, SAMPLES, WARM_UP, threads)
            request = Request(((IDS, (0,) * LENGTH),), artifact.task.inputs, WARM_UP, SAMPLES, threads)
            ours: list[list[float]] = []
            theirs: list[list[float]] = []
            for round_index in range(ROUNDS):
                order = [ours, theirs] if round_index % 2 == 0 else [theirs, ours]
                for mine in order:
                    if mine is ours:
                        mine.append(run_process(subject, workload, 300)["samples_ms"][LENGTH])
                    else:
                        mine.append(
                            runner_ms(runner, library, artifact.path, request, len(artifact.task.labels))
                        )
            ratio = ratio_of_medians(np.array(ours), np.array(theirs))
            p50_ms = [float(np.median(one)) for one in (ours, theirs)]
            row = {"threads": threads, "p50_ms": p50_ms, **vars(ratio), "empty_ms": empty_ms(workload)}
            facts["rows"].append({**row, "harness_ms": ours, "runner_ms": theirs})
            print(
                f"{threads} threads: harness {p50_ms[0]:.3f} ms, C runner {p50_ms[1]:.3f} ms, ratio "
                f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}); an empty predictor "
                f"{1e3 * row['empty_ms']:.2f} us, {row['empty_ms'] / p50_ms[0]:.3%} of the median",
                flush=True,
            )  # fmt: skip
        for _ in range(5):
            facts["memory"].append(memory_pair(subject, workload))
    apart = [said / accounted - 1 for said, accounted in facts["memory"]]
    print(f"peak memory beside the system's account: {min(apart):+.2%} to {max(apart):+.2%}")
    if len(sys.argv) > 2:
        write_json(Path(sys.argv[2]), {"machine": describe_machine(2), **facts})


if __name__ == "__main__":
    main()
