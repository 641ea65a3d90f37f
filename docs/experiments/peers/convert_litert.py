"""A LiteRT file from the student by litert-torch, fp32 or its int8 with dynamic activations.

A JSON request on standard input: scheme ("fp32" or "int8"), student, lengths, out. The converter could not
lower a dynamic length (torch.export.Dim: TypeError in its decompositions), so the file has one signature for
each length, which share the weights.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(scheme: str, student: str, lengths: list[int], out: str) -> None:
    import litert_torch  # type: ignore[import-not-found]
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        student, attn_implementation="eager", local_files_only=True
    ).eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    module, converter = Logits(), litert_torch
    for length in lengths:
        example = (
            torch.zeros((1, length), dtype=torch.int64), torch.ones((1, length), dtype=torch.int64),
        )  # fmt: skip
        converter = converter.signature(f"tokens_{length}", module, example)
    result = Path(out) / "model.tflite"
    converter.convert().export(str(result))
    if scheme == "int8":
        from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-not-found]

        made = quantizer.Quantizer(str(result))
        made.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        made.quantize().export_model(str(result), overwrite=True)
        result.chmod(0o644)  # it comes executable


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    main(asked["scheme"], asked["student"], asked["lengths"], asked["out"])
