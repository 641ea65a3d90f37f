"""Kotlin and Java to class files, by compilers that say in one line what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillroom.errors import CheckFailed, UsageError
from stillroom.export.android.toolchain import Toolchain

TIMEOUT_S = 600
# Serial collection and the first compiler only: these programs run for seconds, beside others.
JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx1g", "-Xss4m")
# What Gradle is told too. Lambdas and single-method interfaces become classes, since the stubs of API 23 lack
# what invokedynamic needs.
KOTLIN_OPTIONS = (
    "-jvm-target",
    "1.8",
    "-Xlambdas=class",
    "-Xsam-conversions=class",
    "-Xstring-concat=inline",
)
KOTLIN_ERROR = re.compile(
    r"^(?P<file>.*?\.kt):(?P<line>\d+):(?P<column>\d+): error: (?P<message>.*)$", re.MULTILINE
)


def require_jdk() -> None:
    """Raise UsageError unless there is a Java development kit."""
    for name in ("java", "javac", "keytool"):
        if shutil.which(name) is None:
            raise UsageError(
                f"there is no {name}: install a JDK of 17 or newer (apt-get install openjdk-17-jdk-headless)"
            )


def run_tool(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None, name: str = ""
) -> str:
    """Run a program to its end; returns what it printed. Raises CheckFailed with its first line of error.

    environment: to add to this process's own. name: in messages, if not the program's own.
    """
    words = [str(word) for word in command]
    name = name or Path(words[0]).name
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, **(environment or {})},
        )
    except OSError as error:
        raise UsageError(f"{name} does not start: {error.strerror}: {words[0]}") from None
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"{name} took more than {TIMEOUT_S} s: is the machine busy?") from None
    if done.returncode:
        raise CheckFailed(f"{name}: {_first_error(done.stderr + done.stdout, done.returncode)}")
    return done.stdout


def _first_error(said: str, returncode: int) -> str:
    """The line of a program's output that tells most: an error before anything else."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(error|exception|failed)\b", line, re.IGNORECASE)]
    return (errors or lines or [f"exit code {returncode}"])[0][:300]


def compile_kotlin(tools: Toolchain, sources: Sequence[Path], classpath: Sequence[Path], out: Path) -> None:
    """Compile .kt files, and those below folders, into class files of Java 8 in the folder out.

    With Android's own classes on the classpath there are no others; else the JDK's are there.
    Raises CheckFailed with kotlinc's first error as file:line, UsageError when there is no JDK.
    """
    require_jdk()
    own = ("-no-jdk",) if tools.android_jar in classpath else ()
    command = ["bash", tools.kotlinc, *KOTLIN_OPTIONS, *own, "-nowarn", "-no-reflect", "-module-name", "app"]
    if classpath:
        command += ["-classpath", ":".join(str(path) for path in classpath)]
    try:
        environment = {"JAVA_OPTS": " ".join(JAVA_OPTIONS)}
        run_tool([*command, "-d", out, *sources], environment, "kotlinc")
    except CheckFailed as error:
        if (found := KOTLIN_ERROR.search(str(error).removeprefix("kotlinc: "))) is None:
            raise
        raise CheckFailed(f"{_short(found['file'])}:{found['line']}: {found['message']}") from None


def _short(path: str) -> str:
    """A path as seen from here, where it lies below."""
    full, here = Path(path).absolute(), Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else full)


def compile_java(tools: Toolchain, sources: Sequence[Path], out: Path) -> None:
    """Compile .java files against Android's classes into class files of Java 8 in the folder out.

    Raises CheckFailed with javac's first error, UsageError when there is no JDK.
    """
    require_jdk()
    out.mkdir(parents=True, exist_ok=True)
    options = ["-source", "8", "-target", "8", "-Xlint:-options", "-encoding", "UTF-8"]
    run_tool(["javac", *options, "-bootclasspath", tools.android_jar, "-d", out, *sources])
