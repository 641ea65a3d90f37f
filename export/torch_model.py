"""Target "torch": the model folder itself, run by torch. Not an export: the source all exports answer to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.extras import require
from stillroom.student import load_model, load_student

if TYPE_CHECKING:
    from stillroom.export.targets import Predict


def import_runtime() -> None:
    """Load torch and transformers, so that their import can be timed apart from loading a model."""
    require("torch", "transformers")
    import torch  # noqa: F401  (the import is the point)
    import transformers

    transformers.AutoModelForSequenceClassification  # noqa: B018  (transformers loads its parts on first use)


def load(folder: Path, threads: int) -> Predict:
    """Open a model folder in fp32. Raises UsageError when it is not a whole model."""
    import_runtime()
    import torch

    torch.set_num_threads(threads)
    names = load_student(folder).task.inputs
    model = load_model(folder)

    def predict(*inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = {name: torch.from_numpy(array) for name, array in zip(names, inputs, strict=True)}
            return np.asarray(model(**batch).logits.numpy())

    return predict
