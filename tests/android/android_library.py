"""An Android x86-64 library made loadable on Linux: the same code, without its ties to Android's C library.

https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html
"""

from __future__ import annotations

import struct
from collections.abc import Collection

PT_LOAD, PT_DYNAMIC = 1, 2
SHT_DYNSYM = 11
DT_NULL, DT_NEEDED, DT_STRTAB, DT_VERSYM, DT_VERNEED = 0, 1, 5, 0x6FFFFFF0, 0x6FFFFFFE
DT_IGNORED = 0x6FFFFEF0  # in the range of the operating system, of no meaning to glibc
STB_WEAK = 2
SYMBOL_BYTES = 24
BIONIC = ("libc.so", "libm.so", "libdl.so")  # Linux has these by other names, loaded with the process


def for_linux(library: bytes, optional: Collection[str] = ()) -> bytes:
    """library without the versions that it wants of its symbols, and without need of Android's C library.

    optional: functions that may be missing, as nothing calls them. Raises ValueError when one is not among
    the library's undefined symbols, or the library is not ELF for 64 bits.
    """
    image = bytearray(library)
    if image[:5] != b"\x7fELF\x02":
        raise ValueError("not a library of 64 bits")
    segments = _segments(image)
    (dynamic,) = (offset for kind, offset, _, _ in segments if kind == PT_DYNAMIC)
    tags = {}
    for at in _entries(image, dynamic):
        tag, value = struct.unpack_from("<QQ", image, at)
        tags.setdefault(tag, value)
    strings = _offset(segments, tags[DT_STRTAB])
    for at in _entries(image, dynamic):
        tag, value = struct.unpack_from("<QQ", image, at)
        if tag in (DT_VERSYM, DT_VERNEED) or (tag == DT_NEEDED and _text(image, strings + value) in BIONIC):
            struct.pack_into("<Q", image, at, DT_IGNORED)
    missing = set(optional)
    for at in _symbols(image):
        name, info, _, section = struct.unpack_from("<IBBH", image, at)
        if section == 0 and _text(image, strings + name) in missing:
            image[at + 4] = STB_WEAK << 4 | info & 0xF
            missing.remove(_text(image, strings + name))
    if missing:
        raise ValueError(f"the library does not refer to {min(missing)}")
    return bytes(image)


def _segments(image: bytearray) -> list[tuple[int, int, int, int]]:
    """(kind, offset in the file, address, size in the file) of each segment."""
    (table,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    found = []
    for at in range(table, table + size * count, size):
        kind, _, offset, address, _, file_size = struct.unpack_from("<IIQQQQ", image, at)
        found.append((kind, offset, address, file_size))
    return found


def _entries(image: bytearray, dynamic: int) -> list[int]:
    """Where the entries of the dynamic section are, up to the one that ends it."""
    found, at = [], dynamic
    while struct.unpack_from("<Q", image, at)[0] != DT_NULL:
        found.append(at)
        at += 16
    return found


def _symbols(image: bytearray) -> range:
    """Where the symbols are that are looked up when the library is loaded."""
    (table,) = struct.unpack_from("<Q", image, 40)
    size, count = struct.unpack_from("<HH", image, 58)
    for at in range(table, table + size * count, size):
        kind, _, _, offset, length = struct.unpack_from("<IQQQQ", image, at + 4)
        if kind == SHT_DYNSYM:
            return range(offset, offset + length, SYMBOL_BYTES)
    raise ValueError("the library has no table of symbols")


def _offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    """Where in the file an address is loaded from."""
    return next(
        offset + address - start
        for kind, offset, start, size in segments
        if kind == PT_LOAD and start <= address < start + size
    )


def _text(image: bytearray, at: int) -> str:
    return image[at : image.index(0, at)].decode("ascii", "replace")
