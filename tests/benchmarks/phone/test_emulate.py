"""What can be known of emulation without an emulator."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stillroom.benchmarks.phone import emulator_files
from stillroom.benchmarks.phone.emulate import Emulated, emulate, emulated_table, limited
from stillroom.benchmarks.phone.emulator_files import Emulator, load_emulator, read_stubs
from stillroom.errors import CheckFailed, UsageError
from stillroom.fetch import read_table


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_process_has_its_limits() -> None:
    limited(python("print(1)"), {}, 60, 2**30)
    with pytest.raises(CheckFailed, match="did not finish within 1 s"):
        limited(python("import time; time.sleep(60)"), {}, 1, 2**30)
    with pytest.raises(CheckFailed, match="exit code 1: MemoryError"):
        limited(python("bytearray(2**28)"), {}, 60, 2**27)
    with pytest.raises(CheckFailed, match="exit code 3: last words"):
        limited(python("import sys; print('last words', file=sys.stderr); sys.exit(3)"), {}, 60, 2**30)
    with pytest.raises(CheckFailed, match="exit code -11"):
        limited(python("import os; os.kill(os.getpid(), 11)"), {}, 60, 2**30)


def test_no_telemetry_and_no_libraries_of_this_machine_reach_the_emulator() -> None:
    code = (
        "import os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1' and not os.environ['LD_LIBRARY_PATH']"
    )
    limited(python(code), {}, 60, 2**30)


def test_without_tools_the_command_that_fetches_them_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no arm64 emulator .* python -m stillroom.benchmarks.phone --fetch"
    ):
        load_emulator(tmp_path)
    with pytest.raises(UsageError, match="no core 'm1': there are a53, a76, a710"):
        emulate([], Emulator(tmp_path, tmp_path), ["m1"])


def test_every_tool_has_a_checksum_and_a_version() -> None:
    table = read_table(emulator_files.TABLE)
    assert {entry["part"] for entry in table["deb"]} == {"arm64", "qemu", "counting_qemu"}
    for entry in (*table["deb"], *table["wheel"]):
        assert len(entry["sha256"]) == 64 and int(entry["sha256"], 16) >= 0
    assert all("==" in entry["requirement"] for entry in table["wheel"])


def test_the_versions_are_those_that_are_pinned_here() -> None:
    pins = Path(__file__).parents[3].joinpath("constraints.txt").read_text("utf-8").splitlines()
    wanted = [entry["requirement"] for entry in read_table(emulator_files.TABLE)["wheel"]]
    assert {one for one in wanted if not one.startswith("onnxruntime")} <= set(pins)


def test_stubs_are_libraries_with_their_functions() -> None:
    found = read_stubs(emulator_files.STUBS.read_text("utf-8"))
    assert "cudaGetDeviceCount" in found["libcudart.so.13"] and found["libnccl.so.2"] == []
    assert all(name.isidentifier() for names in found.values() for name in names)


def test_rows_show_no_time() -> None:
    rows = [
        Emulated(
            "m", "0" * 64, "onnx", "fp32", "a53", "ok", "", "1.32.0", 32, 1e-6, 1e-4, 0, 87_000_000, 10,
            "1.23.2", 10**8,
        ),
        Emulated("m", "0" * 64, "onnx", "fp32", "a710", "failed", "why"),
    ]  # fmt: skip
    table = emulated_table(rows)
    assert not any("ms" in cell.split() for cell in table.header)
    assert table.rows[0][7:9] == ("87.00", "onnxruntime 1.23.2") and table.rows[1][3] == "0"
