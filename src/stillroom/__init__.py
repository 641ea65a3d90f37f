"""stillroom: distill a BERT teacher, quantize, export, prove and measure it for phones.

Importing this package loads no torch, transformers or onnxruntime; each room loads what it needs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Official onnxruntime builds carry telemetry that is on by default; it must be off before they load.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
__all__ = ["__version__", "load_bundle"]

if TYPE_CHECKING:
    from stillroom.export.bundle import load_bundle


def __getattr__(name: str) -> Any:
    if name == "load_bundle":
        from stillroom.export.bundle import load_bundle

        return load_bundle
    raise AttributeError(f"module 'stillroom' has no attribute {name!r}")
