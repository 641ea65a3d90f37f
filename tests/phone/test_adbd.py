"""bench_adb against Debian's real adbd with the real adb client: pushed, checked, run, read back, removed.

The device is emulated, so no time of it is looked at. Needs what adbd_device.py names, and fails without it.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stillroom.artifact import Artifact
from stillroom.benchmarks.phone.adb import AdbPlan, bench_adb
from stillroom.benchmarks.phone.adb_client import call, find_adb
from stillroom.benchmarks.phone.adb_runner import Runner
from stillroom.benchmarks.phone.device_files import build_runner, load_runner
from stillroom.benchmarks.phone.emulator_files import build_emulator
from stillroom.errors import CheckFailed, UsageError
from stillroom.export.targets import export
from stillroom.fetch import fetch_debs

FOLDER = Path(__file__).parents[2] / "build" / "phone"
SPEC = importlib.util.spec_from_file_location("adbd_device", Path(__file__).with_name("adbd_device.py"))
assert SPEC is not None and SPEC.loader is not None
adbd_device: Any = importlib.util.module_from_spec(SPEC)
sys.modules["adbd_device"] = adbd_device  # dataclasses look their module up
SPEC.loader.exec_module(adbd_device)
Phone, SERIAL = Any, adbd_device.SERIAL
PLAN = AdbPlan(lengths=(8, 16), rounds=2, samples=3, warmup=1, timeout_s=120)


@pytest.fixture(scope="session")
def tools() -> Path:
    return fetch_debs(Path(__file__).with_name("adb_tools.toml"), FOLDER)


@pytest.fixture(scope="session")
def qemu() -> Path:
    return build_emulator(FOLDER).qemu


@pytest.fixture
def phone(tools: Path, qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    with adbd_device.running_phone(tools, qemu, tmp_path / "device") as found:
        connect(found, monkeypatch)
        yield found


def connect(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the client on PATH and let it see the device."""
    monkeypatch.setenv("PATH", str(phone.adb.parent), prepend=":")
    done = call(find_adb(), ["connect", SERIAL])
    assert done.text.startswith("connected"), done


@pytest.fixture(scope="session")
def runner() -> Runner:
    try:
        return load_runner(FOLDER)
    except UsageError:  # not built yet, or of another version
        return build_runner(FOLDER)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> dict[str, Artifact]:
    """A tiny model as an fp32 and an int8 file."""
    folder = tmp_path_factory.mktemp("files")
    return {
        scheme: export(tiny_teacher, "onnx", scheme, folder / scheme) for scheme in ("fp32", "int8-dynamic")
    }


def test_two_files_run_as_here_and_nothing_is_left(
    phone: Phone, files: dict[str, Artifact], runner: Runner
) -> None:
    folders = [artifact.folder for artifact in files.values()]
    text, document = bench_adb(folders, [SERIAL], PLAN, runner)
    (entry,) = document["devices"]
    assert entry["emulated"] is True and "no getprop" in entry["device"]["emulated_because"]
    assert (entry["device"]["abi"], entry["copies_checked_by"]) == ("arm64-v8a", "sha256")
    for row in entry["rows"]:
        assert row["status"] == "ok", row["failure"]
        assert row["agreement"]["holds"] and row["agreement"]["texts"] == 32, row["agreement"]
        assert [len(at["samples_ms"]) for at in row["by_length"]] == [6, 6]
        assert [at["latency_ms"] for at in row["by_length"]] == [None, None]
        assert row["runtime_version"]
    assert text.count("as here") == 4 and "emulated" in text
    assert_nothing_left(phone)


def assert_nothing_left(phone: Phone) -> None:
    assert "stillroom-" not in phone.listing() and "runner" not in phone.listing()


def test_without_a_serial_both_names_of_the_device_are_told(
    phone: Phone, files: dict[str, Artifact], runner: Runner
) -> None:
    # adb's server finds the device at 127.0.0.1:5555 once more by itself, as an emulator's port.
    deadline = time.monotonic() + 60
    while b"emulator-5554\tdevice" not in call(find_adb(), ["devices"]).output:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with pytest.raises(UsageError, match=f"several devices: {SERIAL}, emulator-5554; name one"):
        bench_adb([files["fp32"].folder], [], PLAN, runner)


def test_a_broken_file_has_a_row_and_the_other_goes_on(
    phone: Phone, files: dict[str, Artifact], runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillroom.benchmarks.phone import adb

    whole, broken = files["fp32"], files["int8-dynamic"]
    cut = tmp_path / "model.onnx"
    cut.write_bytes(broken.path.read_bytes()[:-5000])
    prepare = adb.prepare_jobs

    def with_a_cut_file(folders: list[Path], lengths: tuple[int, ...]) -> object:
        first, second = prepare(folders, lengths)[0]
        return [replace(first, artifact=replace(first.artifact, folder=tmp_path)), second], []

    monkeypatch.setattr(adb, "prepare_jobs", with_a_cut_file)
    _, document = bench_adb([broken.folder, whole.folder], [SERIAL], PLAN, runner)
    bad, good = document["devices"][0]["rows"]
    assert (bad["status"], good["status"]) == ("failed", "ok")
    assert "ended with exit code" in bad["failure"] and "nothing" not in bad["failure"]
    assert_nothing_left(phone)


def test_a_process_that_does_not_end_is_killed(
    phone: Phone, files: dict[str, Artifact], runner: Runner
) -> None:
    endless = replace(PLAN, samples=10**6, rounds=1, lengths=(8,), timeout_s=15)
    _, document = bench_adb([files["fp32"].folder], [SERIAL], endless, runner)
    assert "did not finish within 15 s and was killed" in document["devices"][0]["rows"][0]["failure"]
    assert_nothing_left(phone)


def test_a_device_unplugged_midway_is_a_clear_error_that_names_what_is_left(
    phone: Phone, files: dict[str, Artifact], runner: Runner
) -> None:
    def unplug_when_it_runs() -> None:
        while "--library-path" not in phone.listing():
            time.sleep(0.1)
        phone.unplug()

    pulling = threading.Thread(target=unplug_when_it_runs)
    pulling.start()
    endless = replace(PLAN, samples=10**6, rounds=1, lengths=(8,))
    with pytest.raises(CheckFailed, match=f"device {SERIAL} no longer answers") as raised:
        bench_adb([files["fp32"].folder], [SERIAL], endless, runner)
    pulling.join()
    (left,) = [line for line in phone.listing().splitlines() if line.startswith("stillroom-")]
    assert f"adb -s {SERIAL} shell rm -rf /data/local/tmp/{left}" in str(raised.value)


def test_a_full_device_is_refused_with_both_numbers(
    tools: Path, qemu: Path, tmp_path: Path, files: dict[str, Artifact], runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with adbd_device.running_phone(tools, qemu, tmp_path / "device", data_kb=4096) as phone:
        connect(phone, monkeypatch)
        with pytest.raises(UsageError, match=r"has 4 MB free below /data/local/tmp, \d+ MB are needed"):
            bench_adb([files["fp32"].folder], [SERIAL], PLAN, runner)
        assert_nothing_left(phone)
