"""An exported ONNX folder opened by optimum, in an environment of its own: it wants an older transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillroom.artifact import Artifact
from stillroom.export import export, load_predictor
from stillroom.student import load_student
from stillroom.text import Row
from stillroom.tokens import encode_one, encode_rows, load_tokenizer, padded_inputs

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "build/peers/optimum/bin/python"
SCRIPT = Path(__file__).with_name("open_with_optimum.py")


def opened(folder: Path, texts: list[list[str]]) -> dict[str, list]:
    assert PYTHON.is_file(), f"no {PYTHON}: make build/peers/optimum/installed"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    command = [PYTHON, SCRIPT, folder, json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("family", "scheme", "labels", "pair"),
    [("bert", "fp32", 2, False), ("distilbert", "int8-dynamic", 20, False),
     ("xlm-roberta", "fp16", 2, False), ("bert", "int4", 2, True)],
)  # fmt: skip
def test_optimum_opens_an_exported_folder_and_answers_the_same(
    model_folder: Callable[..., Path], texts: tuple[str, ...], tmp_path: Path,
    family: str, scheme: str, labels: int, pair: bool,
) -> None:  # fmt: skip
    names = tuple(f"label {index:02}" for index in range(labels))
    folder = model_folder(family, labels=names, pair=pair)
    artifact = export(folder, "onnx", scheme, tmp_path / "out")
    given = [[text, texts[at - 1]] if pair else [text] for at, text in enumerate(texts)]
    given = [
        text for text in given if text[-1] or not pair
    ]  # transformers takes an empty second text for none
    found = opened(artifact.folder, given)
    assert found["labels"] == list(names)
    tokenizer = load_tokenizer(folder, artifact.task.max_length)
    assert found["ids"] == [encode_one(tokenizer, *text)[0] for text in given]
    wanted = own_answers(artifact, folder, given)
    assert np.abs(np.array(found["logits"]) - wanted).max() < 1e-4
    assert len(found["batch_logits"]) == len(given)
    if scheme in ("fp32", "fp16"):  # int8 and int4 round activations by what is beside them in the batch
        assert np.abs(np.array(found["batch_logits"]) - wanted).max() < 5e-3 * max(1.0, wanted.std())


def own_answers(artifact: Artifact, folder: Path, given: list[list[str]]) -> np.ndarray:
    """What the same file answers through this project's own loader, text by text."""
    task = artifact.task
    rows = [Row(text[0], text[1] if task.pair else None, "") for text in given]
    tokens = encode_rows(load_tokenizer(folder, task.max_length), rows, load_student(folder).task, 0)
    predict = load_predictor("onnx", artifact.folder, 1)
    return np.concatenate(
        [predict(*padded_inputs(tokens, [row], task.inputs).values()) for row in range(len(tokens))]
    )


def test_a_cased_tokenizer_stays_cased(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder, text = tmp_path / "cased", "THE Great FLIGHT the"
    shutil.copytree(model_folder("bert"), folder)
    facts = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    facts["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(facts), "utf-8")
    artifact = export(folder, "onnx", "fp32", tmp_path / "out")
    cased, uncased = (load_tokenizer(place, 80).encode(text).ids for place in (folder, model_folder("bert")))
    assert opened(artifact.folder, [[text]])["ids"] == [cased] != [uncased]
