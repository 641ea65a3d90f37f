"""OpenVINO's own file from the plain ONNX export, fp32 or int8 by NNCF's post-training quantization.

A JSON request on standard input: scheme ("fp32" or "int8"), plain, inputs (an .npz with calibration_ids and
calibration_offsets), out. int8: model_type TRANSFORMER, as NNCF's documentation says for BERT, otherwise its
defaults, but all calibration rows instead of the first 300.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np


def main(scheme: str, plain: str, inputs: str, out: str) -> None:
    import openvino  # type: ignore[import-not-found]

    model = openvino.convert_model(Path(plain) / "model.onnx")
    if scheme == "int8":
        import nncf  # type: ignore[import-not-found]

        rows = calibration(inputs, [entry.get_any_name() for entry in model.inputs])
        model = nncf.quantize(
            model, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
        )
    # Weights stay as they are computed: by default they would be halved to fp16.
    openvino.save_model(model, Path(out) / "model.xml", compress_to_fp16=False)


def calibration(inputs: str, names: list[str]) -> list[dict[str, Any]]:
    """The calibration texts as the model's inputs, without padding: int64 [1, tokens]."""
    arrays = np.load(inputs, allow_pickle=False)
    ids, offsets = arrays["calibration_ids"], arrays["calibration_offsets"]
    rows = []
    for start, end in pairwise(offsets):
        row = ids[start:end].astype(np.int64)[None, :]
        given = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        rows.append({name: given[name] for name in names})
    return rows


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    main(asked["scheme"], asked["plain"], asked["inputs"], asked["out"])
