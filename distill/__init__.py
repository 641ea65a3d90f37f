"""Distillation: teacher, losses, layers, training loop, evaluation.

The names below load torch when they are first used, not when this package is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["LossWeights", "distill_from_model"]

if TYPE_CHECKING:
    from stillroom.distill.distill import LossWeights, distill_from_model


def __getattr__(name: str) -> Any:
    if name in __all__:
        from stillroom.distill import distill

        return getattr(distill, name)
    raise AttributeError(f"module 'stillroom.distill' has no attribute {name!r}")
