"""Export, parity and golden vectors."""

from stillroom.export.targets import export, load_predictor

__all__ = ["export", "load_predictor"]
