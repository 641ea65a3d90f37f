"""A folder on a device: fresh, filled with checked files, one process run in it, and gone in every case."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from stillroom.benchmarks.phone.adb_client import (
    Device,
    DeviceGone,
    Done,
    last_line,
    one_line,
    push,
    read_file,
    shell,
)
from stillroom.benchmarks.phone.adb_runner import (
    ERRORS,
    MAX_REPLY_BYTES,
    PROCESS_ID,
    REPLY,
    Reply,
    Request,
    Runner,
    command_line,
    read_reply,
    write_request,
)
from stillroom.errors import CheckFailed, UsageError
from stillroom.files import sha256_file

DEVICE_ROOT = "/data/local/tmp"
SPARE_BYTES = 16 * 2**20  # replies, and what a file system keeps for itself
CLEAN_UP_TIMEOUT_S = 20.0


@contextlib.contextmanager
def device_folder(device: Device, left_behind: list[str]) -> Iterator[str]:
    """A new folder of an unguessable name on the device; a process in it is ended and it is removed after.

    left_behind: what could not be removed is added, as a sentence. Raises CheckFailed when it cannot be made.
    """
    folder = f"{DEVICE_ROOT}/stillroom-{secrets.token_hex(8)}"
    try:
        done = shell(device, f"mkdir -m 700 {folder}")
        if done.exit_code:
            raise CheckFailed(f"device {device.serial} does not let a folder be made: {last_line(done)}")
        yield folder
    finally:  # also when making it was interrupted: it may be there
        try:
            kill_process(device, folder)
            removed = shell(device, f"rm -rf {folder}; [ ! -e {folder} ]", CLEAN_UP_TIMEOUT_S)
            clean = removed.exit_code == 0
        except (CheckFailed, UsageError):
            clean = False
        if not clean:
            left_behind.append(
                f"{folder} may still be on {device.serial}: adb -s {device.serial} shell rm -rf {folder}"
            )


def kill_process(device: Device, folder: str) -> None:
    """End the process that was started last in a folder, if it still runs."""
    place = f"{folder}/{PROCESS_ID}"
    shell(device, f"[ -f {place} ] && kill -9 $(cat {place}) 2>/dev/null; rm -f {place}", CLEAN_UP_TIMEOUT_S)


def require_device_space(device: Device, free_bytes: int | None, needed_bytes: int) -> None:
    """Raise UsageError with both numbers when the device is known to have too little space."""
    if free_bytes is not None and free_bytes < needed_bytes + SPARE_BYTES:
        raise UsageError(
            f"device {device.serial} has {free_bytes / 1e6:.0f} MB free below {DEVICE_ROOT}, "
            f"{(needed_bytes + SPARE_BYTES) / 1e6:.0f} MB are needed"
        )


def push_checked(device: Device, files: Mapping[str, Path], folder: str, *, has_sha256sum: bool) -> str:
    """Copy files (name in the folder -> file here), check what arrived, and say how: "sha256" or "size".

    Raises CheckFailed when a file does not arrive whole.
    """
    for name, source in files.items():
        push(device, source, f"{folder}/{name}")
    names = " ".join(shlex.quote(name) for name in files)
    if has_sha256sum:
        wanted = {name: sha256_file(source) for name, source in files.items()}
        done = shell(device, f"cd {folder} && chmod 700 {names} && sha256sum {names}", 120)
        how = "sha256"
    else:
        wanted = {name: str(source.stat().st_size) for name, source in files.items()}
        sizes = "; ".join(f"echo $(wc -c < {shlex.quote(name)}) {shlex.quote(name)}" for name in files)
        done = shell(device, f"cd {folder} && chmod 700 {names} && {{ {sizes}; }}")
        how = "size"
    if done.exit_code:
        raise CheckFailed(f"device {device.serial} cannot read back what was copied: {last_line(done)}")
    lines = (line.split() for line in done.text.splitlines())
    arrived = {words[1]: words[0] for words in lines if len(words) == 2}
    for name, value in wanted.items():
        if arrived.get(name) != value:
            seen = one_line(arrived.get(name, "nothing"), 12)
            raise CheckFailed(
                f"device {device.serial} has {name} with {how} {seen}, {value[:12]} was sent: "
                "try another cable"
            )
    return how


def run_request(
    device: Device,
    folder: str,
    runner: Runner,
    model: str,
    request: Request,
    labels: int,
    mask: str,
    timeout_s: float,
) -> Reply:
    """Run the model once as asked. model: its name in the folder.

    Raises CheckFailed when the process crashes, hangs (it is killed) or replies with anything but
    measurements, DeviceGone when the device no longer answers.
    """
    with tempfile.TemporaryDirectory() as local:
        sent = Path(local) / "request.txt"
        sent.write_text(write_request(request), encoding="ascii")
        push(device, sent, f"{folder}/request.txt")
    line = command_line(runner, folder, model, "request.txt", mask, int(timeout_s) * request.threads + 1)
    try:
        done = shell(device, line, timeout_s)
    except DeviceGone:
        raise
    except CheckFailed:
        kill_process(device, folder)
        raise CheckFailed(f"its process did not finish within {timeout_s:g} s and was killed") from None
    if done.exit_code:
        said = shell(device, f"tail -n 3 {folder}/{ERRORS}")
        raise CheckFailed(f"its process ended with {_ending(done.exit_code)}: {_said(said)}")
    return read_reply(read_file(device, f"{folder}/{REPLY}", MAX_REPLY_BYTES), request, labels)


def _said(done: Done) -> str:
    return last_line(Done(0, done.output, ""))


def _ending(exit_code: int) -> str:
    """An exit code of a shell, with the signal it stands for."""
    with contextlib.suppress(ValueError):
        return f"exit code {exit_code} ({signal.Signals(exit_code - 128).name})"
    return f"exit code {exit_code}"
