"""Target "torchscript": traced and frozen, for apps that already ship PyTorch Mobile.

PyTorch has deprecated TorchScript and its mobile runtime in favour of ExecuTorch; both still work.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import UsageError, first_line
from stillroom.extras import require, version_of
from stillroom.quiet import quiet
from stillroom.student import load_model

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions
    from stillroom.export.targets import Predict
    from stillroom.task import TaskSpec

FILE = "model.pt"
LITE_FILE = (
    "model.ptl"  # the same for the lite interpreter, which is what PyTorch Mobile's small library runs
)
SCHEMES = ("fp32", "int8-dynamic")


def tool_versions() -> dict[str, str]:
    """The tools whose version can change the file, or how it runs."""
    return {name: version_of(name) for name in ("torch", "transformers")}


def convert(model_folder: Path, task: TaskSpec, scheme: str, out: Path, options: ExportOptions) -> None:
    """Write out/model.pt and out/model.ptl, for any batch and length. Raises UsageError for a scheme."""
    if scheme not in SCHEMES:
        raise UsageError(f"torchscript has no scheme {scheme!r}: there are {', '.join(SCHEMES)}")
    require("torch", "transformers")
    import torch
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    from stillroom.export.encoder import ExportModel
    from stillroom.export.int8_embedding import Int8Embedding

    wrapped = ExportModel(load_model(model_folder), task.inputs, task.max_length, shorten=options.shorten)
    example = tuple(torch.ones(2, min(16, task.max_length), dtype=torch.long) for _ in task.inputs)
    with torch.inference_mode():
        if scheme == "int8-dynamic":
            wrapped.words = Int8Embedding(wrapped.words.weight)
            layers = {torch.nn.Linear: per_channel_dynamic_qconfig}
            quantize_dynamic(wrapped, layers, inplace=True)  # type: ignore[no-untyped-call]
            use_eight_bits(wrapped)
        traced = torch.jit.trace(wrapped, example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced), str(out / FILE))
        traced._save_for_lite_interpreter(str(out / LITE_FILE))  # frozen, it would hold packed weights twice


def use_eight_bits(model: Any) -> None:
    """Let quantized layers use all 8 bits of an activation, as ARM does.

    torch's own module asks for 7, a guard for x86 CPUs that add pairs of products in 16 bits: it doubles the
    rounding and changes twice as many labels.
    """
    import torch
    from torch.ao.nn.quantized.dynamic import Linear

    class EightBits(torch.nn.Module):
        def __init__(self, linear: Any) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            packed = self.linear._packed_params._packed_params
            return torch.as_tensor(torch.ops.quantized.linear_dynamic(x, packed, reduce_range=False))

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear):
                setattr(module, name, EightBits(child))


def import_runtime() -> None:
    """Load torch, so that its import can be timed apart from loading a model."""
    require("torch")
    import torch  # noqa: F401  (the import is the point)


def load(folder: Path, threads: int) -> Predict:
    """Open folder/model.pt. Raises UsageError when torch refuses it."""
    return _loaded(folder / FILE, threads, lite=False)


def load_lite(folder: Path, threads: int) -> Predict:
    """Open folder/model.ptl with the lite interpreter. Raises UsageError when torch refuses it."""
    return _loaded(folder / LITE_FILE, threads, lite=True)


def _loaded(path: Path, threads: int, *, lite: bool) -> Predict:
    require("torch")
    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    open_file: Any = _load_for_lite_interpreter if lite else torch.jit.load
    torch.set_num_threads(threads)
    try:
        with quiet():
            model = open_file(str(path))
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{path} could not be opened by torch {torch.__version__}: {first_line(error)}"
        ) from None

    def predict(*inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(*(torch.from_numpy(array) for array in inputs)).numpy())

    return predict
