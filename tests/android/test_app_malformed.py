"""Bundles that are wrong in every way we could think of, and in some that hypothesis did: a typed error each.

All are opened by one JVM process with a heap of 64 MB, without native code: what is tried is what the app
does before it hands a model file to its runtime.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from app_bundles import BUNDLES, copy_with, read_goldens
from bundle_opener import Opener, opening
from hypothesis import given, settings
from hypothesis import strategies as st
from jvm import App

from stillroom.errors import StillroomError
from stillroom.export.android.bundle import write_android_bundle
from stillroom.export.bundle import check_bundle

HEAP_MB = 64
SMALL_PHONE_HEAP_MB = 128
EXAMPLES = 400
# Fields of the manifest that say nothing to the app: their values are not looked at.
UNREAD = {
    "lineage", "parameters", "source_sha256", "proof", "differs", "tool_versions", "tolerance", "portable",
    "portable_evidence",
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(app: App) -> Iterator[Opener]:
    with opening(app, HEAP_MB) as opener:
        yield opener


@pytest.fixture(scope="module")
def good(app_bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle of text pairs, with a model file that takes no time to read."""
    return copy_with(
        app_bundles["pair"], tmp_path_factory.mktemp("good") / "bundle", {"model.onnx": b"model" * 20}
    )


@pytest.fixture
def copied(good: Path, tmp_path: Path) -> Callable[..., Path]:
    """The good bundle with other files, its manifest in step."""
    return lambda **contents: copy_with(
        good, tmp_path / "bundle", {name.replace("_", "."): content for name, content in contents.items()}
    )


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return found


def test_good_bundles_open(opened: Opener, app_bundles: dict[str, Path], good: Path, tmp_path: Path) -> None:
    assert {name: opened(folder) for name, folder in app_bundles.items()} == dict.fromkeys(BUNDLES, "ok")
    zipped = tmp_path / "bundle.zip"
    write_android_bundle(app_bundles["pair"].parent / "whole", zipped)
    assert opened(zipped, tmp_path / "into") == "ok"
    assert {path.name for path in (tmp_path / "into").iterdir()} == {path.name for path in good.iterdir()}


def test_links_and_what_is_no_file(opened: Opener, copied: Callable[..., Path], tmp_path: Path) -> None:
    folder = copied()
    outside = tmp_path / "outside.txt"
    for name in ("vocab.txt", "model.onnx", "manifest.json"):
        content = (folder / name).read_bytes()
        outside.write_bytes(content)
        (folder / name).unlink()
        assert opened(folder).startswith("Missing")
        (folder / name).symlink_to(outside)
        assert opened(folder).startswith("PathEscape")
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")
        assert opened(folder).startswith("PathEscape")
        (folder / name).unlink()
        (folder / name).symlink_to(name)  # a loop
        assert opened(folder).startswith(("PathEscape", "Missing"))
        (folder / name).unlink()
        (folder / name).mkdir()
        assert opened(folder).startswith("PathEscape")
        (folder / name).rmdir()
        os.mkfifo(folder / name)  # would block whoever opens it
        assert opened(folder).startswith("PathEscape")
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        assert opened(folder) == "ok"
    (folder / "more").mkdir()
    assert opened(folder).startswith("PathEscape")
    (folder / "more").rmdir()
    (folder / "more").symlink_to("/etc")
    assert opened(folder).startswith("PathEscape")
    assert opened(tmp_path / "nothing").startswith("Missing")
    assert opened(outside).startswith("Missing")


def test_huge_files_are_not_read(opened: Opener, copied: Callable[..., Path]) -> None:
    """Files with holes: as large as they say, without the disk that it would take."""
    folder = copied()
    manifest = manifest_of(folder)
    for name, size_bytes in (
        ("model.onnx", 3 * 2**30), ("model.onnx", 5 * 2**30), ("model.onnx", 2**62), ("model.onnx", 2**63),
        ("vocab.txt", 9 * 2**20), ("golden.json", 5 * 2**20), ("labels.txt", 2 * 2**20),
    ):  # fmt: skip
        before = (folder / name).read_bytes()
        if size_bytes < 2**40:
            os.truncate(folder / name, size_bytes)
        changed = json.loads(json.dumps(manifest))
        for entry in (*changed["files"], *changed["artifacts"]):
            if entry["file"] == name:
                entry["size_bytes"] = size_bytes
        (folder / "manifest.json").write_text(json.dumps(changed), encoding="utf-8")
        assert opened(folder).startswith("TooLarge" if size_bytes < 2**63 else "Malformed")
        (folder / name).write_bytes(before)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert opened(folder) == "ok"
    os.truncate(folder / "manifest.json", 2**31)
    assert opened(folder).startswith("TooLarge")


def test_texts_of_the_wrong_kind(opened: Opener, good: Path, tmp_path: Path) -> None:
    written = json.dumps(read_goldens(good))
    first = json.dumps(read_goldens(good)[0]["logits"])
    vocabulary = (good / "vocab.txt").read_bytes()
    manifest = (good / "manifest.json").read_text("utf-8")
    cases: list[tuple[str, bytes, str]] = [
        ("golden.json", written.replace(first, first.replace("[", "[NaN, ", 1), 1).encode(), "Malformed"),
        ("golden.json", written.replace(first, "[NaN, NaN, NaN]", 1).encode(), "Malformed"),
        ("golden.json", written.replace(first, "[1e400, 1, 2]", 1).encode(), "Malformed"),
        ("golden.json", written.replace(first, f"[{'9' * 400}, 1, 2]", 1).encode(), "Malformed"),
        ("golden.json", written.replace(first, "[null, 1, 2]", 1).encode(), "WrongGolden"),
        ("golden.json", written.replace(first, "[]", 1).encode(), "WrongGolden"),
        ("golden.json", b"[" * 1_000_000, "Malformed"),
        ("golden.json", b"[" + b"0," * 1_000_000 + b"0]", "Malformed"),
        ("golden.json", b"[]", "WrongGolden"),
        ("golden.json", b"{}", "Malformed"),
        ("golden.json", b"\xff\xfe[]", "Malformed"),
        ("golden.json", written.encode("utf-16"), "Malformed"),
        ("golden.json", written.replace('"text": ""', '"text": "\\ud83d"', 1).encode(), "Malformed"),
        ("vocab.txt", vocabulary[:40], "WrongGolden"),
        ("vocab.txt", vocabulary[:12], "Malformed"),
        ("vocab.txt", vocabulary + b"\xff\n", "Malformed"),
        ("vocab.txt", b"\n" * 700_000, "TooLarge"),
        ("vocab.txt", vocabulary * 2, "Malformed"),
        ("labels.txt", b"yes\nno\n", "Malformed"),
        ("labels.txt", b"yes\nno\nmaybe", "Malformed"),
    ]
    for number, (name, content, kind) in enumerate(cases):
        assert content != written.encode(), number
        reply = opened(copy_with(good, tmp_path / str(number), {name: content}))
        assert reply.startswith(f"{kind} "), (number, reply)
    folder = copy_with(good, tmp_path / "manifest", {})
    for number, (text, kind) in enumerate((
        ("", "Malformed"), ("[]", "Malformed"), ("3", "Malformed"), ("{" * 100_000, "Malformed"),
        ('{"a":' * 100_000, "Malformed"), (manifest[:-1], "Malformed"), (manifest + "{}", "Malformed"),
        (manifest.replace('"pair": true', '"pair": true, "pair": false'), "Malformed"),
        (manifest.replace('"pad_id": 0', '"pad_id": -1e999'), "Malformed"),
        (manifest.replace('"pad_id": 0', '"pad_id": NaN'), "Malformed"),
        (manifest.replace('"pad_id": 0', f'"pad_id": 1{"0" * 5000}'), "Malformed"),
        (manifest.replace('"schema_version": 3', '"schema_version": 99'), "Unsupported"),
        (manifest.replace('"version": "1.', '"version": "2.'), "WrongRuntime"),
        (manifest.replace('"target": "onnx"', '"target": "coreml"'), "WrongRuntime"),
        (manifest.replace('"kind": "WordPiece"', '"kind": "BPE"'), "Unsupported"),
        (manifest.replace('"file": "labels.txt"', '"file": "../labels.txt"'), "PathEscape"),
        (manifest.replace('"file": "labels.txt"', '"file": "/etc/passwd"'), "PathEscape"),
        (manifest.replace('"file": "labels.txt"', '"file": "a\\\\..\\\\b"'), "PathEscape"),
        (manifest.replace('"file": "labels.txt"', '"file": "labels.txt\\u0000"'), "PathEscape"),
        (manifest.replace('"file": "labels.txt"', '"file": "labels.txt\\n"'), "PathEscape"),
    )):  # fmt: skip
        assert text != manifest, number
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        assert opened(folder).startswith(f"{kind} "), (number, opened(folder))


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value within a JSON value is."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from paths_of(one, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """A copy of a JSON value with another one at a path; GONE takes it out."""
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    found = replaced(copy[path[0]], path[1:], change)
    if found is GONE:
        del copy[path[0]]
    else:
        copy[path[0]] = found
    return copy


GONE = object()
ODD = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.integers(-2, 200),
    st.sampled_from([2**31 - 1, 2**31, 2**32, 2**63, -(2**63), 10**40, 1e308, -0.0, 4.0, 0.5]),
    st.text(max_size=8),
    st.sampled_from(["../x", "/x", "a/b", "x\0", "\ud800", "x" * 5000, "٣", "1" * 5000, "ort"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    st.recursive(st.integers(), lambda inner: st.lists(inner, min_size=1, max_size=2), max_leaves=40),
)  # fmt: skip


@st.composite
def changes(draw: Any, document: Any) -> tuple[Any, tuple[Any, ...]]:
    """A document with one value changed, taken out or put beside, and where."""
    path = draw(st.sampled_from([path for path in paths_of(document) if path]))
    odd = GONE if draw(st.integers(0, 5)) == 0 else draw(ODD)
    if draw(st.integers(0, 9)) == 0:
        return replaced(document, path[:-1], lambda value: _with_more(value, odd)), path[:-1]
    return replaced(document, path, lambda _: odd), path


def _with_more(value: Any, odd: Any) -> Any:
    more = None if odd is GONE else odd
    return {**value, "more": more} if isinstance(value, dict) else [*value, more]


def test_changed_manifests(opened: Opener, good: Path, tmp_path: Path) -> None:
    """None is opened that Python's own check would refuse, and most are refused."""
    folder = copy_with(good, tmp_path / "bundle", {})
    refused: list[str] = []

    @settings(max_examples=EXAMPLES)
    @given(changes(manifest_of(folder)))
    def check(found: tuple[Any, tuple[Any, ...]]) -> None:
        manifest, path = found
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        reply = opened(folder)
        if reply != "ok":
            refused.append(reply)
        elif not UNREAD & set(path):
            try:
                check_bundle(folder)
            except StillroomError as error:
                raise AssertionError(f"opened, although {error}") from None

    check()
    assert len(refused) > EXAMPLES / 2


@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_changed_golden_vectors(
    name: str, opened: Opener, app_bundles: dict[str, Path], tmp_path: Path
) -> None:
    file = "model.ort" if name == "ort" else "model.onnx"
    base = copy_with(app_bundles[name], tmp_path / "base", {file: b"model"})
    goldens = read_goldens(base)
    numbers = iter(range(10**9))

    @settings(max_examples=EXAMPLES // len(BUNDLES))
    @given(changes(goldens))
    def check(found: tuple[Any, tuple[Any, ...]]) -> None:
        opened(copy_with(base, tmp_path / str(next(numbers)), {"golden.json": found[0]}))

    check()


def test_changed_bytes(opened: Opener, good: Path, tmp_path: Path) -> None:
    """Bytes of a file cut, changed or put in, its checksum in step or not."""
    names = ("manifest.json", "golden.json", "vocab.txt", "labels.txt", "model.onnx")
    numbers = iter(range(10**9))

    @settings(max_examples=EXAMPLES)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(names))
        content = (good / name).read_bytes()
        at = data.draw(st.integers(0, len(content)))
        gone = data.draw(st.sampled_from([0, 1, 3, len(content)]))
        changed = content[:at] + data.draw(st.binary(max_size=6)) + content[at + gone :]
        in_step = name != "manifest.json" and data.draw(st.booleans())
        folder = copy_with(good, tmp_path / str(next(numbers)), {name: changed} if in_step else {})
        (folder / name).write_bytes(changed)
        reply = opened(folder)
        if changed != content and name != "manifest.json" and not in_step:
            assert reply.startswith("WrongChecksum"), reply
        if reply == "ok" and name == "labels.txt":
            assert changed == content

    check()


def test_zips(opened: Opener, good: Path, tmp_path: Path) -> None:
    """Names that lead elsewhere, bombs, cut and changed archives: nothing is left of them."""
    into, zipped = tmp_path / "app" / "into", tmp_path / "bundle.zip"
    into.parent.mkdir()

    def pack(names: dict[str, bytes]) -> bytes:
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(good.iterdir()):
                archive.write(path, path.name)
            for name, content in names.items():
                archive.writestr(name, content)
        return zipped.read_bytes()

    names = st.one_of(
        st.text(min_size=1, max_size=12),
        st.sampled_from(
            ["../x", "/tmp/x", "a/../../x", "..\\x", "C:x", "folder/", ".x", "MANIFEST.JSON", "é", "x" * 300]
        ),
    )

    @settings(max_examples=EXAMPLES // 4)
    @given(st.dictionaries(names, st.sampled_from([b"", b"x", bytes(3 * 2**20)]), max_size=3), st.data())
    def check(more: dict[str, bytes], data: st.DataObject) -> None:
        content = bytearray(pack({name: one for name, one in more.items() if _can_be_named(name)}))
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        zipped.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
        reply = opened(zipped, into)
        assert into.exists() == (reply == "ok")
        assert [path.name for path in into.parent.iterdir()] == (["into"] if reply == "ok" else [])
        if reply == "ok":
            assert opened(into) == "ok"
            for path in into.iterdir():
                path.unlink()
            into.rmdir()

    check()
    pack({"bomb": bytes(200 * 2**20)})
    assert opened(zipped, into).startswith("TooLarge") and not into.exists()
    pack({f"file{number}": b"" for number in range(10_000)})
    assert opened(zipped, into).startswith("TooLarge") and not into.exists()


def _can_be_named(name: str) -> bool:
    return name.isprintable()


def test_the_largest_files_that_are_read_fit_a_small_phone(app: App, good: Path, tmp_path: Path) -> None:
    """All near their bounds: 8 MiB and 600,000 tokens of vocabulary, 4 MiB and 1000 golden vectors."""
    words = (good / "vocab.txt").read_text("utf-8").splitlines()
    words += [f"##w{number}" for number in range(600_000 - len(words))]
    words[-1] += "x" * (8 * 2**20 - sum(len(word) + 1 for word in words))
    golden = read_goldens(good)[0] | {"input_ids": [2] * 48, "token_type_ids": [0] * 48, "text": "ç" * 1700}
    goldens = json.dumps([golden] * 1000, ensure_ascii=False).encode()
    assert 0.9 * 4 * 2**20 < len(goldens) <= 4 * 2**20
    folder = copy_with(
        good,
        tmp_path / "bundle",
        {"vocab.txt": "".join(f"{word}\n" for word in words).encode(), "golden.json": goldens},
    )
    assert (folder / "vocab.txt").stat().st_size == 8 * 2**20
    manifest = manifest_of(folder)
    manifest["golden"]["count"] = 1000
    manifest["lineage"] = {"padding": "x" * 900_000}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with opening(app, SMALL_PHONE_HEAP_MB) as opener:
        assert opener(folder) == "ok"
