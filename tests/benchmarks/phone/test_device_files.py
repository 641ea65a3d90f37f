"""Files for a device: pinned, and read back only as they were built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stillroom.benchmarks.phone import device_files
from stillroom.benchmarks.phone.device_files import LIBRARIES, load_runner
from stillroom.errors import UsageError
from stillroom.fetch import read_table
from stillroom.files import write_json


def test_every_entry_of_the_table_is_pinned() -> None:
    table = read_table(device_files.TABLE)
    entries = [*table["deb"], *table["wheel"]]
    assert len(entries) >= 5 and table["archive"].startswith("https://")
    assert all(len(entry["sha256"]) == 64 for entry in entries)
    assert all("==" in entry["requirement"] for entry in table["wheel"])


def test_the_runtime_is_the_one_that_proves_the_files() -> None:
    import onnxruntime

    (runtime,) = (one for one in read_table(device_files.TABLE)["wheel"] if one["part"] == "onnxruntime")
    assert runtime["requirement"] == f"onnxruntime=={onnxruntime.__version__}"


def test_a_runner_that_is_not_there_or_was_changed_says_how_to_make_it(tmp_path: Path) -> None:
    hint = "python -m stillroom.benchmarks.phone.device_files"
    with pytest.raises(UsageError, match=f"there is no arm64 runner in .*{hint}"):
        load_runner(tmp_path)
    device = tmp_path / "device"
    device.mkdir()
    for name in (*LIBRARIES, device_files.RUNTIME, device_files.PROGRAM):
        (device / name).write_text(name)
    write_json(device / "files.json", device_files._facts(device))
    assert load_runner(tmp_path).files["runner"] == device / "runner"
    (device / "libc.so.6").write_text("another")
    with pytest.raises(UsageError, match=f"is not of this version: {hint}"):
        load_runner(tmp_path)
    (device / "libc.so.6").unlink()
    with pytest.raises(UsageError, match="is not of this version"):
        load_runner(tmp_path)
    assert json.loads((device / "files.json").read_text())["files"]["libc.so.6"]
