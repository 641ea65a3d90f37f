"""Who takes part, and how each is made and opened: one row a peer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    environment: folder below build/peers whose Python converts and runs it, "" for this project's own.
    converter: script beside this one. loader: of time_one.py. ships: what an app would ship of what the
    converter writes; the first of it is what is opened. settings: in words. again: measures another's files
    a second time.
    """

    name: str
    environment: str
    converter: str
    scheme: str
    loader: str
    ships: tuple[str, ...]
    settings: str
    again: str = ""

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        environment = ROOT / "build" / "peers" / self.environment
        return environment / "bin" / "python" if self.environment else Path(sys.executable)

    @property
    def made_as(self) -> str:
        """The name of its files: those of another for an A/A row."""
        return self.again or self.name


OURS = "stillroom onnx int8-dynamic"
AGAIN = f"{OURS}, again"
PLAIN = "optimum onnx fp32"  # what other tools start from
NOTHING = "no model"

ONNX, EXECUTORCH = ("model.onnx",), ("model.pte",)


def _ours(cell: str, words: str, again: str = "") -> Peer:
    target = cell.partition("-")[0]
    loader, ships = ("executorch", EXECUTORCH) if target == "executorch" else ("onnxruntime", ONNX)
    name = f"stillroom {cell.replace('-', ' ', 1)}"
    return Peer(
        AGAIN if again else name, "", "convert_ours.py", cell, loader, ships, words, again
    )  # fmt: skip


PEERS = (
    _ours("onnx-fp32", "our export; the last layer is computed for the first token only"),
    _ours("onnx-int8-dynamic", "our default"),
    _ours("onnx-int8-dynamic", "the same file a second time: what differs from the row above is noise", OURS),
    _ours("onnx-int8-static", "ranges by the best rule over the calibration texts"),
    _ours("onnx-int4", "weights of 4 bits, rounded by GPTQ over the calibration texts"),
    _ours("executorch-int8-dynamic", "8-bit weights and activations (8da8w), XNNPACK"),
    _ours("executorch-int8-static", "PT2E over the calibration texts, XNNPACK"),
    Peer(PLAIN, "optimum", "convert_optimum.py", "fp32", "onnxruntime", ONNX, "main_export, its defaults"),
    Peer(
        "optimum onnx int8 avx512_vnni", "optimum", "convert_optimum.py", "avx512_vnni", "onnxruntime", ONNX,
        "ORTQuantizer with AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)",
    ),
    Peer(
        "optimum onnx int8 arm64", "optimum", "convert_optimum.py", "arm64", "onnxruntime", ONNX,
        "ORTQuantizer with AutoQuantizationConfig.arm64(is_static=False, per_channel=False)",
    ),
    Peer(
        "onnxruntime quantize_dynamic", "optimum", "convert_ort.py", "dynamic", "onnxruntime", ONNX,
        "quant_pre_process without symbolic shapes, which fail, then quantize_dynamic with its defaults, on "
        "optimum's fp32 file",
    ),
    Peer(
        "onnxruntime quantize_static", "optimum", "convert_ort.py", "static", "onnxruntime", ONNX,
        "quant_pre_process without symbolic shapes, which fail, then quantize_static with its defaults (QDQ, "
        "int8, MinMax) and the calibration texts, on optimum's fp32 file",
    ),
    Peer(
        "OpenVINO fp32", "openvino", "convert_openvino.py", "fp32", "openvino", ("model.xml", "model.bin"),
        "convert_model of optimum's fp32 file; weights kept in fp32",
    ),
    Peer(
        "OpenVINO NNCF int8", "openvino", "convert_openvino.py", "int8", "openvino",
        ("model.xml", "model.bin"),
        "nncf.quantize of the same, model_type TRANSFORMER, over the calibration texts; else its defaults",
    ),
    Peer(
        "LiteRT fp32", "litert", "convert_litert.py", "fp32", "litert", ("model.tflite",),
        "litert-torch, signatures for 64 and 128 tokens in one file; shorter texts are padded",
    ),
    Peer(
        "LiteRT int8 dynamic", "litert", "convert_litert.py", "int8", "litert", ("model.tflite",),
        "the same by ai-edge-quantizer's dynamic_wi8_afp32",
    ),
    Peer(
        "torch fp32", "", "convert_torch.py", "fp32", "torch", ("",),
        "transformers, eager: the student itself",
    ),
    Peer(
        "torch int8 dynamic", "", "convert_torch.py", "int8", "torchscript", ("model.pt",),
        "torch.ao.quantization.quantize_dynamic of the linear maps, traced to TorchScript",
    ),
)  # fmt: skip
