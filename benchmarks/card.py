"""model-card.md: what a model is, what it was measured at, and what it is not for, in Hugging Face's format.

https://huggingface.co/docs/hub/model-cards; the sections are those of Mitchell et al. 2019
(https://arxiv.org/abs/1810.03993).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stillroom.benchmarks.energy import CORE_W, G_CO2_PER_KWH, energy_of
from stillroom.benchmarks.headline import best_row, headline, reference_row
from stillroom.benchmarks.page import NO_PHONE
from stillroom.benchmarks.results import metric_of
from stillroom.benchmarks.tables import (
    bullets,
    data_facts,
    escape_markdown,
    machine_facts,
    main_table,
    markdown,
    remake_command,
    version_line,
)
from stillroom.kinds import SCORE_WORDS

LIBRARIES = {"onnx": "onnx", "ort": "onnx", "torch": "transformers", "torchscript": "pytorch"}


def render_card(results: dict[str, Any]) -> str:
    """The card of the best file of a valid results document, as Markdown with YAML at its head."""
    best = best_row(results)
    parts = [
        _front_matter(results, best),
        f"# {escape_markdown(results['recipe']['name'])}",
        f"{escape_markdown(best['name'])}: a text model of {best['parameters'] / 1e6:.1f} million parameters "
        f"in {best['size_bytes'] / 1e6:.1f} MB, distilled and exported with stillroom.",
        "## Intended use",
        _use(results),
        "## How good, how large, how fast",
        bullets(headline(results)),
        markdown(main_table(results)),
        NO_PHONE,
        "## Data",
        bullets(f"{name}: {text}" for name, text in data_facts(results)),
        "Fill in where the texts come from, their language, and whether people agreed to this use: "
        "stillroom knows only the file.",
        "## Limits",
        bullets(_limits(results, best)),
        "## Energy and CO2: an estimate",
        escape_markdown(_energy(results, best)),
        "## Machine",
        bullets(f"{name}: {text}" for name, text in machine_facts(results)),
        "## Make it again",
        f"    {remake_command(results)}",
        escape_markdown(version_line(results)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(results: dict[str, Any], best: dict[str, Any]) -> str:
    """YAML; every string as JSON, which YAML reads, so that no name breaks out of it."""
    name, metric = json.dumps(results["recipe"]["name"]), metric_of(results)
    lines = [
        f"library_name: {LIBRARIES.get(best['target'], best['target'])}",
        "pipeline_tag: text-classification",
        "license: unknown  # yours to say; the teacher's and the data's bind it",
        f"tags: [stillroom, distillation, {json.dumps(best['scheme'])}]",
        f"metrics: [{', '.join(json.dumps(score) for score in best['scores'])}]",
        "model-index:",
        f"  - name: {name}",
        "    results:",
        "      - task: {type: text-classification}",
        f"        dataset: {{name: {name}, type: unknown, split: test}}",
        "        metrics:",
        f"          - {{type: {json.dumps(metric)}, value: {best['scores'][metric]:.4f}}}",
    ]
    return "\n".join(["---", *lines, "---"])


def _use(results: dict[str, Any]) -> str:
    labels = ", ".join(escape_markdown(str(label)) for label in list(results["task"]["labels"])[:12])
    length = results["task"]["max_length"]
    return (
        f"Texts like those it was trained on, up to {length} tokens, answered with: {labels}. Not for other "
        "languages or kinds of text than those, nor for decisions about people that no person answers for."
    )


def _limits(results: dict[str, Any], best: dict[str, Any]) -> Iterator[str]:
    metric = metric_of(results)
    words, is_share = SCORE_WORDS[metric]
    value = best["scores"][metric]
    shown = f"{100 * value:.1f} %" if is_share else f"{value:.3f}"
    yield f"{words} {shown} on {results['data']['test_rows']:,} test rows: it errs, and elsewhere more."
    quality = best["quality"]
    if quality and quality["calibration_error"] is not None:
        yield (
            f"Its probabilities are off by {100 * quality['calibration_error']:.1f} points on average "
            "(expected calibration error)."
        )
    worst = _worst_label(quality)
    if worst:
        yield worst
    yield f"Longer texts are cut at {results['task']['max_length']} tokens."
    yield "It knows no more of the world than its teacher, and has its teacher's prejudices."
    yield from results["notes"]


def _worst_label(quality: dict[str, Any] | None) -> str:
    """The label whose rows flip most, in words; "" when none does."""
    flips = {
        label: found["flips"] / found["rows"]
        for label, found in (quality or {"flips_by_label": {}})["flips_by_label"].items()
        if found["rows"] and found["flips"]
    }
    if not flips:
        return ""
    label = max(flips, key=lambda name: flips[name])
    share = f"{100 * flips[label]:.2f} % of them"
    return f"Made smaller it changed its answer most often on rows of {label!r}: {share}."


def _energy(results: dict[str, Any], best: dict[str, Any]) -> str:
    cores, seconds = results["machine"]["cores"], sum(results["seconds"].values())
    training = energy_of(cores * seconds)
    low, high = training.g_co2
    text = (
        f"Estimate, no meter was read: {seconds / 60:.0f} minutes on {cores} cores took "
        f"{training.wh[0]:.1f} to {training.wh[1]:.1f} Wh, {low:.1f} to {high:.1f} g of CO2 "
        f"(estimate: {CORE_W[0]:g} to {CORE_W[1]:g} W for a busy core, {G_CO2_PER_KWH:g} g for each kWh, the "
        "world's average of 2024; power times time times intensity, Lacoste et al. 2019). The teacher's "
        "pretraining is not in it."
    )
    reference = reference_row(results)
    if best["cpu_ms"] and reference["cpu_ms"]:
        mine, theirs = (energy_of(1e6 * row["cpu_ms"] / 1e3) for row in (best, reference))
        text += (
            f" A million answers at {best['length']} tokens: {mine.wh[0]:.1f} to {mine.wh[1]:.1f} Wh "
            f"(estimate, from CPU time on this machine), {reference['name']} {theirs.wh[0]:.1f} to "
            f"{theirs.wh[1]:.1f} Wh."
        )
    return text
