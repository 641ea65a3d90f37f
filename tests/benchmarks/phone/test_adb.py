"""adb against a client that plays a phone: what it measures, every way it fails, and that nothing is left."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stillroom.artifact import Artifact
from stillroom.benchmarks.phone import adb
from stillroom.benchmarks.phone.adb import AdbPlan, bench_adb, samples_by_file, slowed
from stillroom.benchmarks.phone.adb_client import find_adb
from stillroom.benchmarks.phone.adb_runner import Runner
from stillroom.benchmarks.phone.device_profiles import measured_of
from stillroom.benchmarks.phone.jobs import Job
from stillroom.errors import CheckFailed, UsageError
from stillroom.files import sha256_file
from stillroom.task import TaskSpec

HERE = Path(__file__).parent
PLAN = AdbPlan(lengths=(4,), rounds=1, samples=8, warmup=1)
PROPERTIES = {
    "ro.product.manufacturer": "Acme",
    "ro.product.model": "Phone 3",
    "ro.soc.model": "SM8450",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.product.cpu.abi": "arm64-v8a",
}
CLOCKS = {0: 1_800_000, 1: 1_800_000, 2: 2_500_000, 3: 3_000_000}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Phone:
    """The phone that fake_adb plays: its files, and what shall fail."""

    def __init__(self, home: Path) -> None:
        self.home, self.root = home, home / "root"
        self.tmp = self.root / "data" / "local" / "tmp"
        self.tmp.mkdir(parents=True)
        self.set({"phone-1": "device"})
        self.tool("getprop", 'case "$1" in\n' + "".join(
            f"{name}) echo '{value}';;\n" for name, value in PROPERTIES.items()) + "esac")  # fmt: skip
        self.tool("dumpsys", "echo '  level: 80'; echo '  temperature: 310'")
        self.tool("taskset", f'echo "$1" >> {self.home}/masks.txt; shift; exec "$@"')
        self.tool("uname", 'case "$1" in -m) echo aarch64;; *) echo 5.10.1;; esac')
        self.tool("df", "echo 'Filesystem 1K-blocks Used Available Use% Mounted on'\n"
                  "echo '/dev/block/dm-5 110000000 50000000 60000000 46% /data'")  # fmt: skip
        self.write("proc/cpuinfo", "CPU implementer\t: 0x41\nCPU part\t: 0xd47\n" * 4)
        self.write("proc/meminfo", "MemTotal:        7900000 kB\n")
        for core, khz in CLOCKS.items():
            place = f"sys/devices/system/cpu/cpu{core}/cpufreq"
            self.write(f"{place}/cpuinfo_max_freq", f"{khz}\n")
            self.write(f"{place}/scaling_max_freq", f"{khz}\n")
            self.write(f"{place}/scaling_governor", "schedutil\n")
        self.write("sys/class/thermal/thermal_zone0/type", "soc\n")
        self.write("sys/class/thermal/thermal_zone0/temp", "41500\n")

    def write(self, place: str, text: str) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tool(self, name: str, script: str) -> None:
        self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n")
        (self.root / "bin" / name).chmod(0o755)

    def set(self, devices: dict[str, str], **faults: Any) -> None:
        """faults: of every device; by_serial=... for each its own."""
        told = faults.pop("by_serial", {"any": faults})
        (self.home / "config.json").write_text(json.dumps({"devices": devices, "faults": told}))

    def calls(self) -> list[list[Any]]:
        place = self.home / "calls.txt"
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []

    def left(self) -> list[str]:
        return sorted(path.name for path in self.tmp.iterdir())


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    found = Phone(tmp_path / "phone")
    program = tmp_path / "tools" / "adb"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {HERE / "fake_adb.py"} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("FAKE_ADB", str(found.home))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("ANDROID_ADB_SERVER_PORT", raising=False)
    return found


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    loader = tmp_path / "ld-linux-aarch64.so.1"
    loader.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "--library-path ." ] || exit 9\nshift 2\nexec {sys.executable} "$@"\n'
    )
    library = tmp_path / "libc.so.6"
    library.write_text("a library")
    files = {loader.name: loader, library.name: library, "runner": HERE / "fake_runner.py"}
    return Runner(files, loader.name, "runner")


@pytest.fixture
def bench(phone: Phone, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs one file per behaviour on the phone."""
    answer = load("fake_runner").answer

    def job(behaviour: str) -> Job:
        folder = tmp_path / "files" / behaviour
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / "model.onnx"
        model.write_text(f"{behaviour} " + "weights " * 1000)
        artifact = Artifact(
            folder, "model.onnx", "onnx", "int8-dynamic",
            TaskSpec(labels=("bad", "good"), max_length=16, inputs=("input_ids", "attention_mask")),
            model.stat().st_size, sha256_file(model), 1000, "ab" * 32, (), "run", "", {},
            {"max_abs_error": 2.0, "decided_flip_rate": 0.01}, True, {},
        )  # fmt: skip
        goldens = tuple({"input_ids": ids, "logits": answer(ids)} for ids in ([5, 6], [5, 9, 8, 6]))
        reason = "not run: for a test" if behaviour == "executorch" else ""
        return Job(behaviour, artifact, goldens, tuple(range(8)), reason)

    def run(*behaviours: str, serials: tuple[str, ...] = (), **changes: Any) -> tuple[str, dict[str, Any]]:
        jobs = [job(behaviour) for behaviour in behaviours]
        monkeypatch.setattr(adb, "prepare_jobs", lambda folders, lengths: (jobs, []))
        plan = AdbPlan(**{**PLAN.__dict__, **changes})
        return bench_adb([Path("x")], serials, plan, runner)

    return run


def test_a_phone_is_measured_and_left_as_it_was(phone: Phone, bench: Any) -> None:
    text, document = bench("ok", "throttle", lengths=(4, 8), rounds=2)
    (entry,) = document["devices"]
    assert (entry["emulated"], entry["copies_checked_by"], entry["cores"]) == (
        False,
        "sha256",
        "big cores 2, 3",
    )
    assert (entry["device"]["model"], entry["device"]["soc"], entry["device"]["ram_bytes"]) == (
        "Phone 3", "SM8450", 7_900_000 * 1024)  # fmt: skip
    row = entry["rows"][0]
    assert (row["status"], row["runtime_version"], row["agreement"]["holds"]) == ("ok", "1.32.0", True)
    assert [at["length"] for at in row["by_length"]] == [4, 8]
    samples = row["by_length"][1]["samples_ms"]
    assert samples == [4.0 + at / 1000 for at in range(8)] * 2
    assert row["by_length"][1]["latency_ms"]["p50"] == pytest.approx(np.median(samples))
    assert entry["state_before"]["battery_celsius"] == 31.0
    assert entry["state_before"]["zones_celsius"] == {"soc": 41.5}
    assert "governor schedutil" in entry["notes"]
    assert "phone-1" not in json.dumps(document), "a serial number tells whose phone it is"
    assert "Acme Phone 3, Android 14, arm64-v8a" in text and "as here" in text
    assert phone.left() == []
    masks = {line for line in (phone.home / "masks.txt").read_text().split()}
    assert masks == {"1", "c"}  # the trial, and the two cores that are not the slowest
    assert all(call[0][0] == "-s" for call in phone.calls() if call[0] != ["devices"])
    assert {call[1] for call in phone.calls()} == {None}
    (found, _) = measured_of(samples_by_file(document))
    assert (found.soc, found.source, found.p50_ms) == (
        "SM8450",
        "Acme Phone 3",
        pytest.approx(np.median(samples)),
    )


def test_processes_are_interleaved_by_rounds(phone: Phone, bench: Any) -> None:
    bench("ok", "throttle", lengths=(4,), rounds=2)
    started = [
        call[0][3] for call in phone.calls() if "exec" in call[0][-1] and "--library-path" in call[0][-1]
    ]
    models = [line.split(" ./runner ")[1].split()[0] for line in started]
    assert models == [
        "0.onnx",
        "0.onnx",
        "1.onnx",
        "1.onnx",
        "1.onnx",
        "0.onnx",
    ]  # goldens in the first round


def test_little_cores_and_a_private_server(phone: Phone, bench: Any) -> None:
    _, document = bench("ok", cores="little", server_port=5999, threads=4)
    assert document["devices"][0]["cores"] == "little cores 0, 1 (4 threads share them)"
    assert {call[1] for call in phone.calls()} == {"5999"}


def test_a_port_that_is_set_already_is_kept(
    phone: Phone, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "5998")
    bench("ok")
    assert {call[1] for call in phone.calls()} == {"5998"}


def test_no_adb_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"install Android's platform-tools .*developer\.android\.com"):
        find_adb()
    program = tmp_path / "platform-tools" / "adb"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_adb().path == str(program)


@pytest.mark.parametrize(
    ("devices", "serials", "said"),
    [
        ({}, (), "adb sees no device: connect one with USB debugging on"),
        ({"a": "device", "b": "device"}, (), "several devices: a, b; name one: --target adb:a"),
        (
            {"a": "unauthorized"},
            (),
            "device a is unauthorized: unlock it, accept the question about USB debugging",
        ),
        ({"a": "offline"}, (), "device a is offline: plug it in again, or adb -s a reconnect"),
        ({"a": "no permissions (user in plugdev group)"}, (), "no permissions .*udev rules"),
        ({"a": "recovery"}, (), "device a is recovery: start Android on it"),
        ({"a": "offline", "b": "unauthorized"}, (), r"no device is ready: a \(offline\), b \(unauthorized\)"),
        ({"a": "device"}, ("b",), "adb sees no device b; those it sees: a"),
        ({"a": "device", "b": "offline"}, ("a", "b"), "device b is offline"),
        ({"a": "device"}, ("a", "a"), "named twice"),
        ({"a": "device"}, ("-s; rm -rf /",), "is no serial"),
    ],
)
def test_a_device_that_is_not_ready_is_named_with_its_state(
    phone: Phone, bench: Any, devices: dict[str, str], serials: tuple[str, ...], said: str
) -> None:
    phone.set(devices)
    with pytest.raises(UsageError, match=said):
        bench("ok", serials=serials)
    assert [call[0] for call in phone.calls()] in ([["devices"]], [])


def test_the_only_ready_one_of_several_is_taken(phone: Phone, bench: Any) -> None:
    phone.set({"a": "offline", "b": "device"})
    bench("ok")
    assert {call[0][1] for call in phone.calls() if call[0] != ["devices"]} == {"b"}


def test_devices_take_turns_and_one_that_fails_does_not_stop_the_other(phone: Phone, bench: Any) -> None:
    phone.set({"a": "device", "b": "device"}, by_serial={"a": {"push": {"0.onnx": "adb: error: read-only"}}})
    text, document = bench("ok", serials=("a", "b"))
    first, second = document["devices"]
    assert "device a does not take" in first["error"] and "read-only" in first["error"]
    assert second["rows"][0]["status"] == "ok"
    assert "read-only" in text and "as here" in text
    assert phone.left() == []


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (
            {"push": {"0.onnx": "adb: error: failed to copy: Permission denied"}},
            "does not take .*Permission denied",
        ),
        (
            {"push": {"0.onnx": "adb: error: No space left on device"}},
            "does not take .*No space left on device",
        ),
        ({"push": {"0.onnx": "unplug"}}, "no longer answers"),
        ({"corrupt": ["0.onnx"]}, "has 0.onnx with sha256 .* was sent: try another cable"),
        ({"shell": {"--library-path": "unplug"}}, "phone-1 no longer answers .*plug it in"),
        ({"shell": {"--library-path": "unplug later"}}, "phone-1 no longer answers"),
        ({"shell": {"sha256sum 'x'": "unplug", "mkdir": "unplug"}}, "no longer answers"),
        ({"shell": {"getprop": "huge"}}, "printed more than 1048576 bytes"),
        ({"shell": {"/reply.json": "huge"}}, None),
    ],
)
def test_a_device_that_fails_is_one_clear_line(
    phone: Phone, bench: Any, faults: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*.partial"))
    phone.set({"phone-1": "device"}, **faults)
    if said is None:  # the file's row says it
        _, document = bench("ok")
        assert "printed more than" in document["devices"][0]["rows"][0]["failure"]
    else:
        with pytest.raises(CheckFailed, match=said) as raised:
            bench("ok")
        assert str(raised.value).isprintable() and len(str(raised.value)) < 700
        if "unplug" in json.dumps(faults):
            assert "may still be on phone-1: adb -s phone-1 shell rm -rf /data/local/tmp/stillroom-" in str(
                raised.value
            )
            return
    assert phone.left() == []
    assert set(tmp_path.rglob("*.partial")) == before


def test_a_device_without_space_is_refused_before_anything_is_copied(phone: Phone, bench: Any) -> None:
    phone.tool("df", "echo '/dev/block/dm-5 1000 900 100 90% /data'")
    with pytest.raises(UsageError, match=r"has 0 MB free below /data/local/tmp, 17 MB are needed"):
        bench("ok")
    assert not any("push" in call[0] for call in phone.calls())


def test_another_abi_is_refused(phone: Phone, bench: Any) -> None:
    phone.tool("getprop", 'case "$1" in ro.product.cpu.abi) echo armeabi-v7a;; esac')
    with pytest.raises(UsageError, match="phone-1 is armeabi-v7a: the runner is built for arm64-v8a only"):
        bench("ok")


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("crash", r"ended with exit code 139 \(SIGSEGV\): terminate called after throwing"),
        ("hang", "did not finish within 3 s and was killed"),
        ("refuse", "ended with exit code 1: cannot load the model.*x"),
        ("garbage", "its reply is no measurement"),
        ("nan", "its reply is no measurement"),
        ("few", "of another shape than 2 texts with 2 logits and 1 samples"),
        ("huge", "printed more than 16777216 bytes"),
    ],
)
def test_a_file_that_fails_has_a_row_that_says_why_and_the_rest_goes_on(
    phone: Phone, bench: Any, behaviour: str, said: str
) -> None:
    text, document = bench(behaviour, "ok", timeout_s=3 if behaviour == "hang" else 60)
    bad, good = document["devices"][0]["rows"]
    assert (bad["status"], bad["by_length"], good["status"]) == ("failed", [], "ok")
    assert re.search(said, bad["failure"]) and bad["failure"].isprintable() and len(bad["failure"]) <= 400
    assert f"{behaviour}: " in text
    assert phone.left() == []
    assert not running(str(phone.tmp)), "a process is still there"


def running(words: str) -> list[str]:
    """Processes whose folder or command has these words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if words in str((process / "cwd").readlink()):
                found.append(process.name)
        except OSError:
            continue
    return found


def test_an_interrupt_ends_the_process_and_cleans_up(phone: Phone, bench: Any) -> None:
    phone.set({"phone-1": "device"}, shell={"--library-path": "interrupt"})
    # Where the tests run in the background the shell has them ignore Ctrl-C, and Python then does.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            bench("ok")
    finally:
        signal.signal(signal.SIGINT, before)
    assert phone.left() == [] and not running(str(phone.tmp))


def test_what_cannot_be_removed_is_named(phone: Phone, bench: Any) -> None:
    phone.tool("rm", 'case "$1" in -rf) exit 1;; *) exec /bin/rm "$@";; esac')
    text, document = bench("ok")
    assert len(phone.left()) == 1
    assert f"shell rm -rf /data/local/tmp/{phone.left()[0]}" in text
    assert phone.left()[0] in document["devices"][0]["notes"][-1]


def test_other_answers_on_the_device_are_said(phone: Phone, bench: Any) -> None:
    text, document = bench("wrong")
    found = document["devices"][0]["rows"][0]["agreement"]
    assert (found["holds"], found["max_abs_error"], found["allowed_error"]) == (False, 9.0, 0.05)
    assert "OTHERS" in text and "wrong answers otherwise on this device: logits differ by 9" in text


def test_an_emulators_latencies_are_left_out_by_word(phone: Phone, bench: Any) -> None:
    (phone.root / "bin" / "getprop").unlink()
    text, document = bench("ok")
    entry = document["devices"][0]
    assert entry["emulated"] is True and "no getprop" in entry["device"]["emulated_because"]
    assert entry["rows"][0]["by_length"][0]["latency_ms"] is None
    assert "emulated" in text and "4.00" not in text and "12" not in text
    assert entry["device"]["model"] == "unknown"
    assert measured_of(samples_by_file(document)) == []


@pytest.mark.parametrize("how", ["option", "kernel", "cpuinfo"])
def test_other_signs_of_an_emulator(phone: Phone, bench: Any, how: str) -> None:
    if how == "kernel":
        phone.tool("getprop", "case $1 in ro.product.cpu.abi) echo arm64-v8a;; ro.kernel.qemu) echo 1;; esac")
    if how == "cpuinfo":
        phone.write("proc/cpuinfo", "vendor_id : GenuineIntel\n")
    _, document = bench("ok", emulated=how == "option")
    assert document["devices"][0]["emulated"] is True


def test_a_device_with_few_tools_is_measured_and_says_what_it_could_not(phone: Phone, bench: Any) -> None:
    few = phone.root / "few"
    few.mkdir()
    for name in (
        "sh",
        "cat",
        "ls",
        "rm",
        "mkdir",
        "chmod",
        "wc",
        "echo",
        "tail",
        "grep",
        "sed",
        "tr",
        "true",
    ):
        (few / name).symlink_to(str(shutil.which(name)))
    for name in ("getprop", "uname"):
        (few / name).write_text((phone.root / "bin" / name).read_text())
        (few / name).chmod(0o755)
    phone.set({"phone-1": "device"}, no_tools=True)
    text, document = bench("ok")
    entry = document["devices"][0]
    assert (entry["copies_checked_by"], entry["device"]["free_bytes"]) == ("size", None)
    assert entry["cores"] == "not pinned: it has no taskset"
    assert entry["rows"][0]["status"] == "ok"
    assert "no sha256sum: only the sizes" in text and "battery's temperature cannot be read" in text


def test_unreadable_clocks_are_not_pinned(phone: Phone, bench: Any) -> None:
    for core in CLOCKS:
        (phone.root / f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq").unlink()
    _, document = bench("ok")
    assert document["devices"][0]["cores"] == "not pinned: the device does not tell its cores' clocks"


def test_binary_and_path_like_output_of_a_device_harms_nothing(phone: Phone, bench: Any) -> None:
    phone.set({"phone-1": "device"}, shell={"getprop": "binary"})
    text, document = bench("ok")
    assert document["devices"][0]["rows"][0]["status"] == "ok"
    assert all(line.isprintable() for line in text.splitlines())
    json.dumps(document, allow_nan=False)
    assert phone.left() == []


def test_throttling_is_noticed(phone: Phone, bench: Any) -> None:
    text, document = bench("throttle", rounds=1)
    assert document["devices"][0]["rows"][0]["by_length"][0]["slowed"] == pytest.approx(2, rel=0.01)
    assert "throttle grew 2.00× slower at 4 tokens: throttling?" in text


def test_a_lower_clock_limit_is_said(phone: Phone, bench: Any) -> None:
    place = phone.root / "sys/devices/system/cpu/cpu3/cpufreq/scaling_max_freq"
    phone.tool("dumpsys", f"echo '  temperature: 420'; echo 1200000 > {place}")
    text, _ = bench("ok", rounds=1)
    assert "throttled: the highest clock fell for core 3 from 3.00 to 1.20 GHz" in text


@pytest.mark.parametrize(
    "samples", [[1.0] * 7, [1.0] * 40, [1.0, 1.2, 0.9, 1.1] * 10, [1.0] * 20 + [1.04] * 20]
)
def test_noise_is_no_throttling(samples: list[float]) -> None:
    assert slowed(samples) is None


@pytest.mark.parametrize(
    "changes",
    [{"rounds": 0}, {"samples": 0}, {"threads": 0}, {"lengths": ()}, {"lengths": (0,)}, {"warmup": -1}],
)
def test_numbers_out_of_range_are_refused(phone: Phone, bench: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        bench("ok", **changes)
    with pytest.raises(UsageError, match="cores 'huge': big, little, any are known"):
        bench("ok", cores="huge")
