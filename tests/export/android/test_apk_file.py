"""An APK's file: what is mapped lies on its border, and every byte of it belongs to a part."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.export.android.apk_file import (
    PAGE_BYTES,
    Entry,
    alignment_field,
    content_offset,
    part_of,
    sizes_of,
    write_apk,
)

MODEL, TOKENIZER = "assets/bundle/model.onnx", "assets/bundle/vocab.txt"


@given(st.integers(0, 10**9), st.sampled_from([4, 4096, 16384]))
def test_padding_ends_on_the_border_and_is_one_whole_extra_field(start: int, alignment: int) -> None:
    field = alignment_field(start, alignment)
    assert (start + len(field)) % alignment == 0 and len(field) < alignment + 6
    assert int.from_bytes(field[:2], "little") == 0xD935
    assert int.from_bytes(field[2:4], "little") == len(field) - 4
    assert int.from_bytes(field[4:6], "little") == alignment


@given(st.lists(st.tuples(st.binary(max_size=9000), st.sampled_from([0, 4, 4096, PAGE_BYTES])), max_size=6))
def test_content_comes_back_and_lies_where_it_was_wanted(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[bytes, int]]
) -> None:
    entries = [
        Entry(f"ü{number}.bin", content, alignment) for number, (content, alignment) in enumerate(wanted)
    ]
    path = tmp_path_factory.mktemp("apk") / "a.apk"
    write_apk(path, entries)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [entry.name for entry in entries]
        for entry, info in zip(entries, archive.infolist(), strict=True):
            assert archive.read(info) == entry.content
            if entry.alignment:
                start = content_offset(archive, info)
                assert start % entry.alignment == 0
                assert whole[start : start + len(entry.content)] == entry.content


def test_the_same_entries_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_apk(tmp_path / name, [Entry("classes.dex", b"dex" * 99), Entry(MODEL, b"model", 4096)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("classes.dex", "dex"),
        ("classes2.dex", "dex"),
        ("assets/classes.dex", "other"),
        ("lib/arm64-v8a/libonnxruntime.so", "runtime"),
        (MODEL, "model"),
        (TOKENIZER, "tokenizer"),
        ("res/layout/a.xml", "resources"),
        ("resources.arsc", "resources"),
        ("AndroidManifest.xml", "resources"),
        ("assets/bundle/golden.json", "other"),
        ("dev/stillroom/unicode.txt", "other"),
    ],
)
def test_every_file_belongs_to_one_part(name: str, part: str) -> None:
    assert part_of(name, MODEL, TOKENIZER) == part


def test_sizes_add_up_to_the_file(tmp_path: Path) -> None:
    entries = [Entry("classes.dex", b"x" * 5000), Entry("lib/arm64-v8a/a.so", b"y" * 70, PAGE_BYTES)]
    entries += [Entry(MODEL, b"z" * 300, 4096), Entry("assets/bundle/labels.txt", b"a\n")]
    write_apk(tmp_path / "a.apk", entries)
    sizes = sizes_of(tmp_path / "a.apk", MODEL, TOKENIZER)
    assert sizes["runtime"] == 70 and sizes["model"] == 300 and 0 < sizes["dex"] < 5000
    assert sizes["tokenizer"] == sizes["resources"] == 0
    assert sizes["other"] > PAGE_BYTES - 1000  # the padding before the library
    assert sum(sizes.values()) == (tmp_path / "a.apk").stat().st_size
