"""The model card: whole, readable as YAML and Markdown, and honest about what is estimated."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from stillroom.benchmarks.card import render_card
from stillroom.benchmarks.energy import energy_of


def front_matter(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_the_head_is_yaml_of_the_hub(sample_results: dict[str, Any]) -> None:
    head = front_matter(render_card(sample_results))
    assert head["pipeline_tag"] == "text-classification" and head["library_name"] == "onnx"
    (metric,) = head["model-index"][0]["results"][0]["metrics"]
    assert metric == {"type": "accuracy", "value": pytest.approx(0.9203)}


def test_a_name_cannot_break_out_of_the_head(sample_results: dict[str, Any]) -> None:
    sample_results["recipe"]["name"] = 'x"\n---\nlicense: mit # <script>'
    sample_results["recipe"]["name"] = sample_results["recipe"]["name"].replace("\n", " ")
    card = render_card(sample_results)
    assert front_matter(card)["license"] == "unknown"
    shown = [line for line in card.split("---\n", 2)[2].splitlines() if not line.startswith("    ")]
    assert not any("<script>" in line for line in shown)  # the command above is a block of code


def test_every_section_is_there_and_energy_is_an_estimate(sample_results: dict[str, Any]) -> None:
    card = render_card(sample_results)
    for section in ("Intended use", "Data", "Limits", "Energy and CO2: an estimate", "Machine"):
        assert f"## {section}" in card
    energy = card.split("## Energy")[1].split("## ")[0]
    assert energy.count("stimate") >= 3 and "no meter was read" in energy
    assert "No phone was measured" in card and "often on rows of 'positive'" in card


def test_unmeasured_rows_make_a_card_too(sample_results: dict[str, Any]) -> None:
    for row in (*sample_results["models"], *sample_results["artifacts"]):
        row |= {"latency_ms": None, "cpu_ms": None, "quality": None, "by_length": [], "peak_rss_bytes": None}
    assert "## Limits" in render_card(sample_results)


def test_energy_is_power_times_time() -> None:
    found = energy_of(7200)
    assert found.wh == (10.0, 40.0)
    assert found.g_co2 == pytest.approx((4.45, 17.8))
