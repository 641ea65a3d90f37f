"""An adb client that plays a phone in a folder: shell lines really run there, and anything can go wrong.

Run as a program by a small script that the tests write. FAKE_ADB names a folder: config.json says which
devices there are and what fails, root/ is the phone, calls.txt is a log of what was asked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["FAKE_ADB"])
ROOT = HOME / "root"


def config() -> dict:
    return json.loads((HOME / "config.json").read_text())


def unplug(serial: str) -> None:
    now = config()
    now["devices"].pop(serial, None)
    (HOME / "config.json").write_text(json.dumps(now))


def here(text: str) -> str:
    for place in ("/data/", "/sys/", "/proc/"):
        text = text.replace(place, f"{ROOT}{place}")
    return text


def shell(serial: str, line: str, faults: dict) -> int:
    for words, fault in faults.get("shell", {}).items():
        if words not in line:
            continue
        if fault == "unplug":
            unplug(serial)
            return fail(f"error: device '{serial}' not found")
        if fault == "unplug later":
            subprocess.run(["sh", "-c", here(line)], timeout=20, stdout=subprocess.DEVNULL)
            unplug(serial)
            return 1
        if fault == "interrupt":
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(600)
        if fault == "huge":
            while True:
                os.write(1, b"../../etc/passwd\0\xff\n" * 4096)
        if fault == "binary":
            os.write(1, bytes(range(256)) * 8 + b"\ncore ../../../0 99\ndf / a b c 1%\nmodel2 ../../x\n")
    environment = {
        "PATH": f"{ROOT}/bin:/usr/bin:/bin" if not faults.get("no_tools") else f"{ROOT}/few",
        "HOME": "/",
    }
    return subprocess.run(["sh", "-c", here(line)], env=environment, stdin=subprocess.DEVNULL).returncode


def push(serial: str, source: Path, path: str, faults: dict) -> int:
    name = Path(path).name
    fault = faults.get("push", {}).get(name)
    if fault == "unplug":
        unplug(serial)
        return fail("adb: error: failed to read copy response: EOF")
    if fault:
        return fail(fault)
    target = Path(here(path))
    shutil.copy(source, target)
    if name in faults.get("corrupt", ()):
        content = target.read_bytes()
        target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    print(f"{source}: 1 file pushed")
    return 0


def fail(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


def main(arguments: list[str]) -> int:
    now = config()
    with (HOME / "calls.txt").open("a") as log:
        log.write(json.dumps([arguments, os.environ.get("ANDROID_ADB_SERVER_PORT")]) + "\n")
    if arguments == ["devices"]:
        print("* daemon started successfully\nList of devices attached")
        print("".join(f"{serial}\t{state}\n" for serial, state in now["devices"].items()))
        return 0
    assert arguments[0] == "-s", f"no serial in {arguments}"
    _, serial, verb, *rest = arguments
    faults = now.get("faults", {}).get(serial, now.get("faults", {}).get("any", {}))
    if now["devices"].get(serial) != "device":
        return fail(f"error: device '{serial}' not found")
    if verb == "push":
        return push(serial, Path(rest[0]), rest[1], faults)
    assert verb == "shell" and len(rest) == 1
    return shell(serial, rest[0], faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
