"""Tools of other projects: fetched only as their table has them, unpacked nowhere but where they belong."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stillroom import fetch
from stillroom.errors import UsageError
from stillroom.fetch import fetch_debs, fetch_wheel, unpack_npm


def deb(files: dict[str, bytes]) -> bytes:
    """A Debian archive with these files."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    found = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", inner.getvalue())):
        found += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        found += b"\n" * (len(content) % 2)
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address it is served at."""
    served = tmp_path / "served"
    served.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def table_of(folder: Path, address: str, sha256: str) -> Path:
    path = folder / "table.toml"
    path.write_text(
        f'archive = "{address}"\n[[deb]]\npart = "arm64"\npath = "a/b.deb"\nsha256 = "{sha256}"\n'
    )
    return path


def test_an_archive_is_fetched_once_checked_and_unpacked(tmp_path: Path, archive: tuple[Path, str]) -> None:
    served, address = archive
    content = deb({"./usr/lib/libx.so": b"library"})
    (served / "a").mkdir()
    (served / "a" / "b.deb").write_bytes(content)
    table = table_of(tmp_path, address, hashlib.sha256(content).hexdigest())
    done = fetch_debs(table, tmp_path / "phone")
    assert (done / "arm64/usr/lib/libx.so").read_bytes() == b"library"
    (served / "a" / "b.deb").unlink()
    assert fetch_debs(table, tmp_path / "phone") == done


@pytest.mark.parametrize("what", ["changed", "missing"])
def test_what_is_not_the_tables_file_is_refused_and_nothing_is_unpacked(
    tmp_path: Path, archive: tuple[Path, str], what: str
) -> None:
    served, address = archive
    if what == "changed":
        (served / "a").mkdir()
        (served / "a" / "b.deb").write_bytes(deb({"./evil": b""}))
    table = table_of(tmp_path, address, "ab" * 32)
    with pytest.raises(UsageError, match="has sha256 .* is wanted" if what == "changed" else "cannot fetch"):
        fetch_debs(table, tmp_path / "phone")
    assert [path for path in (tmp_path / "phone").rglob("*") if path.is_file()] == []


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, archive: tuple[Path, str]) -> None:
    served, address = archive
    content = deb({"../../../evil": b"x"})
    (served / "a").mkdir()
    (served / "a" / "b.deb").write_bytes(content)
    table = table_of(tmp_path, address, hashlib.sha256(content).hexdigest())
    with pytest.raises(tarfile.OutsideDestinationError):
        fetch_debs(table, tmp_path / "phone")
    assert not list(tmp_path.rglob("evil"))


def test_a_wheel_that_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "archives").mkdir()
    known = tmp_path / "archives" / "some-1.0-py3-none-any.whl"
    known.write_bytes(b"a wheel")
    entry = {"requirement": "some==1.0", "platform": "any", "sha256": hashlib.sha256(b"a wheel").hexdigest()}
    monkeypatch.setattr("stillroom.fetch.subprocess.run", lambda *given, **more: 1 / 0)
    assert fetch_wheel(entry, tmp_path) == known
    known.write_bytes(b"changed")  # then pip is asked
    with pytest.raises(ZeroDivisionError):
        fetch_wheel(entry, tmp_path)


def npm_package(files: dict[str, bytes], **changes: Any) -> bytes:
    """An npm archive with these files. changes: of every TarInfo, as mode or type."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as package:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for attribute, value in changes.items():
                setattr(member, attribute, value)
            package.addfile(member, io.BytesIO(content))
    return made.getvalue()


def served_entry(archive: tuple[Path, str], content: bytes, *files: str) -> dict[str, Any]:
    """The table's entry of a package that is served."""
    served, address = archive
    (served / "p-1.0.0.tgz").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return {"part": "p", "address": f"{address}p-1.0.0.tgz", "sha256": sha256, "files": list(files)}


def test_of_a_package_only_what_is_named_is_unpacked(tmp_path: Path, archive: tuple[Path, str]) -> None:
    files = {
        "package/bin/run": b"run",
        "package/bin/more/x": b"x",
        "package/binary": b"",
        "package/a.jar": b"a",
    }
    entry = served_entry(archive, npm_package(files, mode=0o755), "bin/", "a.jar")
    out = unpack_npm(entry, tmp_path / "tools", tmp_path / "out")
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == {"bin/run": b"run", "bin/more/x": b"x", "a.jar": b"a"}
    assert (out / "bin/run").stat().st_mode & 0o777 == 0o755
    (archive[0] / "p-1.0.0.tgz").unlink()  # a second call asks for nothing
    unpack_npm(entry, tmp_path / "tools", tmp_path / "again")
    assert (tmp_path / "again/a.jar").read_bytes() == b"a"


def test_a_package_without_the_file_is_refused(tmp_path: Path, archive: tuple[Path, str]) -> None:
    entry = served_entry(archive, npm_package({"package/a": b"a"}), "a", "lib/")
    with pytest.raises(UsageError, match=r"p-1\.0\.0\.tgz has no lib/"):
        unpack_npm(entry, tmp_path / "tools", tmp_path / "out")


@pytest.mark.parametrize("name", ["package/lib/../../../evil", "lib//evil", "package/lib/./evil"])
def test_a_package_cannot_lead_out_of_its_folder(
    tmp_path: Path, archive: tuple[Path, str], name: str
) -> None:
    entry = served_entry(archive, npm_package({name: b"x"}), "lib/")
    with pytest.raises(UsageError, match="unsafe path"):
        unpack_npm(entry, tmp_path / "tools", tmp_path / "out")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_of_a_package_are_refused(tmp_path: Path, archive: tuple[Path, str], kind: bytes) -> None:
    content = npm_package({"package/lib/a": b""}, type=kind, linkname="/etc/hostname")
    with pytest.raises(UsageError, match="lib/a is a link or a device"):
        unpack_npm(served_entry(archive, content, "lib/"), tmp_path / "tools", tmp_path / "out")
    assert not (tmp_path / "out/lib/a").exists()


def test_a_package_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, archive: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "MAX_UNPACKED_BYTES", 10)
    entry = served_entry(archive, npm_package({"package/a": b"12345678", "package/b": b"90x"}), "a", "b")
    with pytest.raises(UsageError, match="unpacks to more than 10 bytes"):
        unpack_npm(entry, tmp_path / "tools", tmp_path / "out")
    assert not (tmp_path / "out/b").exists()


def test_a_changed_package_is_refused(tmp_path: Path, archive: tuple[Path, str]) -> None:
    entry = served_entry(archive, npm_package({"package/a": b"a"}), "a") | {"sha256": "ab" * 32}
    with pytest.raises(UsageError, match=r"has sha256 .* is wanted: it was changed"):
        unpack_npm(entry, tmp_path / "tools", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fetching_loads_no_room_and_nothing_heavy() -> None:
    code = "import sys, stillroom.fetch; print(sorted(m for m in sys.modules if m.startswith('stillroom')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["stillroom", "stillroom.errors", "stillroom.fetch", "stillroom.files"])
