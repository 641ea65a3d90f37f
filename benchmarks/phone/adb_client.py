"""The adb client as a bounded tool: every call has a limit on time and output, every device a state."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import CheckFailed, UsageError

CALL_TIMEOUT_S = 30.0
PUSH_BYTES_PER_S = 0.5e6  # far below USB 2; a limit for a cable that hangs, not a guess of its speed
MAX_OUTPUT_BYTES = 2**20
MAX_DEVICES = 100
_POLL_S = 0.02
_SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:@%()\[\]-]{0,127}")


class DeviceGone(CheckFailed):
    """A device stopped answering: nothing more can be done with it."""


@dataclass(frozen=True)
class Adb:
    """The client. path: the program. environment: what it runs with, such as ANDROID_ADB_SERVER_PORT."""

    path: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Device:
    """One device that is ready: every call to it carries -s serial."""

    adb: Adb
    serial: str


@dataclass(frozen=True)
class Done:
    """How a call ended. exit_code: of adb, or of the command on the device. Output is cut at a bound."""

    exit_code: int
    output: bytes
    error: str

    @property
    def text(self) -> str:
        return self.output.decode("utf-8", errors="replace")


def find_adb(server_port: int | None = None) -> Adb:
    """adb from PATH, or from ANDROID_HOME's or ANDROID_SDK_ROOT's platform-tools.

    server_port: a port of its own for adb's server; None leaves adb's default, or what
    ANDROID_ADB_SERVER_PORT says. Raises UsageError when there is no adb.
    """
    environment = dict(os.environ)
    if server_port is not None:
        environment["ANDROID_ADB_SERVER_PORT"] = str(server_port)
    homes = (os.environ.get(name) for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"))
    places = (str(Path(home) / "platform-tools" / "adb") for home in homes if home)
    path = next((found for place in ("adb", *places) if (found := shutil.which(place))), None)
    if path is None:
        raise UsageError(
            "adb is neither on PATH nor in ANDROID_HOME/platform-tools: install Android's platform-tools "
            "(https://developer.android.com/tools/releases/platform-tools, or apt-get install adb)"
        )
    return Adb(path, environment)


def call(
    adb: Adb,
    arguments: Sequence[str],
    timeout_s: float = CALL_TIMEOUT_S,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
) -> Done:
    """Run adb. Raises CheckFailed when it takes too long or prints too much; it is killed then."""
    what = f"adb {' '.join(arguments)}"[:120]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
        try:
            process = subprocess.Popen(
                [adb.path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=error,
                env=dict(adb.environment),
            )
        except OSError as failure:
            raise UsageError(f"{adb.path} cannot be run: {failure.strerror}") from None
        try:
            deadline = time.monotonic() + timeout_s
            while process.poll() is None:
                if max(os.fstat(file.fileno()).st_size for file in (output, error)) > max_output_bytes:
                    raise CheckFailed(f"{one_line(what)} printed more than {max_output_bytes} bytes")
                if time.monotonic() > deadline:
                    raise CheckFailed(f"{one_line(what)} did not finish within {timeout_s:g} s")
                time.sleep(_POLL_S)
        finally:  # an interrupt too
            if process.poll() is None:
                process.kill()
                process.wait()
        contents = []
        for file in (output, error):
            file.seek(0)
            contents.append(file.read(max_output_bytes + 1))
        if max(map(len, contents)) > max_output_bytes:
            raise CheckFailed(f"{one_line(what)} printed more than {max_output_bytes} bytes")
        return Done(process.returncode, contents[0], contents[1].decode("utf-8", errors="replace"))


def one_line(text: str, limit: int = 200) -> str:
    """Text from a device as one printable line of bounded length."""
    line = " ".join(text[: 4 * limit].split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:limit]


def last_line(done: Done) -> str:
    """What adb, or a command, said last: on standard error, else on standard output."""
    lines = [line for text in (done.error, done.text) for line in text.splitlines()[-20:] if line.strip()]
    own = [line for line in done.error.splitlines() if line.strip()]
    return one_line((own or lines or ["it said nothing"])[-1])


def list_devices(adb: Adb) -> dict[str, str]:
    """Serial -> state, as `adb devices` tells them. Raises CheckFailed when adb cannot tell."""
    done = call(adb, ["devices"])
    head, _, rest = done.text.partition("List of devices attached")
    if done.exit_code or not (rest or head.endswith("attached")):
        raise CheckFailed(f"adb devices failed: {last_line(done)}; adb kill-server may help")
    found = {}
    for line in rest.splitlines()[: MAX_DEVICES + 1]:
        serial, _, state = line.strip().partition("\t")
        if not state:
            serial, _, state = line.strip().partition(" ")
        if _SERIAL.fullmatch(serial) and state.strip():
            found[serial] = one_line(state)
    return found


def choose_devices(adb: Adb, serials: Sequence[str] = ()) -> list[Device]:
    """The devices of these serials, or the only one that is ready.

    Raises UsageError when there is none, when there are several to choose from, or one is not ready: its
    exact state and what to do about it.
    """
    found = list_devices(adb)
    if not serials:
        ready = [serial for serial, state in found.items() if state == "device"]
        if len(ready) > 1:
            raise UsageError(f"several devices: {', '.join(ready)}; name one: --target adb:{ready[0]}")
        if ready:
            return [Device(adb, ready[0])]
        if not found:
            raise UsageError(
                "adb sees no device: connect one with USB debugging on (adb devices lists it), or adb connect"
            )
        if len(found) > 1:
            states = ", ".join(f"{serial} ({state})" for serial, state in found.items())
            raise UsageError(f"no device is ready: {states}")
    chosen = list(serials) or list(found)
    for serial in chosen:
        if not _SERIAL.fullmatch(serial):
            raise UsageError(f"{serial[:60]!r} is no serial of a device")
        if serial not in found:
            known = ", ".join(found) or "none"
            raise UsageError(f"adb sees no device {serial}; those it sees: {known}")
        if found[serial] != "device":
            raise UsageError(f"device {serial} is {found[serial]}: {_remedy(serial, found[serial])}")
    if len(set(chosen)) != len(chosen):
        raise UsageError(f"a device is named twice: {', '.join(chosen)}")
    return [Device(adb, serial) for serial in chosen]


def _remedy(serial: str, state: str) -> str:
    """What a user does about a device in this state."""
    if state.startswith("no permissions"):
        return "give your user access to it (udev rules: https://developer.android.com/studio/run/device)"
    return {
        "unauthorized": "unlock it, accept the question about USB debugging, and run the same command again",
        "authorizing": "unlock it, accept the question about USB debugging, and run the same command again",
        "offline": f"plug it in again, or adb -s {serial} reconnect",
    }.get(state, "start Android on it; the state must be 'device'")


def gone(device: Device, why: str) -> DeviceGone:
    """The error for a device that no longer answers."""
    return DeviceGone(f"device {device.serial} no longer answers ({why}): plug it in and run it again")


def shell(
    device: Device,
    command: str,
    timeout_s: float = CALL_TIMEOUT_S,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
) -> Done:
    """Run a line of shell on the device; its exit code and output.

    Raises CheckFailed when it takes too long or prints too much, or the device went away.
    """
    mark = secrets.token_hex(8)  # adb's own exit code does not tell a failed command from a cable pulled out
    line = f"( {command}\n); code=$?; echo; echo {mark}:$code"
    done = call(device.adb, ["-s", device.serial, "shell", line], timeout_s, max_output_bytes)
    output, found, code = done.output.rpartition(f"\n{mark}:".encode())
    match = re.match(rb"\d{1,3}", code)
    if not found or match is None:
        raise gone(device, last_line(done))
    return Done(int(match[0]), output, done.error)


def push(device: Device, source: Path, path: str) -> None:
    """Copy a file to a path of the device. Raises CheckFailed with adb's reason when that fails."""
    arguments = ["-s", device.serial, "push", str(source), path]
    done = call(device.adb, arguments, CALL_TIMEOUT_S + source.stat().st_size / PUSH_BYTES_PER_S)
    if done.exit_code:
        if list_devices(device.adb).get(device.serial) != "device":
            raise gone(device, last_line(done))
        raise CheckFailed(f"device {device.serial} does not take {path}: {last_line(done)}")


def read_file(device: Device, path: str, max_bytes: int, timeout_s: float = CALL_TIMEOUT_S) -> bytes:
    """A file of the device, byte by byte as it is there, of at most max_bytes.

    Raises CheckFailed when it is larger, is not there, or the device went away.
    """
    done = shell(device, f"cat {path}", timeout_s, max_bytes)
    if done.exit_code:
        raise CheckFailed(f"device {device.serial} has no {path}: {last_line(done)}")
    return done.output
