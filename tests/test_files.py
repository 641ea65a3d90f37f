"""Files are whole or as they were, whatever fails in between; and no path leads out of its folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillroom import files
from stillroom.errors import UsageError
from stillroom.files import (
    read_json,
    require_replaceable,
    require_space,
    safe_join,
    sha256_file,
    sha256_folder,
    sha256_json,
    staged_folder,
    write_atomic,
    write_json,
)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def full(*arguments: Any, **options: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


# Where a disk can fail while a file is written.
DISK_CALLS = [(Path, "replace"), (Path, "open"), (os, "fsync")]


@pytest.mark.parametrize("content", ["new", b"new\x00\xff", "سلام 😀", "", b""])
def test_write_atomic_writes(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    for _ in "twice":
        write_atomic(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path / "deep" / "er") == {"file.txt"}


@pytest.mark.parametrize(("place", "call"), DISK_CALLS)
def test_a_full_disk_leaves_the_old_file(
    place: Any, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(place, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, "new and longer")
    assert path.read_text("utf-8") == "old"
    assert names(tmp_path) == {"file.txt"}


def test_a_crash_before_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "file.txt", "old")

    def killed(path: Path, target: Path) -> None:
        assert path.parent == target.parent  # a rename is atomic only inside one file system
        assert path.read_text("utf-8") == "new"
        assert target.read_text("utf-8") == "old"
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file.txt", "new")
    assert (tmp_path / "file.txt").read_text("utf-8") == "old"


def test_the_content_is_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        order.append("fsync")
        fsync(descriptor)

    def watched_replace(path: Path, target: Path) -> Path:
        order.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_atomic(tmp_path / "file.txt", "new")
    assert order == ["fsync", "replace", "fsync"]  # the last one is the folder's


def test_content_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "file.txt", "half \ud83d a pair")
    assert (tmp_path / "file.txt").read_text("utf-8") == "old"
    assert names(tmp_path) == {"file.txt"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}, {"a": object()}])
def test_json_that_is_none_is_not_written(value: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert names(tmp_path) == {"a.json"}


plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    plain | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@given(json_values)
def test_json_comes_back(shared: Path, value: Any) -> None:
    # Not through write_json: a hundred fsyncs cost more than they show.
    (shared / "a.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    assert read_json(shared / "a.json") == value
    assert sha256_json(value) == sha256_json(json.loads(json.dumps(value)))


@given(st.dictionaries(text, plain, min_size=2, max_size=5))
def test_sha256_json_does_not_depend_on_key_order(value: dict[str, Any]) -> None:
    assert sha256_json(dict(reversed(value.items()))) == sha256_json(value)
    assert sha256_json({**value, next(iter(value)): "another"}) != sha256_json(value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"nothing", b"{'a': 1}", b"\xff\xfe{}", b'{"a": 1}x', b"[" * 100_000, b"9" * 5000],
    ids=["empty", "open", "word", "quotes", "not UTF-8", "more after", "deep", "huge number"],
)
def test_content_that_is_no_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_json_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="no such file"):
        read_json(tmp_path / "absent.json")
    for wrong in (tmp_path / "folder", tmp_path / "file" / "a.json"):
        with pytest.raises(UsageError, match="not a file"):
            read_json(wrong)


def test_json_files_are_of_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1,2]", encoding="utf-8")
    assert read_json(tmp_path / "a.json", max_bytes=5) == [1, 2]
    with pytest.raises(UsageError, match="is 5 bytes, at most 4 are read"):
        read_json(tmp_path / "a.json", max_bytes=4)


def filled(folder: Path, content: str) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text(content, encoding="utf-8")
    (folder / "inner" / "b.txt").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = filled(tmp_path / "out", "old")
    (folder / "only here before.txt").write_text("old", encoding="utf-8")
    return folder


def check_old(folder: Path) -> None:
    assert names(folder) == {"a.txt", "inner", "inner/b.txt", "only here before.txt"}
    assert (folder / "inner" / "b.txt").read_text("utf-8") == "old"


def test_staged_folder_takes_the_place_of_the_old_one(old: Path) -> None:
    for content in ("new", "newer"):
        with staged_folder(old) as partial:
            assert partial.parent == old.parent and not list(partial.iterdir())
            filled(partial / "x", content)
        assert names(old) == {"x", "x/a.txt", "x/inner", "x/inner/b.txt"}
        assert (old / "x" / "a.txt").read_text("utf-8") == content
        assert names(old.parent) == {"out", *(f"out/{name}" for name in names(old))}


def test_staged_folder_makes_its_parents(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a" / "b") as partial:
        (partial / "x").write_text("new", encoding="utf-8")
    assert names(tmp_path) == {"a", "a/b", "a/b/x"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_exception_inside_leaves_the_old_folder(error: type[BaseException], old: Path) -> None:
    with pytest.raises(error), staged_folder(old) as partial:
        filled(partial / "x", "new")
        raise error
    check_old(old)
    assert [path.name for path in old.parent.iterdir()] == ["out"]


def test_an_exception_inside_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError), staged_folder(tmp_path / "out") as partial:
        filled(partial / "x", "new")
        raise ValueError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_folder(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="No space left"),
        staged_folder(old) as partial,
    ):
        filled(partial / "x", "new")
        patch.setattr(os, "fsync", full)
    check_old(old)
    assert [path.name for path in old.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old_folder(
    failing: int, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = Path.rename, 0

    def sometimes_full(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        return full() if calls == failing else rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", sometimes_full)
        with pytest.raises(OSError, match="No space left"), staged_folder(old) as partial:
            filled(partial / "x", "new")
    check_old(old)
    with staged_folder(old) as partial:
        filled(partial / "x", "new")
    assert "x" in names(old) and [path.name for path in old.parent.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_not_used(old: Path) -> None:
    filled(old.parent / ".out.partial", "half")
    filled(old.parent / ".out.replaced", "older")
    with staged_folder(old) as partial:
        assert not list(partial.iterdir())
        (partial / "x").write_text("new", encoding="utf-8")
    assert names(old) == {"x"} and [path.name for path in old.parent.iterdir()] == ["out"]


def test_every_staged_file_is_on_disk_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    rename, fsync = Path.rename, files._fsync

    def watched(path: Path) -> None:
        synced.append(path.name)
        fsync(path)

    def checked(path: Path, target: Path) -> Path:
        assert {"a.txt", "inner", "b.txt", path.name} <= set(synced)
        return rename(path, target)

    monkeypatch.setattr(files, "_fsync", watched)
    monkeypatch.setattr(Path, "rename", checked)
    with staged_folder(tmp_path / "out") as partial:
        filled(partial / "x", "new")
    assert synced[-1] == tmp_path.name


def test_only_an_output_of_the_same_kind_is_replaced(old: Path, tmp_path: Path) -> None:
    require_replaceable(tmp_path / "absent", "artifact.json")
    (tmp_path / "empty").mkdir()
    require_replaceable(tmp_path / "empty", "artifact.json")
    with pytest.raises(UsageError, match=r"out holds other files \(no artifact\.json\)"):
        require_replaceable(old, "artifact.json")
    with pytest.raises(UsageError, match="is a file: an output folder is needed"):
        require_replaceable(old / "a.txt", "artifact.json")
    (old / "artifact.json").mkdir()
    with pytest.raises(UsageError, match="holds other files"):
        require_replaceable(old, "artifact.json")
    (old / "artifact.json").rmdir()
    (old / "artifact.json").touch()
    require_replaceable(old, "artifact.json")


def test_sha256_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def change_content(folder: Path) -> None:
    (folder / "inner" / "b.txt").write_text("other", encoding="utf-8")


def rename_file(folder: Path) -> None:
    (folder / "a.txt").rename(folder / "c.txt")


def rename_folder(folder: Path) -> None:
    (folder / "inner").rename(folder / "outer")


def add_empty(folder: Path) -> None:
    (folder / "empty").touch()


def move_across(folder: Path) -> None:
    (folder / "inner" / "b.txt").rename(folder / "b.txt")


def remove(folder: Path) -> None:
    (folder / "a.txt").unlink()


def swap(folder: Path) -> None:
    first, second = folder / "first", folder / "second"
    one, other = first.read_text("utf-8"), second.read_text("utf-8")
    first.write_text(other, encoding="utf-8")
    second.write_text(one, encoding="utf-8")


@pytest.mark.parametrize(
    "change", [change_content, rename_file, rename_folder, add_empty, move_across, remove, swap]
)
def test_sha256_folder_sees_names_and_contents(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = filled(tmp_path / "one", "same")
    (folder / "first").write_text("1", encoding="utf-8")
    (folder / "second").write_text("2", encoding="utf-8")
    before = sha256_folder(folder)
    assert sha256_folder(Path(shutil.copytree(folder, tmp_path / "copy"))) == before
    change(folder)
    assert sha256_folder(folder) != before


REFUSED = [
    *("", ".", "..", "../x", "a/../../x", "a/../b", "./a", "a/./b", "a//b", "a/"),
    *("/", "/etc/passwd", "//host/x", "C:/x", "C:\\x", "c:x", "a:b"),
    *("..\\x", "a\\..\\..\\x", "\\x", "\\\\host\\x", "a\0b"),
    *("\ud800", "a/\udfff"),  # JSON can spell them, no file can be called so
]


@pytest.mark.parametrize("relative", REFUSED)
def test_paths_that_could_lead_out_are_refused(relative: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unsafe path"):
        safe_join(tmp_path, relative)


@pytest.mark.parametrize(
    "relative", ["model.onnx", "a/b/c.json", "..a", "a..", "...", "a b", "é", "-x", "~", "a\\b"]
)
def test_paths_that_stay_inside(relative: str, tmp_path: Path) -> None:
    assert safe_join(tmp_path, relative) == tmp_path.joinpath(*relative.replace("\\", "/").split("/"))


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    filled(outside, "secret")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "a.txt")
    (root / "climbing").symlink_to("../outside")
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    (root / "neighbour").symlink_to(tmp_path / "root2")  # begins with the root's own name
    leading_out = ["folder", "folder/a.txt", "file", "climbing", "climbing/inner", "dangling", "neighbour"]
    for relative in leading_out:
        with pytest.raises(UsageError, match="unsafe path"):
            safe_join(root, relative)
    (root / "real").touch()
    (root / "inside").symlink_to("real")
    assert safe_join(root, "inside").samefile(root / "real")


pieces = st.sampled_from(
    ["..", ".", "", "a", "out", "loop", "/", "\\", ":", "C:", "\0", "~", "\ud800", "\udc80", "a" * 300]
)
any_path = (
    st.text(st.characters(exclude_categories=[]), max_size=30)
    | st.lists(pieces, max_size=6).map("/".join)
    | st.lists(pieces, max_size=6).map("".join)
)


@given(any_path)
@example("loop")
@example("out/x")
def test_any_string_stays_inside_or_is_refused(shared: Path, relative: str) -> None:
    root = shared / "root"
    root.mkdir(exist_ok=True)
    if not (root / "loop").is_symlink():
        (root / "out").symlink_to(shared)
        (root / "loop").symlink_to(root / "loop")
    try:
        path = safe_join(root, relative)
    except UsageError:
        return
    assert path.resolve() != root.resolve()
    assert path.resolve().is_relative_to(root.resolve())
    assert ".." not in path.relative_to(root).parts


def test_require_space_says_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=3_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    missing = tmp_path / "not" / "yet"
    require_space(missing, 3_000_000)
    with pytest.raises(UsageError, match=r"no disk space: 5 MB are needed under .*yet, 3 MB are free"):
        require_space(missing, 5_000_000)
    assert asked == [tmp_path, tmp_path]


def test_require_space_asks_for_a_relative_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    require_space(Path("not/yet"), 1)
    with pytest.raises(UsageError, match="no disk space"):
        require_space(Path("not/yet"), 2**62)
