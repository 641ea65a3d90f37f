"""Exported ONNX files: equal to their source, small, described, checked, and whole or absent."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from stillroom.artifact import Artifact, load_artifact
from stillroom.errors import UsageError
from stillroom.export import export, load_predictor
from stillroom.export.golden import GOLDEN_TEXTS
from stillroom.export.options import ExportOptions
from stillroom.export.targets import TARGETS, split_name
from stillroom.files import sha256_folder
from stillroom.scheme import SCHEMES
from stillroom.student import load_student
from stillroom.task import TaskSpec
from stillroom.tokens import encode_one, load_tokenizer

MAX_LENGTH = 80
FP32_BOUND = 1e-4
# Two to four times what these models show, for CPUs that saturate some int8 products. Attention far from
# uniform makes them harder to round than trained ones; DistilBERT's head has no tanh to hold it back.
INT8_BOUNDS = {"bert": 0.4, "distilbert": 0.9, "roberta": 0.4, "xlm-roberta": 0.4}
SCHEMES_THERE = ("fp32", "int8-dynamic")
FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta")
CELLS = "onnx-fp32, onnx-fp16, onnx-int8-dynamic, .*coreml-palette4"

every_family = pytest.mark.parametrize("family", FAMILIES)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES_THERE)

Exported = Callable[..., Artifact]
Reference = Callable[..., np.ndarray]
BatchOf = Callable[..., dict[str, np.ndarray]]


def bound(family: str, scheme: str) -> float:
    return FP32_BOUND if scheme == "fp32" else INT8_BOUNDS[family]


def pad_id(model: Path) -> int:
    return int(json.loads((model / "config.json").read_text())["pad_token_id"])


def copied(artifact: Artifact, folder: Path) -> Path:
    shutil.copytree(artifact.folder, folder)
    return folder


def rewritten(folder: Path, **facts: Any) -> None:
    path = folder / "artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


# --- equal to the source


@pytest.mark.parametrize(
    "lengths", [(1,), (2,), (17,), (MAX_LENGTH,), (17, 1, 5), (MAX_LENGTH, 40, 2)], ids=str
)
@every_scheme
@every_family
def test_equals_transformers(
    exported: Exported, model_folder: Callable[..., Path], reference: Reference, batch_of: BatchOf,
    family: str, scheme: str, lengths: Sequence[int],
) -> None:  # fmt: skip
    artifact, model = exported(family, scheme), model_folder(family)
    batch = batch_of(lengths, artifact.task.inputs, pad_id(model))
    found = load_predictor("onnx", artifact.folder, 1)(*batch.values())
    assert found.shape == (len(lengths), 2)
    assert found.dtype == np.float32
    assert np.abs(found - reference(model, **batch)).max() <= bound(family, scheme)


@every_scheme
@every_family
def test_equals_transformers_on_text(
    exported: Exported, model_folder: Callable[..., Path], reference: Reference, texts: tuple[str, ...],
    family: str, scheme: str,
) -> None:  # fmt: skip
    artifact, model = exported(family, scheme), model_folder(family)
    predict, tokenizer = load_predictor("onnx", artifact.folder, 1), load_tokenizer(model, MAX_LENGTH)
    wanted, errors = [], []
    for text in (*texts, *GOLDEN_TEXTS):
        ids = np.array([encode_one(tokenizer, text)[0]])
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        wanted.append(reference(model, **batch))
        errors.append(predict(*batch.values()) - wanted[-1])
        assert np.abs(errors[-1]).max() <= bound(family, scheme), text
    # A graph that lost a scale or a weight may stay in bounds, but tells texts apart no more.
    spread = np.std(np.concatenate(wanted), axis=0).mean()
    assert spread > 0.2
    assert np.sqrt(np.square(errors).mean()) <= 0.3 * spread


@pytest.mark.parametrize("lengths", [(1,), (33,), (MAX_LENGTH, 9, 3)], ids=str)
def test_pairs_with_the_last_layer_kept_whole_equal_transformers(
    exported: Exported, model_folder: Callable[..., Path], reference: Reference, batch_of: BatchOf,
    lengths: Sequence[int],
) -> None:  # fmt: skip
    artifact, model = exported("bert", "fp32", pair=True), model_folder("bert", pair=True)
    assert artifact.task.inputs == ("input_ids", "attention_mask", "token_type_ids")
    batch = batch_of(lengths, artifact.task.inputs, 0)
    predict = load_predictor("onnx", artifact.folder, 1)
    found, wanted = predict(*batch.values()), reference(model, **batch)
    assert np.abs(found - wanted).max() <= FP32_BOUND
    if lengths[0] > 1:
        one_type = {**batch, "token_type_ids": np.zeros_like(batch["token_type_ids"])}
        assert np.abs(predict(*one_type.values()) - wanted).max() > 0.01


def test_shorten_decides_about_the_last_layer(exported: Exported) -> None:
    def queries_cut(artifact: Artifact) -> int:
        """Slices and gathers along the tokens before the last layer's attention."""
        nodes = list(onnx.load(artifact.path).graph.node)
        last = max(at for at, node in enumerate(nodes) if node.op_type == "Attention")
        first = min(at for at, node in enumerate(nodes) if node.op_type == "Attention")
        return sum(node.op_type in ("Slice", "Gather", "Split") for node in nodes[first:last])

    assert queries_cut(exported("bert", "fp32")) == 1
    assert queries_cut(exported("bert", "fp32", pair=True)) == 0  # made with shorten=False


@every_scheme
@every_family
def test_the_same_question_gets_the_same_answer(
    exported: Exported, batch_of: BatchOf, family: str, scheme: str
) -> None:
    artifact = exported(family, scheme)
    predict = load_predictor("onnx", artifact.folder, 1)
    batch = batch_of((30, 12), artifact.task.inputs, 0)
    assert np.array_equal(predict(*batch.values()), predict(*batch.values()))
    operators = {node.op_type for node in onnx.load(artifact.path).graph.node}
    assert not {"Dropout", "RandomUniformLike", "RandomNormalLike", "Bernoulli"} & operators


@every_scheme
@every_family
def test_inputs_are_those_of_the_task(exported: Exported, family: str, scheme: str) -> None:
    artifact = exported(family, scheme)
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    assert tuple(entry.name for entry in inputs) == artifact.task.inputs
    assert all(entry.type == "tensor(int64)" for entry in inputs)
    assert all(isinstance(size, str) for entry in inputs for size in entry.shape)  # a name: any size
    assert [entry.name for entry in session.get_outputs()] == ["logits"]


# --- the file


def large_weights(artifact: Artifact, at_least_bytes: int) -> list[tuple[int, tuple[int, ...]]]:
    """Type and shape of the weights that make the file's size: all but the position table, which is small."""
    return sorted(
        (tensor.data_type, tuple(sorted(tensor.dims)))
        for tensor in onnx.load(artifact.path).graph.initializer
        if onnx.numpy_helper.to_array(tensor).nbytes > at_least_bytes
        and tuple(tensor.dims) not in ((MAX_LENGTH, 64), (MAX_LENGTH + 1, 64))
    )


@every_family
def test_int8_keeps_no_large_float(exported: Exported, family: str) -> None:
    # Four square matrices and two of the feed-forward per layer; one in the head; the word embeddings.
    wanted = [(64, 64)] * 9 + [(64, 128)] * 4 + [(64, 5000)]
    floats = large_weights(exported(family, "fp32"), 10_000)
    assert floats == [(onnx.TensorProto.FLOAT, shape) for shape in wanted]
    bytewise = large_weights(exported(family, "int8-dynamic"), 2_500)
    assert sorted(shape for _, shape in bytewise) == wanted
    assert {kind for kind, _ in bytewise} <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


@every_family
def test_int8_is_much_smaller_when_embeddings_dominate(exported: Exported, family: str) -> None:
    assert exported(family, "int8-dynamic").size_bytes < 0.35 * exported(family, "fp32").size_bytes


@every_scheme
def test_the_file_tells_nothing_about_the_machine_that_made_it(exported: Exported, scheme: str) -> None:
    # It is shipped inside an app; a path names the user, and makes the file differ from machine to machine.
    content = exported("bert", scheme).path.read_bytes()
    assert str(Path(torch.__file__).parents[1]).encode() not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content


def test_exporting_twice_gives_the_same_bytes(
    exported: Exported, model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    # int8 goes through fp32, so this one shows both.
    first = exported("distilbert", "int8-dynamic")
    again = export(model_folder("distilbert"), "onnx", "int8-dynamic", tmp_path / "again")
    assert again.path.read_bytes() == first.path.read_bytes()
    assert replace(again, folder=first.folder) == first


# --- its description


@every_scheme
def test_artifact_round_trip(
    exported: Exported, model_folder: Callable[..., Path], new_model: Callable[..., Any], scheme: str
) -> None:
    artifact, model = exported("xlm-roberta", scheme), model_folder("xlm-roberta")
    assert load_artifact(artifact.folder) == artifact
    assert sorted(path.name for path in artifact.folder.iterdir()) == [
        "artifact.json", "config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    content = artifact.path.read_bytes()
    assert (artifact.file, artifact.target, artifact.scheme) == ("model.onnx", "onnx", scheme)
    assert (artifact.size_bytes, artifact.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert artifact.parameters == sum(weight.numel() for weight in new_model("xlm-roberta").parameters())
    weights = (model / "model.safetensors").read_bytes()
    assert artifact.source_sha256 == hashlib.sha256(weights).hexdigest()
    assert artifact.task == load_student(model).task == TaskSpec(
        ("negative", "positive"), MAX_LENGTH, ("input_ids", "attention_mask")
    )  # fmt: skip
    assert set(artifact.tool_versions) >= {"torch", "transformers", "onnx", "onnxruntime"}
    for name, version in artifact.tool_versions.items():
        assert version == importlib.metadata.version(name)
    wanted = SCHEMES[scheme].tolerance
    assert artifact.tolerance == {
        "max_abs_error": wanted.max_abs_error,
        "decided_flip_rate": wanted.decided_flip_rate,
    }
    assert str(artifact.folder) not in (artifact.folder / "artifact.json").read_text()


@pytest.mark.parametrize("at", [0, 0.5, -1])
def test_one_changed_byte_is_found(exported: Exported, tmp_path: Path, at: float) -> None:
    folder = copied(exported("bert", "int8-dynamic"), tmp_path / "artifact")
    content = bytearray((folder / "model.onnx").read_bytes())
    content[at if isinstance(at, int) else int(at * len(content))] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"model\.onnx has sha256 .* it was changed"):
        load_artifact(folder)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda _: b"", lambda data: data + b"\0"])
def test_another_size_is_found(exported: Exported, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    folder = copied(exported("bert", "int8-dynamic"), tmp_path / "artifact")
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(change(content))
    with pytest.raises(UsageError, match=rf"{len(change(content))} bytes, {len(content)} were announced"):
        load_artifact(folder)


@pytest.mark.parametrize("name", ["model.onnx", "artifact.json"])
def test_a_missing_file_is_named(exported: Exported, tmp_path: Path, name: str) -> None:
    folder = copied(exported("bert", "int8-dynamic"), tmp_path / "artifact")
    (folder / name).unlink()
    with pytest.raises(UsageError, match=name):
        load_artifact(folder)


@pytest.mark.parametrize(
    "file", ["../other/model.onnx", "/etc/hostname", "", ".", "C:model.onnx", "a\\..\\b"]
)
def test_a_file_outside_the_folder_is_refused(exported: Exported, tmp_path: Path, file: str) -> None:
    folder = copied(exported("bert", "int8-dynamic"), tmp_path / "artifact")
    copied(exported("bert", "int8-dynamic"), tmp_path / "other")
    rewritten(folder, file=file)
    with pytest.raises(UsageError, match="unsafe path"):
        load_artifact(folder)


@pytest.mark.parametrize(
    "facts",
    [
        {"schema_version": 1}, {"schema_version": None}, {"task": None}, {"task": {"labels": ["one"]}},
        {"size_bytes": None}, {"size_bytes": "many"}, {"sha256": 3}, {"sha256": []},
        {"file": 3}, {"file": None}, {"file": ["model.onnx"]}, {"nobody": "knows"},
    ],
    ids=str,
)  # fmt: skip
def test_a_description_of_something_else_is_refused(
    exported: Exported, tmp_path: Path, facts: dict[str, Any]
) -> None:
    folder = copied(exported("bert", "int8-dynamic"), tmp_path / "artifact")
    rewritten(folder, **facts)
    with pytest.raises(UsageError):
        load_artifact(folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{", '{"schema_version": 2}', "\ufeff{}", "3"], ids=repr
)
def test_a_file_that_is_no_description_is_refused(exported: Exported, tmp_path: Path, content: str) -> None:
    folder = copied(exported("bert", "int8-dynamic"), tmp_path / "artifact")
    (folder / "artifact.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError):
        load_artifact(folder)


# --- what cannot be exported


@pytest.mark.parametrize(
    ("target", "scheme"), [("tflite", "fp32"), ("onnx", "palette4"), ("", ""), ("ONNX", "fp32")]
)
def test_an_unknown_cell_names_those_there_are(
    model_folder: Callable[..., Path], tmp_path: Path, target: str, scheme: str
) -> None:
    with pytest.raises(UsageError, match=CELLS) as raised:
        export(model_folder("bert"), target, scheme, tmp_path / "out")
    assert f"{target}-{scheme}" in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_names_of_cells() -> None:
    assert split_name("onnx-fp32") == ("onnx", "fp32")
    assert split_name("onnx-int8-dynamic") == ("onnx", "int8-dynamic")
    for name in ("onnx", "onnx-", "int8-dynamic", "onnx-int8", "torch-fp32"):
        with pytest.raises(UsageError, match=CELLS):
            split_name(name)


def test_the_conversion_itself_refuses_an_unknown_scheme(
    model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    task = load_student(model_folder("bert")).task
    with pytest.raises(UsageError, match="palette4"):
        TARGETS["onnx"].convert(model_folder("bert"), task, "palette4", tmp_path, ExportOptions())
    assert not list(tmp_path.iterdir())


def test_a_failing_conversion_leaves_nothing_and_touches_nothing(
    exported: Exported, model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_done(folder: Path, task: TaskSpec, scheme: str, out: Path, options: ExportOptions) -> None:
        (out / "model.onnx").write_bytes(b"half")
        raise RuntimeError("the disk is full")

    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], convert=half_done))
    with pytest.raises(RuntimeError, match="the disk is full"):
        export(model_folder("bert"), "onnx", "fp32", tmp_path / "new")
    assert not list(tmp_path.iterdir())
    existing = copied(exported("bert", "int8-dynamic"), tmp_path / "existing")
    before = sha256_folder(existing)
    with pytest.raises(RuntimeError, match="the disk is full"):
        export(model_folder("bert"), "onnx", "fp32", existing)
    assert sha256_folder(existing) == before
    assert list(tmp_path.iterdir()) == [existing]


def test_a_folder_of_other_things_is_not_replaced(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")
    with pytest.raises(UsageError, match=r"holds other files \(no artifact\.json\)"):
        export(model_folder("bert"), "onnx", "fp32", tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        export(model_folder("bert"), "onnx", "fp32", tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "the only copy"


@pytest.mark.parametrize("layers", [1, 3])
def test_weights_of_other_layers_than_the_config_announces_are_refused(
    model_folder: Callable[..., Path], tmp_path: Path, layers: int
) -> None:
    # Loading such a folder makes up the missing layer at random, or drops one: a model nobody trained.
    model = tmp_path / "model"
    shutil.copytree(model_folder("bert"), model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    with pytest.raises(UsageError):
        load_predictor("torch", model, 1)


def test_a_folder_that_is_no_model_is_refused(
    exported: Exported, model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no model folder"):
        export(tmp_path / "nowhere", "onnx", "fp32", tmp_path / "out")
    with pytest.raises(UsageError, match=r"has no weights: expected model\.safetensors"):
        export(exported("bert", "int8-dynamic").folder, "onnx", "fp32", tmp_path / "out")
    with pytest.raises(UsageError, match=r"config\.json"):
        export(Path(__file__).parent, "onnx", "fp32", tmp_path / "out")
    truncated = tmp_path / "truncated"
    shutil.copytree(model_folder("bert"), truncated)
    weights = (truncated / "model.safetensors").read_bytes()
    (truncated / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(UsageError, match="safetensors"):
        export(truncated, "onnx", "fp32", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [truncated]


# --- what cannot be loaded


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 500, b"\0" * 4096], ids=len)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"model\.onnx could not be opened") as raised:
        load_predictor("onnx", tmp_path, 1)
    assert "\n" not in str(raised.value)


def test_half_a_model_or_none_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.onnx could not be opened"):
        load_predictor("onnx", tmp_path, 1)
    content = exported("bert", "int8-dynamic").path.read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r"model\.onnx could not be opened"):
        load_predictor("onnx", tmp_path, 1)


def test_an_unknown_target_cannot_be_loaded(exported: Exported) -> None:
    with pytest.raises(UsageError, match="tflite"):
        load_predictor("tflite", exported("bert", "int8-dynamic").folder, 1)
