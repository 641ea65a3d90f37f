"""Tiny bundles in the app's form, of each kind of task and of model file, and what Python answers to them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.export.android.bundle import write_android_bundle
from stillroom.export.android.toolchain import Toolchain
from stillroom.export.bundle import write_bundle
from stillroom.export.options import ExportOptions
from stillroom.export.targets import export
from stillroom.student import load_model, save_student
from stillroom.task import TaskSpec

PLAIN = ("input_ids", "attention_mask")
TYPED = (*PLAIN, "token_type_ids")


@dataclass(frozen=True)
class Made:
    """What a bundle is made of."""

    task: TaskSpec
    target: str
    scheme: str
    lengths: tuple[int, ...] = ()


BUNDLES = {
    "fp32": Made(TaskSpec(("good", "bad"), 64, PLAIN), "onnx", "fp32"),
    "int8": Made(TaskSpec(("good", "bad"), 64, PLAIN), "onnx", "int8-dynamic"),
    "ort": Made(TaskSpec(("good", "bad"), 64, PLAIN), "ort", "fp32"),
    "pair": Made(TaskSpec(("yes", "no", "maybe"), 48, TYPED, pair=True), "onnx", "int8-dynamic"),
    "multi-label": Made(TaskSpec(("food", "staff", "room"), 64, PLAIN, kind="multi-label"), "onnx", "fp32"),
    "regression": Made(TaskSpec(("score",), 64, TYPED, kind="regression"), "onnx", "fp32", lengths=(32,)),
}

# Run by another Python, whose onnxruntime is of the app's version: logits of every golden text's ids.
REFERENCE = """
import json, sys
from pathlib import Path
import numpy as np, onnxruntime
print(onnxruntime.__version__)
for folder in map(Path, sys.argv[1:]):
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (artifact,) = manifest["artifacts"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / artifact["file"]), options)
    answers = []
    for golden in json.loads((folder / "golden.json").read_text("utf-8")):
        ids = golden["input_ids"]
        inputs = {**golden, "attention_mask": [1] * len(ids)}
        length = min([one for one in artifact["lengths"] if one >= len(ids)], default=len(ids))
        feed = {
            name: np.pad(np.array([inputs[name]], dtype=np.int64), ((0, 0), (0, length - len(ids))))
            for name in manifest["task"]["inputs"]
        }
        answers.append(session.run(None, feed)[0][0].tolist())
    print(json.dumps(answers))
"""


def write_bundles(folder: Path, make_model_folder: Callable[..., Path]) -> dict[str, Path]:
    """Every one of BUNDLES, below a folder."""
    found = {}
    for name, made in BUNDLES.items():
        work = folder / name
        base = make_model_folder(work / "base", head_labels=made.task.labels, layers=2)
        save_student(
            work / "student", load_model(base), (base / "tokenizer.json").read_text("utf-8"), made.task, {}
        )
        options = ExportOptions(lengths=made.lengths)
        export(work / "student", made.target, made.scheme, work / "artifact", options)
        write_bundle(name, work / "artifact", work / "student", work / "whole")
        write_android_bundle(work / "whole", work / "android")
        found[name] = work / "android"
    return found


def python_answers(tools: Toolchain, folders: list[Path]) -> tuple[str, list[list[list[float]]]]:
    """The version of the app's runtime in Python, and what it answers: logits [bundles, texts, labels]."""
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(tools.onnxruntime_python), "ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    version, *answers = done.stdout.splitlines()
    return version, [json.loads(line) for line in answers]


def read_goldens(folder: Path) -> list[dict[str, Any]]:
    """The golden vectors of a bundle, as they are written."""
    found: list[dict[str, Any]] = json.loads((folder / "golden.json").read_text("utf-8"))
    return found


def copy_with(folder: Path, out: Path, contents: dict[str, Any]) -> Path:
    """A copy of a bundle in out, some of its files others (bytes, or a JSON value), its manifest in step."""
    shutil.copytree(folder, out)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (out / name).write_bytes(data)
        for entry in (*manifest["files"], *manifest["artifacts"]):
            if entry["file"] == name:
                entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return out
