"""C for other machines, by the compiler of the ziglang wheel."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import UsageError

# Older C libraries than those we bring: what is built asks for nothing that came later.
ARM64, X86_64 = "aarch64-linux-gnu.2.31", "x86_64-linux-gnu.2.31"


def compile_c(wheel: Path, target: str, source: Path, out: Path, options: Sequence[str] = ()) -> None:
    """Compile one file for a target into out. wheel: the unpacked ziglang wheel.

    Raises UsageError with the compiler's first line when it does not build.
    """
    compiler = wheel / "ziglang/zig"
    compiler.chmod(0o755)  # a wheel's files lose it when they are unpacked
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [str(compiler), "cc", "-target", target, "-O2", "-s", *options, str(source), "-o", str(out)],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "HOME": cache, "XDG_CACHE_HOME": cache},
        )
    if done.returncode:
        raise UsageError(f"{source.name} does not build: {done.stderr.strip().splitlines()[:1]}")
