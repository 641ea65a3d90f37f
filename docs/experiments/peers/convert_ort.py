"""onnxruntime's stock quantize_dynamic and quantize_static on the plain export, as its documentation says:
quant_pre_process first, then the function with its defaults. Without skip_symbolic_shape the former ends
with "Incomplete symbolic shape inference" for this file. A JSON request on standard input.

request: scheme ("dynamic" or "static"), plain (folder of the fp32 export), inputs (an .npz with
calibration_ids and calibration_offsets), out.
"""

import json
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def main(scheme: str, plain: str, inputs: str, out: str) -> None:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, prepared, result = (
        Path(plain) / "model.onnx",
        Path(out) / "prepared.onnx",
        Path(out) / "model.onnx",
    )
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    if scheme == "dynamic":
        quantize_dynamic(str(prepared), str(result))
    else:
        session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]

        class Texts(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime asks for a class of its own
            def __init__(self) -> None:
                self.rows = calibration(inputs, names)

            def get_next(self) -> dict[str, "np.ndarray"] | None:
                return next(self.rows, None)

        quantize_static(str(prepared), str(result), Texts())
    prepared.unlink()


def calibration(inputs: str, names: list[str]) -> Iterator[dict[str, "np.ndarray"]]:
    """The calibration texts as the file's inputs, one by one, without padding: int64 [1, tokens]."""
    arrays = np.load(inputs, allow_pickle=False)
    ids, offsets = arrays["calibration_ids"], arrays["calibration_offsets"]
    for start, end in pairwise(offsets):
        row = ids[start:end].astype(np.int64)[None, :]
        given = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        yield {name: given[name] for name in names}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    main(asked["scheme"], asked["plain"], asked["inputs"], asked["out"])
