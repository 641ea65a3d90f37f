"""An exported file with what is known of it: checksum, size, inputs, tool versions, tolerance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.files import read_json, safe_join, sha256_of, size_of, write_json
from stillroom.task import TaskSpec, task_from_dict

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Artifact:
    """folder/file is the model, a file or, for Core ML, a folder.

    source_sha256: of the model.safetensors it was made from. parameters: of that model. lengths: tokens an
    input may have; empty for any up to the task's max_length; a shorter input is padded to the next.
    tolerance: the bounds it must hold against its source. proof: how its answers are computed here ("run",
    or in whose stead). differs: why a second export has other bytes, "" when it has the same.
    portable: no CPU cuts off its sums of 8-bit products. portable_evidence: why that is known; see
    export/portable.py.
    """

    folder: Path
    file: str
    target: str
    scheme: str
    task: TaskSpec
    size_bytes: int
    sha256: str
    parameters: int
    source_sha256: str
    lengths: tuple[int, ...]
    proof: str
    differs: str
    tool_versions: dict[str, str]
    tolerance: dict[str, float]
    portable: bool
    portable_evidence: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / self.file


def save_artifact(artifact: Artifact) -> None:
    """Write artifact.json beside the model file."""
    facts = {**asdict(artifact), "task": artifact.task.to_dict(), "lengths": list(artifact.lengths)}
    del facts["folder"]
    write_json(artifact.folder / "artifact.json", {"schema_version": SCHEMA_VERSION, **facts})


def load_artifact(folder: Path) -> Artifact:
    """Read artifact.json and check size and checksum. Raises UsageError when anything does not fit."""
    facts: Any = read_json(folder / "artifact.json")
    if not isinstance(facts, dict) or facts.pop("schema_version", None) != SCHEMA_VERSION:
        raise UsageError(
            f"{folder / 'artifact.json'}: expected schema_version {SCHEMA_VERSION}; export again"
        )
    try:
        read = {"task": task_from_dict(facts.get("task")), "lengths": tuple(map(int, facts["lengths"]))}
        artifact = Artifact(folder=folder, **{**facts, **read})
        path = safe_join(folder, artifact.file)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise UsageError(f"{folder / 'artifact.json'} is not an artifact description: {error}") from None
    check_file(path, artifact.size_bytes, artifact.sha256)
    return artifact


def check_file(path: Path, size_bytes: int, sha256: str) -> None:
    """Raise UsageError unless the file, or folder, is there with this size and checksum."""
    if not path.exists():
        raise UsageError(f"{path} is missing")
    if size_of(path) != size_bytes:
        raise UsageError(
            f"{path} has {size_of(path)} bytes, {size_bytes} were announced: truncated or changed"
        )
    if (found := sha256_of(path)) != sha256:
        raise UsageError(
            f"{path} has sha256 {found[:12]}..., {str(sha256)[:12]}... was announced: it was changed"
        )
