"""Are an app's native libraries aligned to 16 KB pages? Android 15 devices with such pages refuse others.

Reads the program headers of 64-bit ELF files (https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from stillroom.errors import UsageError

PAGE_BYTES = 16384
MAX_LIBRARY_BYTES = 512 * 2**20
LOADED = 1  # p_type of a segment that is mapped into memory


def misaligned(path: Path) -> list[str]:
    """Names of the libraries in a .so, .aar or .apk that a device with 16 KB pages cannot load.

    32-bit libraries do not run on such devices and are left out. Raises UsageError for any other file.
    """
    return [name for name, content in _libraries(path) if _is_64_bit(content, name) and not _aligned(content)]


def _libraries(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".so":
        yield path.name, path.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".so"):
                    if entry.file_size > MAX_LIBRARY_BYTES:
                        raise UsageError(
                            f"{path}: {entry.filename} has {entry.file_size} bytes, too many to read"
                        )
                    yield entry.filename, archive.read(entry)
    except (zipfile.BadZipFile, OSError) as error:
        raise UsageError(f"{path}: expected a .so, .aar or .apk ({error})") from None


def _is_64_bit(content: bytes, name: str) -> bool:
    if content[:4] != b"\x7fELF" or len(content) < 64:
        raise UsageError(f"{name} is not an ELF library")
    return content[4] == 2


def _aligned(content: bytes) -> bool:
    """Every loaded segment of a little-endian 64-bit ELF file."""
    (first,) = struct.unpack_from("<Q", content, 32)
    entry_bytes, count = struct.unpack_from("<HH", content, 54)
    try:
        headers = [
            struct.unpack_from("<IIQQQQQQ", content, first + index * entry_bytes) for index in range(count)
        ]
    except struct.error:
        return False
    return all(header[7] >= PAGE_BYTES for header in headers if header[0] == LOADED)
