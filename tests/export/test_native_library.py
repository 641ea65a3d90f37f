"""16 KB pages: libraries made here, segment by segment."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from stillroom.errors import UsageError
from stillroom.export.native_library import misaligned


def library(*alignments: int, bits: int = 64, kind: int = 1) -> bytes:
    """An ELF file with one loaded segment of each alignment, and nothing else."""
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, len(alignments), 64, 0, 0)
    segments = b"".join(
        struct.pack("<IIQQQQQQ", kind, 5, 0, 0, 0, 0, 0, alignment) for alignment in alignments
    )
    return ident + header + segments


@pytest.mark.parametrize(
    ("content", "bad"),
    [(library(16384, 16384), False), (library(65536), False), (library(16384, 4096), True),
     (library(4096), True), (library(4096, bits=32), False), (library(4096, kind=2), False),
     (library(16384, 16384)[:-8], True)],
)  # fmt: skip
def test_a_library(tmp_path: Path, content: bytes, bad: bool) -> None:
    (tmp_path / "lib.so").write_bytes(content)
    assert misaligned(tmp_path / "lib.so") == (["lib.so"] if bad else [])


def test_libraries_of_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.aar", "w") as archive:
        archive.writestr("jni/arm64-v8a/libgood.so", library(16384))
        archive.writestr("jni/arm64-v8a/libbad.so", library(4096))
        archive.writestr("jni/armeabi-v7a/libold.so", library(4096, bits=32))
        archive.writestr("classes.jar", b"not a library")
    assert misaligned(tmp_path / "app.aar") == ["jni/arm64-v8a/libbad.so"]


def test_what_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no library")
    with pytest.raises(UsageError, match=r"expected a \.so, \.aar or \.apk"):
        misaligned(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match=r"expected a \.so, \.aar or \.apk"):
        misaligned(tmp_path / "nowhere.apk")
    (tmp_path / "lib.so").write_text("no library either")
    with pytest.raises(UsageError, match="is not an ELF library"):
        misaligned(tmp_path / "lib.so")
