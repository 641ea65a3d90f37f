"""The benchmark screen's numbers and document: as Python computes the ones, and as Python reads the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jvm import App

from stillroom.benchmarks.phone.app_results import read_app_results
from stillroom.benchmarks.statistics import percentiles
from stillroom.cli import main
from stillroom.errors import UsageError


def test_percentiles_equal_pythons(app: App) -> None:
    """To the last bit, on samples of every size up to 300 and of any value a clock can give."""
    shared: list[list[float]] = [[float(n * n % 17) for n in range(size)] for size in range(1, 300)]

    @settings(max_examples=200)
    @given(st.lists(st.floats(1e-6, 3.6e6), min_size=1, max_size=60))
    def collect(samples: list[float]) -> None:
        shared.append(samples)

    collect()
    lines = app.run("percentiles", given="".join(f"{json.dumps(samples)}\n" for samples in shared))
    assert len(lines) == len(shared) > 400
    for samples, line in zip(shared, lines, strict=True):
        assert json.loads(line) == percentiles(samples)


@pytest.fixture(scope="module")
def document(app: App, app_bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the app writes after it timed a tiny model on this machine's JVM, as an emulator would."""
    (line,) = app.run("bench", app_bundles["int8"])
    path = tmp_path_factory.mktemp("bench") / "app.json"
    path.write_text(line, encoding="utf-8")
    return path


def test_python_reads_what_the_app_writes(document: Path, app_bundles: dict[str, Path]) -> None:
    result = read_app_results(document, app_bundles["int8"])
    assert (result.runtime_name, result.runtime_version) == ("onnxruntime", "1.29.0")
    assert (result.target, result.scheme) == ("onnx", "int8-dynamic")
    assert (result.threads, result.warmup, result.tokens, len(result.samples_ms)) == (1, 3, 16, 20)
    assert all(0 < sample < 60_000 for sample in (*result.samples_ms, result.first_ms, result.load_ms))
    assert len(set(result.samples_ms)) > 1
    assert result.device.emulator and result.device.soc is None and result.thermal_status_before is None
    with pytest.raises(UsageError, match="bundle this artifact into the app"):
        read_app_results(document, app_bundles["pair"])


def test_the_command_line_imports_it(
    document: Path, app_bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(app_bundles["int8"]), "--import", str(document)]) == 0
    said = capsys.readouterr().out
    assert "no phone JVM (emulator)" in said and "onnx int8-dynamic" in said
    assert main(["bench", str(app_bundles["pair"]), "--import", str(document)]) != 0
