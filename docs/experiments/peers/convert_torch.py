"""Plain torch: the student as transformers saves it, or torch.ao's dynamic int8, traced to TorchScript.

A JSON request on standard input: scheme ("fp32" or "int8"), student, out. TorchScript because eager int8
weights have no file of their own but a pickle.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(scheme: str, student: str, out: str) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(student, local_files_only=True)
    model.eval()
    if scheme == "fp32":
        model.save_pretrained(out)
        return
    quantize: Any = torch.ao.quantization.quantize_dynamic
    small = quantize(model, {torch.nn.Linear}, dtype=torch.qint8)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = small

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits

    ids = torch.full((1, 17), 5)  # any length: nothing of it is kept
    with torch.inference_mode():
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            Logits(), (ids, torch.ones_like(ids), torch.zeros_like(ids)), check_trace=False
        )
    traced.save(str(Path(out) / "model.pt"))


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    main(asked["scheme"], asked["student"], asked["out"])
