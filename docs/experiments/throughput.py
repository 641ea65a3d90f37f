"""How fast is the distillation loop? make throughput, or python docs/experiments/throughput.py

Distils one teacher into the same student with the same rows, batch size, losses and optimizer, in several
loops: stillroom's; a transformers Trainer with the losses added, as a script is written that pads to
max_length and asks the teacher at every step, in fp32 and in bf16; and TextBrewer's GeneralDistiller. Each
runs in fresh processes, in turn, over several rounds; loops and clock are in throughput_loops.py. Prints a
table and keeps every round's values in docs/throughput.json. The findings are in docs/log.md.

TextBrewer (0.2.1.post1) gets an environment of its own, with this project's torch and transformers:
make build/peers/textbrewer/installed. --textbrewer-python names its interpreter; without it, TextBrewer is
left out. Its examples pad to max_length; it is timed again with batches cut to their longest row.

--gpu measures stillroom's loop alone on a CUDA device instead: tokens a second, and the share of what the
card does in plain bf16 matrix products, for 12 -> 6 layers of width 768. Not run here: there was no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from throughput_loops import LOOPS, StepClock

from stillroom.benchmarks.machine import describe_machine, usable_cores
from stillroom.distill.distill import distill_from_model
from stillroom.distill.layers import choose_layers, layer_list, student_from_teacher
from stillroom.distill.objective import LossWeights
from stillroom.distill.teacher import open_source, start_model
from stillroom.distill.train import TrainSettings
from stillroom.extras import resolve_source
from stillroom.files import write_json
from stillroom.progress import say
from stillroom.recipe import load_recipe
from stillroom.step_data import splits_of
from stillroom.student import save_student
from stillroom.task import TaskSpec
from stillroom.text import Row
from stillroom.tokens import Tokens, encode_rows, load_tokenizer, pad_id_of

CHILD = Path(__file__).with_name("throughput_loops.py")
KEPT = Path(__file__).resolve().parent.parent / "throughput.json"
RECIPE = load_recipe("demo")
YARDSTICK = "Trainer, fp32"
OURS = "stillroom"


def demo_rows(count: int) -> list[Row]:
    """The first rows that the demo trains on; they are in shuffled order."""
    return list(splits_of(RECIPE).train[:count])


def prepare(teacher: Path, rows: list[Row], folder: Path, batch_size: int, max_length: int) -> dict[str, Any]:
    """Write teacher, student and encoded rows into folder; return what every loop is asked alike."""
    if not rows or len(rows) % batch_size:
        sys.exit(
            f"{len(rows)} rows: expected a multiple of the batch size, {batch_size}, and at least one batch"
        )
    labels = tuple(sorted({row.label for row in rows}))
    source = open_source(teacher, labels, max_length, pair=False)
    model = start_model(source, seed=0)
    kept = choose_layers("half", len(layer_list(model)))
    student = student_from_teacher(model, kept)
    for name, part in (("teacher", model), ("student", student)):
        save_student(folder / name, part, source.tokenizer_json, source.task, {})
    tokenizer = load_tokenizer(folder / "teacher", source.task.max_length)
    tokens = encode_rows(tokenizer, rows, source.task, pad_id_of(folder / "teacher", tokenizer))
    arrays: dict[str, Any] = {
        name: value for name, value in vars(tokens).items() if isinstance(value, np.ndarray)
    }
    np.savez(folder / "rows.npz", **arrays)
    return {
        "folder": str(folder),
        "rows": len(rows),
        "mean_tokens": float(tokens.lengths.mean()),
        "layers_kept": list(kept),
        "teacher_layers": len(layer_list(model)),
        "batch_size": batch_size,
        "task": source.task.to_dict(),
        "pad_id": tokens.pad_id,
        "weights": asdict(LossWeights()),
        "learning_rate": RECIPE.student.learning_rate,
    }


def run_loop(request: dict[str, Any], python: str, timeout_s: float) -> dict[str, Any]:
    """One loop in one fresh process, and what it measured. Exits when it fails, with its last lines."""
    with tempfile.TemporaryDirectory() as scratch:
        reply = Path(scratch) / "reply.json"
        asked = {**request, "scratch": str(Path(scratch) / "work"), "reply": str(reply)}
        threads = {"OMP_NUM_THREADS": str(request["threads"])}
        try:
            process = subprocess.run(
                [python, str(CHILD)], input=json.dumps(asked), text=True, capture_output=True,
                env={**os.environ, **threads}, timeout=timeout_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            sys.exit(f"{request['loop']} did not finish within {timeout_s:g} s: --rows makes it shorter")
        if process.returncode:
            sys.exit(f"{request['loop']} failed:\n{process.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(reply.read_text("utf-8"))
    found["samples_per_s"] = request["rows"] / found["timed_s"]
    return found


def with_teacher(found: dict[str, Any], rows: int, epochs: int) -> float:
    """Samples a second of so many epochs when computing the teacher's outputs, once, is part of them."""
    return float(epochs * rows / (found["teacher_s"] + epochs * found["timed_s"]))


def measure_loops(
    request: dict[str, Any],
    pythons: dict[str, str],
    rounds: int,
    timeout_s: float,
    keep: Callable[[dict[str, list[dict[str, Any]]]], None],
) -> dict[str, list[dict[str, Any]]]:
    """Every loop once a round, each round beginning with another: loop -> what each round measured.

    keep is called with what there is after every round, so that an interruption costs one.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    names = list(pythons)
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            load = os.getloadavg()[0]
            reply = run_loop({**request, "loop": name, "seed": number}, pythons[name], timeout_s)
            found[name].append({**reply, "load_average_1m_before": load})
            say(f"round {number + 1} of {rounds}, {name}: {reply['samples_per_s']:.1f} samples/s")
        keep(found)
    return found


def table(found: dict[str, list[dict[str, Any]]], rows: int) -> str:
    """Markdown: medians over rounds; ratios are taken within each round, with the lowest and the highest."""
    lines = [
        f"| loop | precision | samples/s | × {YARDSTICK} | CPU used, % | CPU ms a sample "
        "| outside matmuls, % | peak RSS, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, rounds in found.items():
        used, outside, peak = (
            100 * median_of(rounds, "cpu_utilisation"),
            100 * median_of(rounds, "outside_matmuls"),
            median_of(rounds, "peak_rss_bytes") / 1e6,
        )
        cpu_ms = 1e3 * median_of(rounds, "timed_cpu_s") / rows
        lines.append(
            f"| {name} | {rounds[0]['precision']} | {median_of(rounds, 'samples_per_s'):.1f} "
            f"| {ratio(rounds, found[YARDSTICK])} | {used:.0f} | {cpu_ms:.1f} | {outside:.0f} | {peak:.0f} |"
        )
        for epochs in (1, RECIPE.student.epochs) if name == OURS else ():
            whole = [{**one, "samples_per_s": with_teacher(one, rows, epochs)} for one in rounds]
            lines.append(
                f"| … with the teacher's outputs, {epochs} epoch{'s' * (epochs > 1)} "
                f"| {rounds[0]['precision']} | {median_of(whole, 'samples_per_s'):.1f} "
                f"| {ratio(whole, found[YARDSTICK])} | | | | |"
            )
    return "\n".join(lines)


def against(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: how many times as fast each of ours (rows) is as each of the others (columns)."""
    others = [name for name in found if not name.startswith(OURS)]
    lines = [f"| how many times as fast as | {' | '.join(others)} |", "| --- |" + " ---: |" * len(others)]
    for name in (name for name in found if name.startswith(OURS)):
        lines.append(f"| {name} | {' | '.join(ratio(found[name], found[other]) for other in others)} |")
    return "\n".join(lines)


def median_of(rounds: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(one[key] for one in rounds))


def ratio(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """How many times theirs mine is, in samples a second: median (lowest to highest) over rounds."""
    found = [one["samples_per_s"] / other["samples_per_s"] for one, other in zip(mine, theirs, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def matmul_peak(device: Any, size: int, repeats: int) -> float:
    """Floating-point operations a second of plain bf16 matrix products, [size, size] each."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(3):
        _wait(device)
        start = time.perf_counter()
        for _ in range(repeats):
            left @ right
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return repeats * 2 * size**3 / min(seconds)


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def gpu_figures(
    device: Any,
    hidden: int = 768,
    layers: int = 12,
    length: int = 128,
    batch_size: int = 128,
    steps: int = 20,
) -> dict[str, float]:
    """stillroom's loop on rows of one length, teacher with random weights -> student of half its layers.

    tokens_per_s: of the student's steps. matmul_share: their matrix products over the peak. An operation is
    counted as usual: 2 for a product of two matrices' element, and the backward pass twice the forward.
    """
    import transformers

    config = transformers.BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden, num_labels=2,
    )  # fmt: skip
    teacher = transformers.BertForSequenceClassification(config).to(device).eval()
    rows, generator = batch_size * steps, np.random.default_rng(0)
    tokens = Tokens(
        ids=generator.integers(1000, config.vocab_size, rows * length, dtype=np.int32),
        type_ids=np.zeros(rows * length, dtype=np.int32),
        offsets=np.arange(rows + 1, dtype=np.int64) * length,
        labels=generator.integers(0, 2, rows, dtype=np.int64),
        pad_id=0,
    )
    task = TaskSpec(("a", "b"), length, ("input_ids", "attention_mask"))
    peak = matmul_peak(device, 8 * hidden, steps)
    clock = StepClock(steps, steps, 0)  # the first of two epochs warms up
    settings = TrainSettings(2, 1e-4, batch_size, 0, False, checkpoint_every_s=1e9)
    with tempfile.TemporaryDirectory() as scratch:
        distill_from_model(teacher, tokens, task, settings, scratch)
    clock.hook.remove()
    seconds = clock.wall_s[-1] - clock.wall_s[steps - 1]
    # Of one layer and token: 12 hidden^2 weights, and the token's row of two products in attention.
    forward = (layers // 2) * (2 * 12 * hidden**2 + 2 * 2 * length * hidden)
    tokens_per_s = rows * length / seconds
    return {
        "tokens_per_s": tokens_per_s,
        "matmul_peak_per_s": peak,
        "matmul_share": 3 * forward * tokens_per_s / peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", default=RECIPE.teacher.source, help="model folder or package:...")
    parser.add_argument("--rows", type=int, default=640, help="rows of one timed pass (640)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step (32)")
    parser.add_argument("--max-length", type=int, default=RECIPE.max_length, help="tokens (128)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each loop (3)")
    parser.add_argument("--untimed", type=int, default=3, help="steps before the timed ones (3)")
    parser.add_argument("--profiled", type=int, default=3, help="steps after them, profiled (3)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of each process (all cores)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one process (900)")
    parser.add_argument("--textbrewer-python", default="", help="interpreter of TextBrewer's environment")
    parser.add_argument(
        "--out", type=Path, default=KEPT, help="where the rounds are kept (docs/throughput.json)"
    )
    parser.add_argument("--gpu", action="store_true", help="stillroom's loop alone, on a CUDA device")
    arguments = parser.parse_args()
    if arguments.gpu:
        import torch

        if not torch.cuda.is_available():
            sys.exit("--gpu: torch finds no CUDA device")
        print(
            json.dumps(
                {"device": torch.cuda.get_device_name(), **gpu_figures(torch.device("cuda"))}, indent=2
            )
        )
        return
    pythons = {name: arguments.textbrewer_python or sys.executable for name in LOOPS}
    pythons |= {name: sys.executable for name in LOOPS if "TextBrewer" not in name}
    if not arguments.textbrewer_python:
        say("TextBrewer is left out: --textbrewer-python names the interpreter of its environment")
        pythons = {name: python for name, python in pythons.items() if "TextBrewer" not in name}
    machine = describe_machine(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        request = prepare(
            resolve_source(arguments.teacher), demo_rows(arguments.rows), Path(scratch),
            arguments.batch_size, arguments.max_length,
        )  # fmt: skip
        request |= {key: vars(arguments)[key] for key in ("untimed", "profiled", "threads")}
        shown = {key: value for key, value in request.items() if key != "folder"}

        def keep(found: dict[str, list[dict[str, Any]]]) -> None:
            write_json(arguments.out, {"machine": machine, "request": shown, "loops": found})

        found = measure_loops(request, pythons, arguments.rounds, arguments.timeout, keep)
    print(table(found, arguments.rows))
    print(f"\n{against(found)}\n\n{described(machine, found)}")


def described(machine: dict[str, Any], found: dict[str, list[dict[str, Any]]]) -> str:
    """One line: date, machine, versions, and how busy the machine was with something else."""
    versions = {tool: text for rounds in found.values() for tool, text in rounds[0]["versions"].items()}
    return (
        f"{machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{', '.join(f'{tool} {text}' for tool, text in versions.items())}; load average before the first "
        f"process {machine['load_average_1m']:.1f}"
    )


if __name__ == "__main__":
    main()
