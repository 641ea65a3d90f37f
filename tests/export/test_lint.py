"""Each thing that would hurt on a phone is found where it is, and not where it is not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from stillroom.artifact import Artifact
from stillroom.export import export
from stillroom.export.lint import RULES, in_words, lint, load_bytes
from stillroom.export.lint_facts import Facts, of_onnx
from stillroom.export.options import ExportOptions

GOOD = Facts(dynamic=False, int64_inputs=False)


@pytest.fixture
def artifact(exported: Callable[..., Artifact]) -> Artifact:
    return exported("bert", "int8-dynamic")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"fp32_embeddings": True}, "word embeddings are fp32"),
        ({"attention_layers": 3, "fused_attention": 2}, "fused in 2 of 3 layers"),
        ({"left": {"layer_norm": 7}, "delegated_flop_share": 0.9}, "10.0% of the arithmetic: 7 layer_norm"),
        ({"int64_inputs": True}, "inputs are int64"),
        ({"most_negative": -3.4e38}, "infinite in fp16"),
        ({"dynamic": True}, "any input length"),
        (
            {"operators": {"Attention": 3, "Add": 9}, "opset": 23},
            "opset 23 with Add, Attention: onnxruntime 1.23 or newer, 1.22 refuses it",
        ),
        ({"operators": {"QuantizeLinear": 3}, "opset": 23}, "onnxruntime 1.24 or newer, 1.23 refuses it"),
        ({"load_bytes": 10**9}, "loading takes 1000 MB at its peak"),
    ],
)
def test_what_hurts(artifact: Artifact, changed: dict[str, object], what: str) -> None:
    found = [finding for rule in RULES if (finding := rule(artifact, replace(GOOD, **changed)))]
    assert len(found) == 1 and what in found[0].what and found[0].remedy
    assert in_words(tuple(found)).count("\n") == 1


def test_what_depends_on_the_file(artifact: Artifact) -> None:
    def found(changed: Artifact, facts: Facts) -> list[str]:
        return [finding.what for rule in RULES if (finding := rule(changed, facts))]

    assert found(artifact, GOOD) == []
    assert "101 MB: over 100" in found(replace(artifact, size_bytes=101_000_000), GOOD)[0]
    wide = replace(GOOD, largest_dimension=30522)
    assert found(artifact, wide) == []  # only the Neural Engine minds
    assert "a dimension of 30522: over 16384" in found(replace(artifact, target="coreml"), wide)[0]


def test_an_onnx_file_is_read(exported: Callable[..., Artifact]) -> None:
    facts = of_onnx(exported("bert", "fp32"))
    assert facts.dynamic and facts.int64_inputs and facts.fp32_embeddings and facts.opset == 23
    assert facts.fused_attention == facts.attention_layers == 2
    assert facts.largest_dimension == 5000 and -20000 < facts.most_negative <= -10000
    assert not of_onnx(exported("bert", "int8-dynamic")).fp32_embeddings


def test_a_graph_of_another_exporter(artifact: Artifact, tmp_path: Path) -> None:
    """Softmax instead of Attention, the smallest float as mask, one fixed length."""
    mask = helper.make_tensor("mask", TensorProto.FLOAT, [1], [-3.4028235e38])
    nodes = [helper.make_node("Add", ["x", "mask"], ["y"]), helper.make_node("Softmax", ["y"], ["z"])]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "z")]
    graph = helper.make_graph(nodes, "other", value[:1], value[1:], [mask])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "model.onnx")
    facts = of_onnx(replace(artifact, folder=tmp_path))
    assert (facts.attention_layers, facts.fused_attention, facts.opset) == (1, 0, 17)
    assert facts.most_negative < -1e38 and not facts.dynamic and not facts.int64_inputs


def test_loading_is_measured(artifact: Artifact) -> None:
    assert 0 < load_bytes(artifact) < 500e6
    assert load_bytes(replace(artifact, proof="interpreted")) == 0


@pytest.mark.parametrize("target", ["torchscript", "executorch", "coreml", "ort"])
def test_every_format_is_looked_over(model_folder: Callable[..., Path], tmp_path: Path, target: str) -> None:
    scheme = "fp16" if target == "coreml" else "int8-dynamic"
    options = ExportOptions((24,)) if target in ("executorch", "coreml") else ExportOptions()
    found = [
        finding.what for finding in lint(export(model_folder("bert"), target, scheme, tmp_path, options))
    ]
    assert any("any input length" in what for what in found) == (target in ("torchscript", "ort"))
    assert any("int64" in what for what in found) == (target != "coreml")
    assert any("layer_norm" in what for what in found) == (target == "executorch")
    assert any("made for ExecuTorch 1.4.1" in what for what in found) == (target == "executorch")
    assert any("onnxruntime 1.23 or newer" in what for what in found) == (target == "ort")
    if target == "ort":
        assert "with Attention, Cast, " in next(what for what in found if what.startswith("opset 23"))


def test_a_library_is_looked_at_too(artifact: Artifact, tmp_path: Path) -> None:
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, 4096)  # loaded, aligned to 4 KB
    (tmp_path / "libruntime.so").write_bytes(header + segment)
    assert "not aligned to 16 KB" in lint(artifact, [tmp_path / "libruntime.so"])[-1].what
