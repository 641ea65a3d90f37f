"""Is the same file called the same? python docs/experiments/bench_noise.py ARTIFACT [OUT.json]

An A/A comparison by stillroom's own rule, twenty times: the same file under two names, and a third time for
the noise floor, in fresh processes that take turns. Wanted: "no difference" in at least 19 of 20. That a true
difference is found is a test (tests/benchmarks/test_statistics.py).
"""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.benchmarks.machine import describe_machine
from stillroom.benchmarks.measure import Subject, measure
from stillroom.benchmarks.noise import AGAIN, noise_facts
from stillroom.benchmarks.statistics import NO_DIFFERENCE, by_process, ratio_of_medians, verdict
from stillroom.benchmarks.workload import Workload
from stillroom.export.bundle import artifact_at
from stillroom.files import write_json

REPEATS, LENGTH, THREADS = 20, 128, 2
IDS = (101, *range(1996, 1996 + LENGTH - 2), 102)


def main() -> None:
    folder = Path(sys.argv[1])
    artifact = artifact_at(folder)
    subject = Subject("first", artifact.target, str(folder), artifact.task.inputs)
    subjects = [subject, replace(subject, name="second"), replace(subject, name=AGAIN)]
    workload = Workload(IDS, (LENGTH,), rounds=5, samples=30, warmup=5, threads=THREADS)
    rows: list[dict[str, Any]] = []
    for repeat in range(REPEATS):
        measured = measure(subjects, workload)
        # The floor is of the second and the third; the pair that is judged is the first and the second.
        noise = noise_facts(measured, "second")
        assert noise is not None
        floor = noise["by_length"][0]["floor"]
        pair = [
            by_process(measured[name].samples_ms[LENGTH], workload.rounds) for name in ("first", "second")
        ]
        ratio = ratio_of_medians(*pair)
        said = verdict(ratio, floor)
        rows.append(
            {"said": said, "floor": floor, **asdict(ratio), "p50_ms": [float(np.median(p)) for p in pair]}
        )
        print(f"{repeat + 1}: {said}; ratio {ratio.value:.3f}, floor {floor:.1%}", flush=True)
    same = sum(row["said"] == NO_DIFFERENCE for row in rows)
    print(f"no difference in {same} of {REPEATS}")
    if len(sys.argv) > 2:
        facts = {"machine": describe_machine(THREADS), "workload": workload.to_dict(), "rows": rows}
        write_json(Path(sys.argv[2]), {**facts, "no_difference": same, "repeats": REPEATS})


if __name__ == "__main__":
    main()
