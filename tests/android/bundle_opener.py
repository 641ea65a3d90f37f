"""A JVM that opens bundles, one after another, as far as before a runtime gets the model."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from jvm import TIMEOUT_S, App

TYPED = (
    "Malformed", "Missing", "WrongChecksum", "TooLarge", "PathEscape", "Unsupported", "WrongRuntime",
    "WrongGolden",
)  # fmt: skip


class Opener:
    """A JVM that opens one bundle after another."""

    def __init__(self, app: App, heap_mb: int) -> None:
        self.process = subprocess.Popen(
            app.command("dev.stillroom.model.JvmMain", ["open"], heap_mb),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *paths: Path) -> str:
        """ "ok", or the kind of error and its message; an error that is not typed is a failure here."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\t".join(map(str, paths)) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline().rstrip("\n")
        kind, _, message = reply.partition(" ")
        assert reply == "ok" or (kind in TYPED and ": " in message), reply or "the JVM ended"
        return reply


@contextlib.contextmanager
def opening(app: App, heap_mb: int) -> Iterator[Opener]:
    opener = Opener(app, heap_mb)
    watchdog = threading.Timer(TIMEOUT_S, opener.process.kill)  # a file that blocks its reader would block us
    watchdog.start()
    try:
        yield opener
    finally:
        opener.process.communicate()
        watchdog.cancel()
    assert opener.process.returncode == 0
