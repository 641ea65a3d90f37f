"""stillroom bench on the command line: where it measures, what it refuses, and what it estimates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stillroom.benchmarks.phone.device_profiles import read_profiles
from stillroom.cli import main
from stillroom.export.targets import export
from stillroom.files import read_json, write_json

PHONE = next(iter(read_profiles().values()))


@pytest.fixture(scope="module")
def artifact(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with its tokenizer beside it."""
    folder = tmp_path_factory.mktemp("cli-bench") / "onnx-int8-dynamic"
    export(tiny_teacher, "onnx", "int8-dynamic", folder)
    if not (folder / "tokenizer.json").is_file():
        (folder / "tokenizer.json").write_bytes((tiny_teacher / "tokenizer.json").read_bytes())
    return folder


def app_document(artifact: Path) -> dict[str, object]:
    """What the app would write of this artifact, on a phone of a class that is described."""
    facts = read_json(artifact / "artifact.json")
    return {
        "schema_version": 1,
        "app": {"name": "stillroom demo", "version": "0.1.0"},
        "runtime": {"name": "onnxruntime", "version": "1.32.0"},
        "artifact": {key: facts[key] for key in ("target", "scheme", "sha256", "size_bytes")},
        "device": {"manufacturer": "Acme", "model": "Phone 3", "soc": PHONE.soc_models[0], "emulator": False,
                   "android_release": "14", "android_sdk": 34, "abi": "arm64-v8a", "cores": 8,
                   "ram_bytes": 5_900_000_000},
        "settings": {"threads": 1, "warmup": 5, "runs": 4, "tokens": 16},
        "samples_ms": [4.0, 4.1, 4.2, 9.0], "load_ms": 60.0, "first_ms": 9.5, "pss_bytes": 90_000_000,
        "thermal_status_before": 0, "thermal_status_after": 1, "battery_celsius_before": 29.5,
        "battery_celsius_after": 31.0, "battery_percent": 80, "date": "2026-01-02T03:04:05Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to measure"),
        (["x", "--target", "moon"], "--target moon: expected host, arm64, adb or adb:SERIAL"),
        (["x", "--target", "host:1"], "--target host:1: expected"),
        (["x", "--target", "arm64", "--tools", "/nowhere"], "python -m stillroom.benchmarks.phone --fetch"),
        (
            ["x", "--target", "adb", "--tools", "/nowhere"],
            "python -m stillroom.benchmarks.phone.device_files",
        ),
        (["--import", "/nowhere.json"], "/nowhere.json"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_estimate_says_that_it_is_one(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--rounds", "1", "--samples", "2", "--length", "16", "--threads", "1"]
    assert main(["bench", str(artifact), *quick, "--estimate"]) == 0
    text = capsys.readouterr().out
    assert "no phone was measured" in text and text.count("(estimate)") >= 3 and "no phone" in text


def test_an_estimate_takes_instructions_counted_at_its_length(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--rounds", "1", "--samples", "2", "--length", "16", "--threads", "1", "--estimate"]
    counts = tmp_path / "bench.json"
    row = {"sha256": read_json(artifact / "artifact.json")["sha256"], "core": "a53", "instructions": 10**12}
    document = {"rows": [row], "cores": {"a53": "cortex-a53"}, "counted_tokens": 16}
    write_json(counts, document)
    command = ["bench", str(artifact), *quick, "--instructions", str(counts)]
    assert main(command) == 0
    old, *_ = [line for line in capsys.readouterr().out.splitlines() if line.startswith(PHONE.title)]
    (cluster, *_) = PHONE.clusters.values()
    per_ms = PHONE.cores[cluster.core].issue_width * cluster.clock_ghz * 1e6
    assert f"–{10**12 / per_ms / 0.25:,.3g}" in old  # the slow end of the range
    write_json(counts, {**document, "counted_tokens": 64})
    assert main(command) == 2
    assert "no count at 16 tokens" in capsys.readouterr().err
    write_json(counts, {"rows": 3, "counted_tokens": 16})
    assert main(command) == 2
    assert "is not the bench.json of stillroom bench ... --target arm64" in capsys.readouterr().err


def test_what_the_app_wrote_is_shown_and_checked(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "app.json", app_document(artifact))
    assert main(["bench", str(artifact), "--import", str(tmp_path / "app.json"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["app_results"]
    assert found["samples_ms"] == [4.0, 4.1, 4.2, 9.0]
    quick = ["--rounds", "1", "--samples", "2", "--length", "16", "--threads", "1"]
    imported = ["--import", str(tmp_path / "app.json")]
    assert main(["bench", str(artifact), *quick, "--estimate", *imported]) == 0
    assert "Acme Phone 3: 4.15 ms, estimate" in capsys.readouterr().out  # how far off it is
    other = app_document(artifact)
    other["artifact"] = {**other["artifact"], "sha256": "0" * 64}  # type: ignore[dict-item]
    write_json(tmp_path / "app.json", other)
    assert main(["bench", str(artifact), "--import", str(tmp_path / "app.json")]) == 2
