"""--for: what each row of the table makes of an export, and that an option of the user's wins."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from stillroom.artifact import load_artifact
from stillroom.cli import main
from stillroom.devices import DEVICES
from stillroom.export.targets import split_name

ROOT = Path(__file__).parents[1]


def test_the_table_is_documented() -> None:
    row = next(
        line for line in (ROOT / "docs" / "formats.md").read_text("utf-8").splitlines() if "`--for` |" in line
    )
    assert all(name in row for name in DEVICES)
    for device in DEVICES.values():
        split_name(device.format)


@pytest.mark.parametrize(
    ("device", "kind", "most", "portable"), [("android", "INT8", 127, True), ("server", "UINT8", 64, True)]
)
def test_static_int8_for(
    device: str, kind: str, most: int, portable: bool, tiny_teacher: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"the food was great {number}\n" for number in range(20)), "utf-8")
    out = tmp_path / "out"
    arguments = [
        "export",
        str(tiny_teacher),
        "--format",
        "onnx-int8-static",
        "--for",
        device,
    ]
    assert main([*arguments, "--calibration", str(texts), "--out", str(out)]) == 0
    assert load_artifact(out).portable == portable
    graph = onnx.load(out / "model.onnx").graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    zeros = {values[node.input[2]].data_type for node in graph.node if node.op_type == "QuantizeLinear"}
    assert zeros == {getattr(onnx.TensorProto, kind)}
    linear = [
        onnx.numpy_helper.to_array(values[node.input[0]])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in values
    ]
    weights = [array for array in linear if array.dtype == "int8"]  # the others are biases
    assert weights and max(abs(array.astype(int)).max() for array in weights) <= most
