"""The arm64 runner and its libraries: fetched by hash, built, and read back as files to push to a device.

python -m stillroom.benchmarks.phone.device_files FOLDER
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from stillroom.benchmarks.phone.adb_runner import Runner
from stillroom.benchmarks.phone.compile import ARM64, compile_c
from stillroom.errors import StillroomError, UsageError
from stillroom.fetch import fetch_debs, unpack_wheel
from stillroom.files import sha256_file, staged_folder, write_json
from stillroom.progress import say

HERE = Path(__file__).parent
TABLE = HERE / "device_files.toml"
SOURCE = HERE / "runner.c"
DEFAULT_FOLDER = Path("build/phone")
LOADER = "ld-linux-aarch64.so.1"
LIBRARIES = (
    *(LOADER, "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"),
    *("libstdc++.so.6", "libgcc_s.so.1"),
)
RUNTIME = "libonnxruntime.so.1"
PROGRAM = "runner"
HEADERS = "usr/include/onnxruntime"
BUILD_HINT = "python -m stillroom.benchmarks.phone.device_files"


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
        for name in LIBRARIES:
            shutil.copyfile((system / name).resolve(), partial / name)
        (partial / LOADER).chmod(0o755)  # it is started itself
        runtime = unpack_wheel(TABLE, "onnxruntime", folder, Path(work) / "onnxruntime")
        (library,) = runtime.glob("onnxruntime/capi/libonnxruntime.so.1*")
        shutil.copyfile(library, partial / RUNTIME)
        compiler = unpack_wheel(TABLE, "compiler", folder, Path(work) / "compiler")
        compile_c(compiler, ARM64, SOURCE, partial / PROGRAM, [f"-I{unpacked}/{HEADERS}"])
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
