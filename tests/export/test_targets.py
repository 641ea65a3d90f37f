"""Every cell of targets x schemes: converted, loaded, and compared with transformers on real text."""

from __future__ import annotations

import functools
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillroom.artifact import Artifact, load_artifact
from stillroom.errors import UsageError
from stillroom.export import export, load_predictor
from stillroom.export.options import ExportOptions
from stillroom.export.targets import TARGETS, check_lengths, completing, padding
from stillroom.export.torchscript import load, load_lite
from stillroom.observe import calibration_of
from stillroom.step_data import encode_for
from stillroom.student import load_student
from stillroom.text import Row
from stillroom.tokens import padded_inputs

TWO, TWENTY = ("negative", "positive"), tuple(f"label {index:02}" for index in range(20))
FAMILIES = {"bert": TWO, "distilbert": TWENTY, "xlm-roberta": TWO}  # and their labels
CELLS = [(name, scheme) for name, target in TARGETS.items() for scheme in target.schemes]
# Least correlation of the answers with transformers' over texts. Random weights are harder to round than
# trained ones: nothing in them is redundant.
ALIKE = {"fp32": 0.999999, "fp16": 0.9999, "int8-dynamic": 0.98, "int8-weights": 0.99, "int8-static": 0.95,
         "int4": 0.65, "palette6": 0.95, "palette4": 0.65}  # fmt: skip

PROOFS = {
    "coreml": "interpreted on Linux, not run on Apple hardware",
    "executorch_coreml": "lowered, not run",
}

Made = Callable[..., Artifact]
Reference = Callable[..., np.ndarray]


def rows_of(texts: tuple[str, ...]) -> list[Row]:
    return [Row(text, None, "", 1.0, str(at)) for at, text in enumerate(texts)]


@pytest.fixture(scope="module")
def made(
    model_folder: Callable[..., Path], texts: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """(family, target, scheme, lengths=) -> its artifact. Shared: not to be changed."""

    @functools.cache
    def make(family: str, target: str, scheme: str, lengths: tuple[int, ...] = ()) -> Artifact:
        folder = model_folder(family, labels=FAMILIES[family])
        task = load_student(folder).task
        calibration = calibration_of(encode_for(folder, task, rows_of(texts)), task.inputs)
        out = tmp_path_factory.mktemp("cell") / f"{target}-{scheme}"
        return export(folder, target, scheme, out, ExportOptions(lengths, calibration=calibration))

    return make


def check_answers(artifact: Artifact, folder: Path, texts: tuple[str, ...], reference: Reference) -> None:
    """Compare what an artifact and transformers answer to texts, one by one."""
    tokens = encode_for(folder, artifact.task, rows_of(texts))
    predict = load_predictor(artifact.target, artifact.folder, 1, artifact.lengths)
    batches = [padded_inputs(tokens, [row], artifact.task.inputs) for row in range(len(tokens))]
    found = np.concatenate([predict(*inputs.values()) for inputs in batches])
    wanted = np.concatenate([reference(folder, **inputs) for inputs in batches])
    assert found.shape == (len(texts), len(artifact.task.labels)) and found.dtype == np.float32
    centred = [logits - logits.mean(axis=0) for logits in (found, wanted)]
    assert np.corrcoef(centred[0].ravel(), centred[1].ravel())[0, 1] >= ALIKE[artifact.scheme]
    if artifact.scheme in ("fp32", "fp16"):
        assert np.abs(found - wanted).max() <= artifact.tolerance["max_abs_error"] * max(1.0, wanted.std())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("target", "scheme"), CELLS)
def test_every_cell_equals_transformers(
    made: Made, model_folder: Callable[..., Path], texts: tuple[str, ...], reference: Reference,
    family: str, target: str, scheme: str,
) -> None:  # fmt: skip
    artifact = made(family, target, scheme)
    assert load_artifact(artifact.folder) == artifact
    assert artifact.proof == PROOFS.get(target, "run")
    if artifact.proof == "lowered, not run":
        check_lowered(artifact)
    else:
        check_answers(artifact, model_folder(family, labels=FAMILIES[family]), texts, reference)


def check_lowered(artifact: Artifact) -> None:
    """All there is to be seen of a file that nothing here opens: its package and what is delegated to it."""
    content = artifact.path.read_bytes()
    assert content[4:8] == b"ET12" and b"CoreMLBackend" in content and b"model.mlmodel" in content
    delegation = json.loads((artifact.folder / "delegation.json").read_text())
    assert delegation["delegated_flop_share"] == 1.0 and delegation["delegated_flops"] > 0
    with pytest.raises(UsageError, match="lowered, not run: its Core ML delegate is on macOS and iOS only"):
        load_predictor(artifact.target, artifact.folder, 1)


@pytest.mark.parametrize(
    ("target", "scheme", "lengths"),
    [("onnx", "int8-dynamic", (24,)), ("ort", "fp32", (24,)), ("executorch", "int8-dynamic", (24,)),
     ("coreml", "fp16", (24,)), ("coreml", "int8-weights", (16, 24, 40))],
)  # fmt: skip
def test_fixed_lengths(
    made: Made, model_folder: Callable[..., Path], texts: tuple[str, ...], reference: Reference,
    target: str, scheme: str, lengths: tuple[int, ...],
) -> None:  # fmt: skip
    artifact = made("bert", target, scheme, lengths=lengths)
    assert artifact.lengths == lengths and artifact.task.max_length == lengths[-1]
    check_answers(artifact, model_folder("bert", labels=TWO), texts, reference)
    predict = load_predictor(target, artifact.folder, 1, lengths)
    long = np.ones((1, lengths[-1] + 1), dtype=np.int64)
    with pytest.raises(ValueError, match=f"takes at most {lengths[-1]}"):
        predict(long, long)


def test_padding_takes_the_next_length() -> None:
    seen: list[tuple[int, ...]] = []

    def predict(*inputs: np.ndarray) -> np.ndarray:
        seen.extend(array.shape for array in inputs)
        assert all((array[:, 5:] == 0).all() for array in inputs)
        return np.zeros((1, 2))

    ones = np.ones((1, 5), dtype=np.int64)
    for lengths, wanted in (((5, 8), 5), ((8, 16), 8), ((3, 16), 16)):
        padding(predict, lengths)(ones, ones)
        assert seen[-2:] == [(1, wanted)] * 2


def test_token_types_may_be_left_out_or_given_in_vain() -> None:
    seen: list[int] = []

    def predict(*inputs: np.ndarray) -> np.ndarray:
        seen.append(len(inputs))
        return inputs[-1]

    ids, ones, zeros = (np.full((1, 5), value) for value in (7, 1, 0))
    assert np.array_equal(completing(predict, 3)(ids, ones), zeros)
    assert completing(predict, 3)(ids, ones, ids) is ids
    assert completing(predict, 2)(ids, ones, zeros) is completing(predict, 2)(ids, ones) is ones
    assert seen == [3, 3, 2, 2]
    with pytest.raises(ValueError, match="does not read them"):
        completing(predict, 2)(ids, ones, ones)


@pytest.mark.parametrize(
    ("target", "lengths", "message"),
    [("torchscript", (16,), "none: its files take any length"), ("onnx", (16, 32), "at most 1"),
     ("onnx", (1,), "rising numbers from 2 to 80"), ("onnx", (81,), "rising numbers"),
     ("coreml", (32, 16), "rising numbers"), ("coreml", (16, 16), "rising numbers")],
)  # fmt: skip
def test_lengths_that_cannot_be_had(target: str, lengths: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_lengths(target, lengths, 80)


@pytest.mark.parametrize("target", ["onnx", "ort", "executorch"])
def test_static_ranges_need_text(model_folder: Callable[..., Path], tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError, match="--calibration FILE"):
        export(model_folder("bert"), target, "int8-static", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_lies_beside_the_files(made: Made) -> None:
    def names(target: str, scheme: str) -> set[str]:
        return {path.name for path in made("bert", target, scheme).folder.iterdir()}

    assert names("torchscript", "fp32") == {"artifact.json", "model.pt", "model.ptl"}
    assert names("ort", "fp32") == {"artifact.json", "model.ort", "required_operators.config"}
    assert names("executorch", "int8-dynamic") == {
        "artifact.json", "model.pte", "model.etrecord", "delegation.json",
    }  # fmt: skip
    delegation = json.loads(
        (made("bert", "executorch", "int8-dynamic").folder / "delegation.json").read_text()
    )
    assert delegation["delegated_flop_share"] == 1.0 and delegation["delegated_flops"] > 0
    assert "native_layer_norm" in delegation["left"]


@pytest.mark.parametrize("scheme", TARGETS["torchscript"].schemes)
def test_the_lite_interpreter_gives_the_same(made: Made, scheme: str) -> None:
    folder = made("bert", "torchscript", scheme).folder
    ids = np.arange(2, 20).reshape(2, 9)
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4])
    np.testing.assert_allclose(load_lite(folder, 1)(ids, mask), load(folder, 1)(ids, mask), atol=1e-5)
    sizes = [_tensor_bytes(folder / name) for name in ("model.pt", "model.ptl")]
    assert 0 < sizes[1] < 1.1 * sizes[0]  # not the weights twice


def _tensor_bytes(path: Path) -> int:
    """Of a TorchScript file's tensors, without its code and where that came from."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    return sum(one.file_size for one in entries if re.search(r"/(data|constants)/", one.filename))
