"""Headless Chromium, driven through a pipe by the DevTools protocol: no other package, no port, no network.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import shutil
import subprocess
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli

from stillroom.fetch import fetch_file

HERE = Path(__file__).parent
ANSWER_TIMEOUT_S = 60


def fetch_chromium(folder: Path) -> Path:
    """A folder with the program and its libraries; nothing is fetched when it is there."""
    table = tomllib.loads((HERE / "browser_tools.toml").read_text("utf-8"))
    done = folder / table["sha256"]
    if done.is_dir():
        return done
    content = fetch_file(table["address"], table["sha256"])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        partial = Path(work) / "chromium"
        partial.mkdir()
        with tarfile.open(fileobj=io.BytesIO(content)) as package:
            parts = {
                name: brotli.decompress(package.extractfile(f"package/bin/{name}.br").read())  # type: ignore[union-attr]
                for name in ("chromium", "al2023.tar", "swiftshader.tar", "fonts.tar")
            }
        (partial / "chromium").write_bytes(parts.pop("chromium"))
        (partial / "chromium").chmod(0o755)
        for archive in parts.values():
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(partial, filter="data")
        with contextlib.suppress(FileExistsError):  # another process was quicker
            partial.rename(done)
    return done


class Page:
    """One page of a running browser. events: what it reported so far, as the protocol has it."""

    def __init__(self, to: int, come: int) -> None:
        self._to, self._come, self._rest, self._last = to, come, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command. Raises AssertionError with the browser's message when it has an error."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + ANSWER_TIMEOUT_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._come], [], [], max(0, until - time.monotonic()))
            assert ready, f"the browser did not answer within {ANSWER_TIMEOUT_S} s"
            part = os.read(self._come, 2**20)
            assert part, "the browser ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(message))

    def open(self, address: str) -> None:
        """Go there, and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What a line of JavaScript is worth on the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def click(self, selector: str, index: int) -> None:
        """Scroll to the element of this index and press the mouse in its middle."""
        place = f"document.querySelectorAll({json.dumps(selector)})[{index}]"
        self.value(f"{place}.scrollIntoView({{block: 'center'}})")
        box = self.value(f"(() => {{const b = {place}.getBoundingClientRect();"
                         "return [b.left + Math.min(20, b.width / 2), b.top + b.height / 2]})()")  # fmt: skip
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and every address it asked for but files."""
        found = []
        for event in self.events:
            name, what = event.get("method"), event.get("params", {})
            if name == "Runtime.exceptionThrown":
                found.append(str(what["exceptionDetails"]))
            elif name == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                found.append(what["entry"]["text"])
            elif name == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
                found.append(str(what["args"]))
            elif name == "Network.requestWillBeSent" and not what["request"]["url"].startswith("file:"):
                found.append(what["request"]["url"][:200])
        return found


@contextlib.contextmanager
def browser(chromium: Path) -> Iterator[Page]:
    """A page of a fresh browser that ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()

        def pipes() -> None:  # the protocol's: it reads from 3 and writes to 4
            copies = os.dup(to_read), os.dup(from_write)
            os.dup2(copies[0], 3)
            os.dup2(copies[1], 4)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--single-process", "--no-zygote", "--disable-background-networking",
                   "--remote-debugging-pipe", f"--user-data-dir={profile}"]  # fmt: skip
        process = subprocess.Popen(
            [str(chromium / "chromium"), *options],
            env={"PATH": os.environ["PATH"], "HOME": profile, "LD_LIBRARY_PATH": f"{chromium}/lib:{chromium}",
                 "FONTCONFIG_PATH": str(chromium / "fonts")},
            close_fds=False, pass_fds=(), preexec_fn=pipes,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        try:
            yield Page(to_write, from_read)
        finally:
            process.kill()
            process.wait()
            os.close(to_write)
            os.close(from_read)
    shutil.rmtree(profile, ignore_errors=True)
