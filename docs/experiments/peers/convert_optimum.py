"""optimum's default export, and its dynamic int8 with one of its presets. A JSON request on standard input.

request: scheme ("fp32", "avx512_vnni" or "arm64"), student (a Hugging Face folder), plain (the folder of the
fp32 export, which the other two start from), out.
"""

import json
import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def main(scheme: str, student: str, plain: str, out: str) -> None:
    from optimum.exporters.onnx import main_export  # type: ignore[import-not-found]
    from optimum.onnxruntime import ORTQuantizer  # type: ignore[import-not-found]
    from optimum.onnxruntime.configuration import (  # type: ignore[import-not-found]
        AutoQuantizationConfig,
    )

    if scheme == "fp32":
        main_export(student, out, task="text-classification", local_files_only=True)
        return
    preset = getattr(AutoQuantizationConfig, scheme)(is_static=False, per_channel=False)
    ORTQuantizer.from_pretrained(plain, file_name="model.onnx").quantize(
        quantization_config=preset, save_dir=out, file_suffix=""
    )
    if not (Path(out) / "model.onnx").is_file():
        raise FileNotFoundError(f"optimum wrote no model.onnx, only {sorted(Path(out).iterdir())}")


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    main(asked["scheme"], asked["student"], asked["plain"], asked["out"])
