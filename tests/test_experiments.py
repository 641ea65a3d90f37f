"""docs/experiments/throughput.py still runs: loops that need nothing but this project, a few steps each."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stillroom.text import Row

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "experiments"
ROWS, BATCH = 8, 4


@pytest.fixture(scope="module")
def throughput() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))  # as for a script that is run
    spec = importlib.util.spec_from_file_location("throughput", FOLDER / "throughput.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def request_of_all(
    throughput: ModuleType, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    rows = [
        Row("the food was " + "great " * (1 + row), None, ("bad", "good")[row % 2]) for row in range(ROWS)
    ]
    folder = tmp_path_factory.mktemp("throughput")
    asked: dict[str, Any] = throughput.prepare(tiny_bert, rows, folder, BATCH, 16)
    return {**asked, "untimed": 1, "profiled": 1, "threads": 1}


def test_every_loop_is_timed_and_profiled(throughput: ModuleType, request_of_all: dict[str, Any]) -> None:
    pythons = {name: sys.executable for name in ("stillroom", "Trainer, fp32")}
    kept: list[Any] = []
    found = throughput.measure_loops(request_of_all, pythons, 1, 120, kept.append)
    assert kept == [found]
    for (one,) in found.values():
        assert len(one["step_s"]) == ROWS // BATCH and sum(one["step_s"]) == pytest.approx(
            one["timed_s"], abs=0.01
        )
        assert one["samples_per_s"] == ROWS / one["timed_s"]
        assert 0 < one["outside_matmuls"] < 1  # some of either was found
        assert any("mm" in name for name in one["top_operations"])
        assert one["peak_rss_bytes"] > 50e6  # torch alone is more
        assert one["timed_cpu_s"] > 0
    text = throughput.table(found, ROWS)
    assert "| Trainer, fp32 | fp32 |" in text and "1.00 (1.00–1.00)" in text
    assert "with the teacher's outputs, 1 epoch |" in text
    assert throughput.against(found).splitlines()[2].startswith("| stillroom | ")


def test_the_teacher_costs_less_over_more_epochs(throughput: ModuleType) -> None:
    found = {"teacher_s": 3.0, "timed_s": 1.0}
    assert throughput.with_teacher(found, rows=8, epochs=1) == 2.0
    assert throughput.with_teacher(found, rows=8, epochs=3) == 4.0


def test_what_counts_as_a_matrix_product(throughput: ModuleType) -> None:
    is_matmul: Callable[[str], bool] = sys.modules["throughput_loops"].is_matmul
    products = ("aten::mm", "aten::addmm", "aten::_scaled_dot_product_flash_attention_for_cpu_backward")
    assert all(is_matmul(name) for name in products)
    assert not any(is_matmul(name) for name in ("aten::addcmul_", "aten::softmax", "aten::_fused_adamw_"))


def test_gpu_figures_add_up(throughput: ModuleType) -> None:
    import torch

    # Only the arithmetic: on a CPU, in miniature. The card's own figures were never taken here.
    sizes = {"hidden": 64, "layers": 2, "length": 8, "batch_size": 4, "steps": 2}
    found = throughput.gpu_figures(torch.device("cpu"), **sizes)
    assert all(value > 0 for value in found.values())
    operations = 3 * (24 * 64**2 + 4 * 8 * 64)  # of one layer and token, forward and backward
    assert found["matmul_share"] == pytest.approx(
        operations * found["tokens_per_s"] / found["matmul_peak_per_s"]
    )


def test_rows_that_do_not_fill_their_batches(throughput: ModuleType, tiny_bert: Path, tmp_path: Path) -> None:
    rows = [Row("fine", None, label) for label in ("good", "bad", "good")]
    with pytest.raises(SystemExit, match="3 rows: expected a multiple of the batch size, 2"):
        throughput.prepare(tiny_bert, rows, tmp_path, 2, 16)
