"""Files for a device: fetched only as the table has them, read back only as they were built."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stillroom.benchmarks.phone import device_files
from stillroom.benchmarks.phone.device_files import LIBRARIES, load_runner
from stillroom.benchmarks.phone.fetch import fetch_debs, fetch_wheel, read_table
from stillroom.errors import UsageError
from stillroom.files import write_json


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


def test_every_entry_of_the_table_is_pinned() -> None:
    table = read_table(device_files.TABLE)
    entries = [*table["deb"], *table["wheel"]]
    assert len(entries) >= 5 and table["archive"].startswith("https://")
    assert all(len(entry["sha256"]) == 64 for entry in entries)
    assert all("==" in entry["requirement"] for entry in table["wheel"])


def test_the_runtime_is_the_one_that_proves_the_files() -> None:
    import onnxruntime

    (runtime,) = (one for one in read_table(device_files.TABLE)["wheel"] if one["part"] == "onnxruntime")
    assert runtime["requirement"] == f"onnxruntime=={onnxruntime.__version__}"


def test_a_runner_that_is_not_there_or_was_changed_says_how_to_make_it(tmp_path: Path) -> None:
    hint = "python -m stillroom.benchmarks.phone.device_files"
    with pytest.raises(UsageError, match=f"there is no arm64 runner in .*{hint}"):
        load_runner(tmp_path)
    device = tmp_path / "device"
    device.mkdir()
    for name in (*LIBRARIES, device_files.RUNTIME, device_files.PROGRAM):
        (device / name).write_text(name)
    write_json(device / "files.json", device_files._facts(device))
    assert load_runner(tmp_path).files["runner"] == device / "runner"
    (device / "libc.so.6").write_text("another")
    with pytest.raises(UsageError, match=f"is not of this version: {hint}"):
        load_runner(tmp_path)
    (device / "libc.so.6").unlink()
    with pytest.raises(UsageError, match="is not of this version"):
        load_runner(tmp_path)
    assert json.loads((device / "files.json").read_text())["files"]["libc.so.6"]


def test_a_wheel_that_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "archives").mkdir()
    known = tmp_path / "archives" / "some-1.0-py3-none-any.whl"
    known.write_bytes(b"a wheel")
    entry = {"requirement": "some==1.0", "platform": "any", "sha256": hashlib.sha256(b"a wheel").hexdigest()}
    monkeypatch.setattr("stillroom.benchmarks.phone.fetch.subprocess.run", lambda *given, **more: 1 / 0)
    assert fetch_wheel(entry, tmp_path) == known
    known.write_bytes(b"changed")  # then pip is asked
    with pytest.raises(ZeroDivisionError):
        fetch_wheel(entry, tmp_path)
