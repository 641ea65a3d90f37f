"""The app's Kotlin on this machine's JVM, with the Android runtime's own Java API and JNI library.

The JNI library of the AAR runs on Linux once its ties to Android's C library are cut (android_library.py),
beside the Linux library of the same version of ONNX Runtime: the Android one does not run here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from android_library import for_linux

from stillroom.export.android.compile import JAVA_OPTIONS, KOTLIN_OPTIONS, compile_kotlin, run_tool
from stillroom.export.android.shrink import shrink
from stillroom.export.android.toolchain import Toolchain
from stillroom.files import sha256_file, staged_folder

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "android_demo/app/src"
PLAIN = ("tokenization", "model", "bench")  # packages without android imports
JNI = "libonnxruntime4j_jni.so"
# Android's accelerators, which the app does not use.
NOT_ON_LINUX = "OrtSessionOptionsAppendExecutionProvider_Nnapi"
TIMEOUT_S = 300


@dataclass(frozen=True)
class App:
    """The app's plain packages, with their tests, as class files.

    classes: folders or jars. native: folder of the runtime's libraries.
    """

    tools: Toolchain
    classes: tuple[Path, ...]
    native: Path

    def command(self, main: str, arguments: Sequence[str | Path], heap_mb: int = 256) -> list[str]:
        """java, to run a class's main."""
        tools = self.tools
        jars = [tools.onnxruntime_jar, tools.junit_jar, tools.hamcrest_jar, tools.kotlin_stdlib]
        path = ":".join(str(part) for part in (*self.classes, SOURCES / "main/resources", *jars))
        options = [*JAVA_OPTIONS, f"-Xmx{heap_mb}m", f"-Donnxruntime.native.path={self.native}"]
        return ["java", *options, "-cp", path, main, *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        """As ui/ sets it on a phone, before the library loads."""
        return {**os.environ, "LD_LIBRARY_PATH": str(self.native), "ORT_DISABLE_TELEMETRY": "1"}

    def run(self, *arguments: str | Path, given: str = "") -> list[str]:
        """The lines that JvmMain prints."""
        command = self.command("dev.stillroom.model.JvmMain", arguments)
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=TIMEOUT_S, env=self.environment()
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def answers(self, verb: str, folders: Sequence[Path]) -> list[dict[str, Any]]:
        """What the app answers to the golden texts of bundles; verb: "answers" or "mapped"."""
        return [json.loads(line) for line in self.run(verb, *folders)]


def build_app(tools: Toolchain) -> App:
    """Compile the plain packages against API 23, where nothing is that phones lack, and their tests."""
    plain = [SOURCES / "main/kotlin/dev/stillroom" / name for name in PLAIN]
    sources = _kotlin(*plain, SOURCES / "onnxruntime/kotlin")
    with _made_once(tools, "classes", sources) as (classes, missing):
        if missing:
            with staged_folder(classes) as partial:
                compile_kotlin(tools, sources, [tools.android_jar, tools.onnxruntime_jar], partial)
    libraries = [tools.junit_jar, tools.hamcrest_jar]
    tests = compiled_with(tools, "tests", _kotlin(SOURCES / "test/kotlin"), classes, libraries, jdk=True)
    return App(tools, (classes, tests), build_native(tools))


def build_executorch(app: App) -> Path:
    """Compile the other flavour's runtime against ExecuTorch's classes; returns the folder of class files."""
    libraries = [app.tools.android_jar, app.tools.executorch_jar]
    sources = _kotlin(SOURCES / "executorch/kotlin")
    return compiled_with(app.tools, "executorch", sources, app.classes[0], libraries, jdk=False)


def _kotlin(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.kt"))


def compiled_with(
    tools: Toolchain, name: str, sources: list[Path], classes: Path, libraries: list[Path], *, jdk: bool
) -> Path:
    """Compile sources that see what is internal in classes, as Gradle has it; returns their folder."""
    with _made_once(tools, name, [*sources, *sorted(classes.rglob("*.class"))]) as (out, missing):
        if missing:
            classpath = ":".join(str(path) for path in (*libraries, classes))
            options = [*KOTLIN_OPTIONS, *([] if jdk else ["-no-jdk"]), "-no-reflect", "-nowarn"]
            options += ["-module-name", f"app_{name}", f"-Xfriend-paths={classes}", "-classpath", classpath]
            with staged_folder(out) as partial:
                run_tool(["bash", tools.kotlinc, *options, "-d", partial, *sources])
    return out


def build_native(tools: Toolchain) -> Path:
    """The runtime's two libraries, to be loaded here."""
    jni = tools.onnxruntime_jni / "x86_64" / JNI
    with _made_once(tools, "native", [jni, tools.onnxruntime_linux]) as (out, missing):
        if missing:
            with staged_folder(out) as partial:
                shutil.copyfile(tools.onnxruntime_linux, partial / "libonnxruntime.so")
                (partial / JNI).write_bytes(for_linux(jni.read_bytes(), [NOT_ON_LINUX]))
    return out


def as_on_a_phone(app: App) -> App:
    """The same from Dalvik bytecode: R8's output, Kotlin's library in it, turned back into class files."""
    tools = app.tools
    with _made_once(tools, "dalvik", _class_files(app)) as (out, missing):
        if missing:
            with staged_folder(out) as partial:
                _through_dalvik(app, partial)
    return replace(app, classes=(out / "classes.jar",))


def _class_files(app: App) -> list[Path]:
    return sorted(path for folder in app.classes for path in folder.rglob("*.class"))


def _through_dalvik(app: App, out: Path) -> None:
    tools, keep = app.tools, out / "keep.txt"
    keep.write_text("-dontobfuscate\n-dontwarn\n-keep class dev.stillroom.** { *; }\n", encoding="utf-8")
    libraries = [tools.onnxruntime_jar, tools.junit_jar, tools.hamcrest_jar]
    (dex,) = shrink(tools, app.classes, [keep], out, libraries=libraries)
    class_files_of(tools, dex, out / "classes.jar")


def class_files_of(tools: Toolchain, dex: Path, out: Path) -> None:
    """Turn Dalvik bytecode back into class files, in the jar out."""
    command = [sys.executable, "-O", "-m", "enjarify.main", "--output", out, dex]
    run_tool(command, {"PYTHONPATH": str(tools.enjarify)}, "enjarify")


@contextmanager
def _made_once(tools: Toolchain, name: str, inputs: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """A folder for what is made of these files, and whether it is to be made; others wait meanwhile."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in inputs:
        digest.update(f"{path}\0{sha256_file(path)}\n".encode())
    folder = tools.folder.parent / "tests"
    folder.mkdir(exist_ok=True)
    out = folder / f"{name}-{digest.hexdigest()[:16]}"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.is_dir():
            for old in folder.glob(f"{name}-*"):
                shutil.rmtree(old, ignore_errors=True)
        yield out, not out.is_dir()
