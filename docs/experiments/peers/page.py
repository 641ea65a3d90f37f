"""The tables of docs/benchmarks.md, from what the results files hold and nothing else."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from peers.table import AGAIN, NOTHING, OURS

from stillroom.benchmarks.statistics import NO_DIFFERENCE, by_process, noise_floor, ratio_of_medians, verdict
from stillroom.errors import UsageError
from stillroom.files import write_atomic

BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
HEAD = (
    "| | accuracy | flips | size MB | 64 tokens: p50 [95 %] / p90 ms | 128 tokens: p50 [95 %] / p90 ms "
    "| 1 thread: p50 64 / 128 ms | load + first ms | peak RSS MB | of it model MB |"
)
FULL, SINGLE = "2", "1"  # threads, as the results name them
LENGTHS = ("64", "128")


def update_page(page: Path, results: dict[str, Any], loops: dict[str, Any]) -> None:
    """Put the rendered tables between the page's marks. Raises UsageError when it has none."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UsageError(f"{page}: expected one {BEGIN} and one {END}")
    before, rest = text.split(BEGIN)
    write_atomic(page, f"{before}{BEGIN}\n{rendered(results, loops)}\n{END}{rest.split(END)[1]}")


def rendered(results: dict[str, Any], loops: dict[str, Any]) -> str:
    """Everything between the marks, Markdown."""
    parts = [
        main_table(results), footing(results), *losses(results), loop_table(loops), settings(results),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def main_table(results: dict[str, Any]) -> str:
    """One row a peer, in the order they were asked for; one that has no figures says why."""
    columns = HEAD.count("|") - 1
    lines = [HEAD, "| --- |" + " ---: |" * (columns - 1)]
    for name, peer in results["peers"].items():
        if name == NOTHING:
            continue
        if peer["status"] != "measured":
            why = plain(f"{peer['status']}: {peer['reason']}")
            lines.append(f"| {name} | {why} |" + " |" * (columns - 2))
            continue
        full, single = peer["threads"][FULL], peer["threads"][SINGLE]
        one = " / ".join(f"{single['latency_ms'][length]['p50']:.2f}" for length in ("64", "128"))
        peak = statistics.median(full["peak_rss_bytes"])
        model = peak - statistics.median(full["baseline_rss_bytes"])
        scores = f"{peer['accuracy']:.2%} | {peer['flips']:,}" if "accuracy" in peer else "|"
        lines.append(
            f"| {name} | {scores} | {peer['size_bytes'] / 1e6:.1f} | {cell(full['latency_ms']['64'])} | "
            f"{cell(full['latency_ms']['128'])} | {one} | {statistics.median(ready_ms(full)):.0f} | "
            f"{peak / 1e6:.0f} | {model / 1e6:.0f} |"
        )
    return "\n".join(lines)


def ready_ms(measured: dict[str, Any]) -> list[float]:
    """From a file to the first answer, by process: some runtimes load only when they are first asked."""
    return [load + first for load, first in zip(measured["load_ms"], measured["first_ms"], strict=True)]


def cell(latency: dict[str, Any]) -> str:
    """p50 with its interval, and p90."""
    low, high = latency["intervals"]["p50"]
    return f"{latency['p50']:.2f} [{low:.2f}, {high:.2f}] / {latency['p90']:.2f}"


def plain(text: str) -> str:
    """Text that cannot end a table's cell."""
    return re.sub(r"\s+", " ", text).replace("|", "/").replace("<", "&lt;")


def footing(results: dict[str, Any]) -> str:
    """Rows, machine, date, noise and the command, in sentences."""
    machine, workload = results["machine"], results["workload"]
    flags = ", ".join(machine["cpu_flags"])
    seconds = results["seconds"]
    processes = f"{workload['rounds']} fresh processes per thread count with {workload['samples']} calls each"
    lines = [
        f"{results['test_rows']:,} test texts; {results['calibration_rows']} training texts for calibration. "
        f"2 threads unless a column says otherwise; batch 1; {processes}, after "
        f"{workload['warmup']} untimed. "
        "Flips: texts whose label differs from the fp32 student's.",
        f"{machine['date'][:10]}, {machine['cpu']} ({flags}), {machine['cores']} cores, {machine['os']}, "
        f"load average before {machine['load_average_1m']:.1f}. Remade by `make peers`; the measuring took "
        f"{seconds['measuring'] / 60:.0f} minutes.",
        noise_sentence(results),
        versions_sentence(results),
    ]
    return "\n\n".join(line for line in lines if line)


def samples_of(results: dict[str, Any], name: str, length: str, threads: str) -> Any:
    """Milliseconds of a peer, [processes, calls]."""
    row = results["peers"][name]["threads"][threads]["samples_ms"][length]
    return by_process(row, results["workload"]["rounds"])


def names_measured(results: dict[str, Any]) -> list[str]:
    """Peers with figures, the empty predictor left out."""
    peers = results["peers"]
    return [name for name in peers if peers[name]["status"] == "measured" and name != NOTHING]


def floor(results: dict[str, Any], length: str, threads: str, *others: str) -> float | None:
    """By what share one file may differ from itself in this run; None without the A/A pair."""
    if not {OURS, AGAIN} <= set(names_measured(results)):
        return None
    pair = (samples_of(results, OURS, length, threads), samples_of(results, AGAIN, length, threads))
    return noise_floor([*pair, *(samples_of(results, name, length, threads) for name in others)], pair)


def noise_sentence(results: dict[str, Any]) -> str:
    """The noise floor of this run, and what the clock itself takes."""
    found = [
        (floor(results, length, threads), f"{length} tokens and {threads} thread{'s' * (threads != SINGLE)}")
        for threads in (FULL, SINGLE)
        for length in LENGTHS
    ]
    shown = ", ".join(f"{share:.1%} at {words}" for share, words in found if share is not None)
    if not shown:
        return ""
    empty = results["peers"][NOTHING]
    clock = ""
    if empty["status"] == "measured":
        clock = (
            f" An empty predictor takes {1e3 * empty['threads'][FULL]['latency_ms']['128']['p50']:.1f} µs."
        )
    return (
        "Noise floor of this run, from our file measured twice (A/A) and its scatter between rounds: "
        f"{shown}. What differs by less is no difference.{clock}"
    )


def versions_sentence(results: dict[str, Any]) -> str:
    """Every runtime's version, as the measured processes reported it."""
    found = {
        f"{package} {number}"
        for name in names_measured(results)
        for package, number in results["peers"][name]["versions"].items()
    }
    return f"Runtimes: {', '.join(sorted(found))}; Python {results['machine']['python']}."


def losses(results: dict[str, Any]) -> list[str]:
    """Where another tool's file beats our default or equals it, one line for each thing measured."""
    measured = names_measured(results)
    if not {OURS, AGAIN} <= set(measured):
        return []
    ours, peers = results["peers"][OURS], results["peers"]
    others = [name for name in measured if not name.startswith("stillroom")]
    lines = [f"Where other tools' files are better than {OURS}:", ""]
    for threads in (FULL, SINGLE):
        for length in LENGTHS:
            found: dict[str, list[str]] = {}
            for name in others:
                yardstick, sample = (samples_of(results, it, length, threads) for it in (OURS, name))
                ratio = ratio_of_medians(yardstick, sample)
                seen = verdict(ratio, floor(results, length, threads, name) or 0)
                found.setdefault(seen, []).append(f"{name} (takes {1 / ratio.value:.2f} times as long)")
            where = f"at {length} tokens and {threads} thread{'s' * (threads != SINGLE)}"
            lines.append(f"- faster {where}: {', '.join(found.get('faster', [])) or 'none'}")
            same = ", ".join(found.get(NO_DIFFERENCE, [])) or "none"
            lines.append(f"- no difference beyond noise {where}: {same}")
    more = [
        f"{name} ({peers[name]['accuracy']:.2%})"
        for name in others
        if peers[name]["accuracy"] > ours["accuracy"]
    ]
    lines.append(f"- higher accuracy than {ours['accuracy']:.2%}: {', '.join(more) or 'none'}")
    fewer = [f"{name} ({peers[name]['flips']})" for name in others if peers[name]["flips"] < ours["flips"]]
    lines.append(f"- fewer flips than {ours['flips']}: {', '.join(fewer) or 'none'}")
    smaller = [
        f"{name} ({peers[name]['size_bytes'] / 1e6:.2f} MB)"
        for name in others
        if peers[name]["size_bytes"] < ours["size_bytes"]
    ]
    lines.append(f"- smaller than {ours['size_bytes'] / 1e6:.2f} MB: {', '.join(smaller) or 'none'}")
    ready = {name: statistics.median(ready_ms(peers[name]["threads"][FULL])) for name in measured}
    peak = {
        name: statistics.median(peers[name]["threads"][FULL]["peak_rss_bytes"]) / 1e6 for name in measured
    }
    lines.append(below(ready, others, "loads and answers first in less than", "ms"))
    lines.append(below(peak, others, "peaks below", "MB"))
    return ["\n".join(lines)]


def below(values: dict[str, float], others: list[str], words: str, unit: str) -> str:
    """Which of the others have less than our default has."""
    less = [f"{name} ({values[name]:.1f} {unit})" for name in others if values[name] < values[OURS]]
    return f"- {words} {values[OURS]:.1f} {unit}: {', '.join(less) or 'none'}"


def loop_table(loops: dict[str, Any]) -> str:
    """Rows a second of the training loops, from docs/throughput.json: median of rounds, and their range."""
    machine, request = loops["machine"], loops["request"]
    lines = ["| training loop | precision | rows a second (lowest–highest round) |", "| --- | --- | ---: |"]
    for name, rounds in loops["loops"].items():
        rates = np.array([one["samples_per_s"] for one in rounds])
        spread = f"{rates.min():.0f}–{rates.max():.0f}"
        lines.append(f"| {name} | {rounds[0]['precision']} | {np.median(rates):.0f} ({spread}) |")
    lines += [
        "",
        f"Steps only, the teacher's outputs apart; {request['rows']} rows, batches of "
        f"{request['batch_size']}, {request['threads']} threads; {machine['date'][:10]}, {machine['cpu']} "
        f"({', '.join(machine['cpu_flags'])}), {machine['cores']} cores. `make throughput`, "
        "[docs/throughput.json](throughput.json).",
    ]
    return "\n".join(lines)


def settings(results: dict[str, Any]) -> str:
    """What each peer is, one line each."""
    lines = ["Settings of each row:", ""]
    seen: dict[str, str] = {}
    for name, peer in results["peers"].items():
        if name == NOTHING:
            continue
        line = f"- {name} (environment: {peer['environment']}): {peer['settings']}"
        first = seen.setdefault(peer.get("sha256", name), name)
        if first != name and name != AGAIN:
            line += f"; byte for byte the file of {first}"
        tools = ", ".join(tool.replace("-", " ") for tool in peer.get("converted_with", []))
        lines.append(f"{line}; converted with {tools}" if tools else line)
    return "\n".join(lines)
