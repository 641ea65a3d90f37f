"""Files that are either whole or absent: temporary name, fsync, rename; checksums and safe paths."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError

MAX_JSON_BYTES = 64 * 2**20  # far above any file we write; a bound for files we did not


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write content to path so that a reader, or a crash, sees the old file or the new one."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _fsync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write value as indented JSON, atomically. NaN and infinity are refused (ValueError)."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of bounded size. Raises UsageError when it is missing, too large or not JSON."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            raise UsageError(f"{path} is {size_bytes} bytes, at most {max_bytes} are read")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (NotADirectoryError, IsADirectoryError):
        raise UsageError(f"not a file: {path}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or absurd numbers and depths
        raise UsageError(f"{path} is not valid JSON: {error}") from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Yield an empty sibling folder; on success it takes the place of path, on failure it is removed.

    Every file is fsynced before the rename, so a folder that carries the final name is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for file in sorted(partial.rglob("*")):
            _fsync(file)
        _fsync(partial)
        replaced = path.with_name(f".{path.name}.replaced")
        _remove(replaced)
        try:
            if path.exists():
                path.rename(replaced)
            partial.rename(path)
        except BaseException:  # an interrupt too must not leave the old content under another name
            if replaced.exists() and not path.exists():
                replaced.rename(path)
            raise
        _fsync(path.parent)
        _remove(replaced)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_replaceable(path: Path, marker: str) -> None:
    """Raise UsageError unless path is absent, empty, or a folder of the kind that holds the marker file.

    What a user names as an output is replaced whole: nothing else of theirs may lie there.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file: an output folder is needed")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise UsageError(f"{path} holds other files (no {marker}): choose another folder")


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: Path) -> str:
    """Hex sha256 over the relative names and contents of all files below a folder, in name order."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return combined_sha256({file.relative_to(path).as_posix(): sha256_file(file) for file in files})


def combined_sha256(sha256_by_name: dict[str, str]) -> str:
    """sha256_folder of a folder whose files have these relative names and checksums."""
    digest = hashlib.sha256()
    for name in sorted(sha256_by_name, key=lambda name: name.split("/")):
        digest.update(f"{name}\0{sha256_by_name[name]}\n".encode())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """sha256_file of a file, sha256_folder of a folder (a Core ML package is one)."""
    return sha256_folder(path) if path.is_dir() else sha256_file(path)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


def sha256_json(value: Any) -> str:
    """Hex sha256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def safe_join(root: Path, relative: str) -> Path:
    """Join a path read from an untrusted file to root. Raises UsageError if it would leave root."""
    parts = relative.replace("\\", "/").split("/")
    if not relative or relative.startswith(("/", "\\")) or ":" in relative or "\0" in relative:
        raise UsageError(f"unsafe path {relative!r}: a relative path inside {root} is needed")
    if any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"unsafe path {relative!r}: no empty part, '.' or '..' is allowed")
    path = root.joinpath(*parts)
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name that no file can have
        inside = False
    if not inside:
        raise UsageError(f"unsafe path {relative!r}: it leads out of {root}")
    return path


def is_disk_full(error: BaseException) -> bool:
    """True when an error says that the disk is full: as OSError, or in a native library's own words."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return os.strerror(errno.ENOSPC) in str(error)


def require_space(path: Path, needed_bytes: int, remedy: str = "") -> None:
    """Raise UsageError with both numbers when the disk under path has less than needed_bytes free.

    remedy: what to do about it.
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise UsageError(
            f"no disk space: {needed_bytes / 1e6:.0f} MB are needed under {path}, "
            f"{free_bytes / 1e6:.0f} MB are free" + (f"; {remedy}" if remedy else "")
        )
