"""Distillation: teacher, losses, layers, training loop, evaluation.

The names below load torch when they are first used, not when this package is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# name -> the file it is in
PUBLIC = {
    "LossWeights": "objective",
    "StudentShape": "distill",
    "Teaching": "distill",
    "TrainSettings": "train",
    "distill_from_model": "distill",
}
__all__ = ["LossWeights", "StudentShape", "Teaching", "TrainSettings", "distill_from_model"]

if TYPE_CHECKING:
    from stillroom.distill.distill import StudentShape, Teaching, distill_from_model
    from stillroom.distill.objective import LossWeights
    from stillroom.distill.train import TrainSettings


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(importlib.import_module(f"stillroom.distill.{PUBLIC[name]}"), name)
    raise AttributeError(f"module 'stillroom.distill' has no attribute {name!r}")
