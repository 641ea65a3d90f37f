"""An APK as a ZIP file: what is mapped lies uncompressed on a page's border; its size by part."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = 16384  # of newer phones, whose loader maps libraries from the APK
MODEL_BYTES = 4096  # any multiple of what a model's own content is aligned to would do
WORD_BYTES = 4  # resources are read where they lie
EPOCH = (1981, 1, 1, 1, 1, 2)  # the same content gives the same file
# An extra field of Android's own: the alignment, then zeros. apksigner reads it and keeps the place.
ALIGNMENT_FIELD = 0xD935
LOCAL_HEADER_BYTES = 30
EXTRA_FIELD = struct.Struct("<HHH")
# Parts of the size table, in its order.
DEX, RUNTIME, MODEL, TOKENIZER, RESOURCES, OTHER = (
    "dex",
    "runtime",
    "model",
    "tokenizer",
    "resources",
    "other",
)


@dataclass(frozen=True)
class Entry:
    """One file of an APK. alignment: of its content in bytes, where it is stored as it is; 0: compressed."""

    name: str
    content: bytes
    alignment: int = 0


def write_apk(path: Path, entries: Iterable[Entry]) -> None:
    """Write entries, in their order, into an unsigned APK."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, EPOCH)
            info.external_attr = 0o644 << 16
            if entry.alignment:
                start = archive.fp.tell() + LOCAL_HEADER_BYTES + len(entry.name.encode())  # type: ignore[union-attr]
                info.extra = alignment_field(start, entry.alignment)
                info.compress_type = zipfile.ZIP_STORED
            else:
                info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.content)


def alignment_field(start: int, alignment: int) -> bytes:
    """The extra field that, at byte start of a file, ends where a multiple of alignment begins."""
    zeros = -(start + EXTRA_FIELD.size) % alignment
    # The length counts what follows it: the alignment's two bytes and the zeros.
    return EXTRA_FIELD.pack(ALIGNMENT_FIELD, 2 + zeros, alignment) + bytes(zeros)


def content_offset(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Where in the file an entry's content begins."""
    file = archive.fp
    assert file is not None
    file.seek(info.header_offset + LOCAL_HEADER_BYTES - 4)
    name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
    return info.header_offset + LOCAL_HEADER_BYTES + int(name_bytes) + int(extra_bytes)


def part_of(name: str, model: str, tokenizer: str) -> str:
    """The part of the size table that a file in the APK belongs to. model, tokenizer: names of assets."""
    if name.endswith(".dex") and "/" not in name:
        return DEX
    if name.startswith("lib/"):
        return RUNTIME
    if name.startswith("res/") or name in ("resources.arsc", "AndroidManifest.xml"):
        return RESOURCES
    return {model: MODEL, tokenizer: TOKENIZER}.get(name, OTHER)


def sizes_of(path: Path, model: str, tokenizer: str) -> dict[str, int]:
    """Bytes of each part of an APK as they lie in it; together its size.

    other: the bundle's small files, the app's tables, and what the file itself needs: names, padding,
    signatures.
    """
    sizes = dict.fromkeys((DEX, RUNTIME, MODEL, TOKENIZER, RESOURCES, OTHER), 0)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            sizes[part_of(info.filename, model, tokenizer)] += info.compress_size
    sizes[OTHER] += path.stat().st_size - sum(sizes.values())
    return sizes
