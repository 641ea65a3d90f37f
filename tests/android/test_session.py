"""What the screens show is kept by ui/Session.kt. It runs here on a JVM, with the real runtime and stand-ins
for the little it asks of Android (fakes/). The views themselves are not run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from app_bundles import copy_with, read_goldens
from jvm import SOURCES, TIMEOUT_S, App, compiled_with

from stillroom.benchmarks.phone.app_results import read_app_results
from stillroom.export.android.compile import compile_java

FAKES = Path(__file__).with_name("fakes")
UI = SOURCES / "main/kotlin/dev/stillroom/ui"
BEHIND_THE_SCREENS = (
    "Session",
    "Worker",
    "BundleStore",
    "GoldenMemory",
    "AssetSource",
    "Benchmark",
    "Device",
)

State = dict[str, Any]


@pytest.fixture(scope="module")
def classes(app: App, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The app's classes with those behind the screens, compiled against the stand-ins."""
    sources = [UI / f"{name}.kt" for name in BEHIND_THE_SCREENS]
    names = set(re.findall(r"\bR\.(\w+)\.(\w+)", "".join(path.read_text("utf-8") for path in sources)))
    assert {kind for kind, _ in names} == {"string"}
    fields = " ".join(f"public static int {name};" for _, name in sorted(names))
    folder = tmp_path_factory.mktemp("r")
    java = folder / "dev/stillroom/demo/R.java"
    java.parent.mkdir(parents=True)
    java.write_text(
        f"package dev.stillroom.demo; public class R {{ public static class string {{ {fields} }} }}"
    )
    compile_java(app.tools, [java], folder / "classes")
    libraries = [folder / "classes"]
    kotlin = [*sources, *sorted(FAKES.glob("*.kt"))]
    return [*libraries, compiled_with(app.tools, "session", kotlin, app.classes[0], libraries, jdk=True)]


class Phone:
    """A phone with the app: its storage, and the assets of its APK."""

    def __init__(self, app: App, classes: Sequence[Path], folder: Path, assets: Path | None) -> None:
        self.app, self.classes, self.storage = app, tuple(classes), folder / "storage"
        self.storage.mkdir(parents=True)
        self.assets = folder / "assets"
        if assets is not None:
            shutil.copytree(assets, self.assets / "bundle")

    def states(self, *lines: str) -> list[State]:
        """What the session holds after each line of what a user does."""
        command = self.app.command("dev.stillroom.ui.SessionMain", [self.storage, self.assets])
        at = command.index("-cp") + 1
        command[at] = ":".join([*map(str, self.classes), command[at]])
        done = subprocess.run(
            command, input="".join(f"{line}\n" for line in lines), capture_output=True, text=True,
            timeout=TIMEOUT_S, env=self.app.environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(found) == len(lines)
        return found


@pytest.fixture
def phone(app: App, classes: list[Path], app_bundles: dict[str, Path], tmp_path: Path) -> Phone:
    return Phone(app, classes, tmp_path / "phone", app_bundles["int8"])


def zipped(folder: Path, out: Path) -> Path:
    with zipfile.ZipFile(out, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return out


def test_golden_vectors_are_replayed_at_the_first_start_and_remembered(
    phone: Phone, app_bundles: dict[str, Path]
) -> None:
    first, second, third = phone.states("wait", "restart", "replay")
    count = len(read_goldens(app_bundles["int8"]))
    assert first["bundle"] == "int8" and not first["picked"] and first["failure"] is None
    assert first["golden"][0] == count > 1 and first["golden"][3] is None
    assert "REPLAYING" in first["seen"] and "REPLAYING" not in second["seen"]
    assert second["golden"] == first["golden"] and second["doing"] is None
    assert third["seen"][0] == "REPLAYING" and third["golden"] == first["golden"]
    assert first["telemetry"] == "1"


def test_a_golden_vector_that_differs_is_remembered_too(
    app: App, classes: list[Path], app_bundles: dict[str, Path], tmp_path: Path
) -> None:
    goldens = read_goldens(app_bundles["int8"])
    goldens[1]["logits"][0] += 3
    changed = copy_with(app_bundles["int8"], tmp_path / "changed", {"golden.json": goldens})
    first, second = Phone(app, classes, tmp_path / "phone", changed).states("wait", "restart")
    assert "golden vector 1" in first["golden"][3] and second["golden"] == first["golden"]
    assert first["bundle"] == "int8"  # it may still be tried out, below the warning


def test_a_text_is_classified_and_one_press_at_a_time_counts(phone: Phone) -> None:
    _, answered, twice = phone.states("wait", "classify\tthe food was great", "twice\tthe food was great")
    assert answered["labels"] in (["good"], ["bad"]) and answered["doing"] is None
    assert answered["seen"] == ["CLASSIFYING", "idle"] == twice["seen"]


def test_without_a_bundle_the_screen_says_so(app: App, classes: list[Path], tmp_path: Path) -> None:
    (state,) = Phone(app, classes, tmp_path, None).states("wait")
    assert state["bundle"] is None and state["doing"] is None
    assert state["failure"].startswith("Missing: there is no file manifest.json")


def test_a_bundle_is_picked_kept_and_left_again(
    phone: Phone, app_bundles: dict[str, Path], tmp_path: Path
) -> None:
    picked = zipped(app_bundles["pair"], tmp_path / "pair.zip")
    states = phone.states("wait", f"pick\t{picked}", "classify\tone\tother", "restart", "built-in")
    _, chosen, answered, restarted, back = states
    assert chosen["bundle"] == "pair" and chosen["picked"] and chosen["golden"][3] is None
    assert chosen["seen"][0] == "PICKING"
    assert answered["labels"][0] in ("yes", "no", "maybe")
    assert restarted["bundle"] == "pair" and restarted["picked"]
    assert back["bundle"] == "int8" and not back["picked"] and back["labels"] is None
    assert [*(phone.storage / "picked").iterdir()] == []  # a model takes much of a phone's storage


def test_a_bad_zip_is_refused_and_the_open_bundle_stays(
    phone: Phone, app_bundles: dict[str, Path], tmp_path: Path
) -> None:
    broken = copy_with(app_bundles["pair"], tmp_path / "broken", {"model.onnx": b"no model"})
    escape = tmp_path / "escape.zip"
    with zipfile.ZipFile(escape, "w") as archive:
        archive.writestr("../escaped.txt", "out")
    (tmp_path / "text.zip").write_text("no zip")
    paths = [zipped(broken, tmp_path / "broken.zip"), escape, tmp_path / "text.zip", tmp_path / "missing.zip"]
    states = phone.states("wait", *(f"pick\t{path}" for path in paths), "classify\tstill here")
    for state, kind in zip(
        states[1:5], ("ModelFailed", "PathEscape", "Malformed", "FileNotFound"), strict=True
    ):
        assert state["failure"].startswith(kind), state["failure"]
        assert state["bundle"] == "int8" and not state["picked"] and state["golden"] is not None
    assert states[5]["labels"] and states[5]["failure"] is None
    assert not [*phone.storage.parent.rglob("escaped.txt")]


def test_a_measurement_is_written_as_the_command_line_reads_it(
    phone: Phone, app_bundles: dict[str, Path], tmp_path: Path
) -> None:
    saved = tmp_path / "saved.json"
    states = phone.states("wait", "measure\t1\t2\t30", "classify\tthe room", f"save\t{saved}")
    measured, answered, after = states[1:]
    assert measured["seen"][0] == "MEASURING" and measured["failure"] is None and measured["doing"] is None
    assert answered["labels"] and answered["measured"] == measured["measured"]  # its model was opened again
    assert after["saved"] and saved.read_text("utf-8") == measured["measured"]
    assert Path(measured["file"]).read_bytes() == saved.read_bytes()
    result = read_app_results(saved, app_bundles["int8"])
    assert len(result.samples_ms) == 30 and result.pss_bytes == 123_456 * 1024
    assert result.thermal_status_after == 1 and result.battery_celsius_before == 31.5
    assert result.battery_percent == 80 and result.device.soc == "Chip 9" and result.device.abi == "arm64-v8a"
    assert result.device.model == "T?l?phone 1" and not result.device.emulator


def test_a_cancelled_measurement_leaves_nothing(phone: Phone) -> None:
    _, cancelled, again = phone.states("wait", "measure-and-cancel", "measure\t1\t0\t1")
    assert cancelled["cancelled"] and cancelled["failure"] is None and cancelled["measured"] is None
    assert not again["cancelled"] and again["measured"]
    assert len([*(phone.storage / "benchmarks").iterdir()]) == 1


def test_nothing_comes_back_after_the_end_and_the_thread_ends(phone: Phone) -> None:
    """The program ends only when the background thread does."""
    _, closed, later = phone.states("wait", "close-at-once\tthe food", "classify\ttoo late")
    assert closed["labels"] is None and closed["seen"] == ["CLASSIFYING"]
    assert later["labels"] is None
    assert phone.states("close")[0]["bundle"] is None
