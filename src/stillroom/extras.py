"""Heavy packages live behind extras; a missing one is named together with the line that installs it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from stillroom.errors import UsageError

# module name -> the extra that brings it
EXTRA_OF = {
    "torch": "train",
    "transformers": "train",
    "safetensors": "train",
    "accelerate": "train",
    "datasets": "train",
    "onnxruntime": "runtime",
    "tokenizers": "runtime",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime_extensions": "text-input",
    "executorch": "executorch",
    "torchao": "executorch",
    "coremltools": "coreml",
    "sklearn": "coreml",
    "pyarrow": "parquet",
    "matplotlib": "report",
}

# where a package is not named as its module
DISTRIBUTION_OF = {"sklearn": "scikit-learn", "onnxruntime_extensions": "onnxruntime-extensions"}


def require(*modules: str) -> None:
    """Raise UsageError naming the pip line unless every module can be found; imports nothing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UsageError(f'this needs {module}: pip install "stillroom[{EXTRA_OF[module]}]"')


def version_of(distribution: str) -> str:
    """The installed version of a distribution, or "" when it is not installed; imports nothing.

    distribution: its name, or that of the one module it brings.
    """
    try:
        return importlib.metadata.version(DISTRIBUTION_OF.get(distribution, distribution))
    except importlib.metadata.PackageNotFoundError:
        return ""


def packaged_path(reference: str) -> Path:
    """Turn "package:DISTRIBUTION/path/inside" into a path, without importing the package.

    Raises UsageError when the distribution or the file is missing.
    """
    distribution, _, inside = reference.removeprefix("package:").partition("/")
    try:
        path = Path(str(importlib.metadata.distribution(distribution).locate_file(inside)))
    except (importlib.metadata.PackageNotFoundError, ValueError):  # ValueError: no name at all
        raise UsageError(
            f'the package {distribution} is not installed: pip install "stillroom[demo]"'
        ) from None
    if not path.exists():
        raise UsageError(f"{distribution} is installed but has no {inside}: reinstall it")
    return path


def resolve_source(reference: str) -> Path:
    """A path as the user gave it, or one inside an installed package ("package:DISTRIBUTION/path")."""
    return packaged_path(reference) if reference.startswith("package:") else Path(reference).expanduser()
