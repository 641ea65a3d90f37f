"""A device to test adb with: Debian's real adbd for arm64 under qemu, in namespaces of its own, without root.

Needs from the system: Linux 6.7 or newer (binfmt_misc in a user namespace), user namespaces allowed, and
util-linux's unshare and nsenter; no root. Nothing is installed and no setting of the system is changed:
binfmt_misc, network, processes and mounts are the namespaces' own and end with them.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SERIAL = "127.0.0.1:5555"
READY_TIMEOUT_S = 60
LIBRARIES = "usr/lib/x86_64-linux-gnu"
APPLETS = (
    "sh", "cat", "ls", "rm", "mkdir", "df", "uname", "sha256sum", "taskset", "chmod", "wc", "kill", "sleep",
    "tail", "grep", "sed", "tr", "true", "ps", "echo",
)  # fmt: skip


def make_root(adbd: Path, root: Path) -> None:
    """The device's file system: adbd with its libraries, and busybox as the shell and tools of a phone."""
    shutil.copytree(adbd, root, symlinks=True)
    for name in ("bin", "sbin", "lib"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("usr/bin", "proc", "sys", "dev", "tmp", "data"):
        (root / name).mkdir(parents=True, exist_ok=True)
    loader = root / "usr/lib/ld-linux-aarch64.so.1"
    if not loader.is_symlink():
        loader.symlink_to("aarch64-linux-gnu/ld-linux-aarch64.so.1")
    for name in APPLETS:
        (root / "usr/bin" / name).symlink_to("busybox")


@dataclass(frozen=True)
class Phone:
    """A running adbd. adb: a program that is the real client inside the device's namespaces."""

    adb: Path
    process: subprocess.Popen[bytes]
    enter: tuple[str, ...]

    def inside(self, line: str) -> str:
        """Run a line of this machine's shell in the device's namespaces."""
        done = subprocess.run([*self.enter, "sh", "-c", line], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listing(self) -> str:
        """What lies in /data/local/tmp, and every process of the device, without asking adbd."""
        return self.inside(
            "ls -A \"$PHONE_ROOT/data/local/tmp\"; cat \"$PHONE_ROOT\"/proc/[0-9]*/cmdline | tr '\\0' ' '"
        )

    def unplug(self) -> None:
        """End adbd, as if the cable were pulled out."""
        self.inside('kill -9 "$(cat "$PHONE_ROOT/data/adbd.pid")"')


@contextlib.contextmanager
def running_phone(
    tools: Path, qemu: Path, work: Path, data_kb: int = 2**20, cpu: str = "cortex-a76"
) -> Iterator[Phone]:
    """Start a device with so much space below /data; all of it ends with the block."""
    root, log = work / "root", work / "adbd.log"
    make_root(tools / "adbd", root)
    namespaces = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
    ]
    start = [*namespaces, "sh", str(HERE / "adbd_namespace.sh"), str(root), str(qemu), cpu, str(data_kb)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            start, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        children = f"--pid=/proc/{process.pid}/ns/pid_for_children"
        enter = ("nsenter", "-t", str(process.pid), "-U", "--preserve-credentials", "-n", "-m", children)
        enter = (*enter, "env", f"PHONE_ROOT={root}")
        program = work / "bin" / "adb"
        program.parent.mkdir(parents=True)
        libraries = f"{tools}/adb/{LIBRARIES}:{tools}/adb/{LIBRARIES}/android"
        client = tools / "adb/usr/lib/android-sdk/platform-tools/adb"
        program.write_text(
            f"#!/bin/sh\nexec {' '.join(enter)} LD_LIBRARY_PATH={libraries} HOME={work} TMPDIR={work} "
            f'ANDROID_ADB_SERVER_PORT="${{ANDROID_ADB_SERVER_PORT:-5037}}" {client} "$@"\n'
        )
        program.chmod(0o755)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            assert process.poll() is None, f"the device did not start:\n{log.read_text(errors='replace')}"
            if b"adbd started" in log.read_bytes():
                break
            assert time.monotonic() < deadline, f"no adbd:\n{log.read_text(errors='replace')}"
            time.sleep(0.1)
        yield Phone(program, process, enter)
    finally:
        process.kill()  # with it goes its child, the namespace's first process, and with that all others
        process.wait()
