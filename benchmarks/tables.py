"""The figures of a results document as text in cells, the same for Markdown and HTML."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stillroom.benchmarks.results import all_rows, metric_of
from stillroom.kinds import SCORE_WORDS, kind_of

NOT_MEASURED = "–"


@dataclass(frozen=True)
class Table:
    """Header cells, and rows of cells. The first text_columns are words, the others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int


def number(value: float | None, decimals: int, scale: float = 1.0) -> str:
    """value * scale with so many decimals, thousands apart, or a dash when it was not measured."""
    return NOT_MEASURED if value is None else f"{value * scale:,.{decimals}f}"


def what_it_is(row: dict[str, Any]) -> str:
    """Role, target and scheme, such as "student, onnx int8-dynamic"."""
    return f"{row['role']}, {row['target']} {row['scheme']}"


def main_table(results: dict[str, Any]) -> Table:
    """One line per model and file; 1 MB is 1e6 bytes, latencies are at the longest length."""
    length = max(results["workload"]["lengths"])
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "name": lambda row: str(row["name"]),
        "what it is": what_it_is,
        "parameters, M": lambda row: number(row["parameters"], 1, 1e-6),
        "size, MB": lambda row: number(row["size_bytes"], 1, 1e-6),
        **score_columns(results),
        "retention, %": lambda row: number(row["retention"], 1, 100),
        "flips, %": lambda row: number(row["flip_rate"] if row["source"] else None, 2, 100),
        f"p50 at {length}, ms": lambda row: number((row["latency_ms"] or {}).get("p50"), 2),
        f"p95 at {length}, ms": lambda row: number((row["latency_ms"] or {}).get("p95"), 2),
        f"p99 at {length}, ms": lambda row: number((row["latency_ms"] or {}).get("p99"), 2),
        "CPU time, ms": lambda row: number(row["cpu_ms"], 2),
        "cold load, ms": lambda row: number(row["cold_load_ms"], 0),
        "peak RSS, MB": lambda row: number(row["peak_rss_bytes"], 0, 1e-6),
    }
    return _table(columns, all_rows(results), 2)


def score_columns(results: dict[str, Any]) -> dict[str, Callable[[dict[str, Any]], str]]:
    """One column per score of the task, the one that counts first."""

    def column(name: str) -> tuple[str, Callable[[dict[str, Any]], str]]:
        words, share = SCORE_WORDS[name]
        header = f"{words}, %" if share else words
        return header, lambda row: number(row["scores"][name], 2, 100 if share else 1)

    return dict(column(name) for name in kind_of(results["task"]["kind"]).scores)


def length_table(results: dict[str, Any]) -> Table:
    """Percentiles in milliseconds, the median with its interval, for every measured row at every length."""
    entries = [
        {"name": row["name"], "length": entry["length"], "cpu_ms": entry["cpu_ms"], **entry["latency_ms"]}
        for row in all_rows(results)
        for entry in row["by_length"]
    ]
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "name": lambda entry: str(entry["name"]),
        "tokens": lambda entry: str(entry["length"]),
        "p50, ms": lambda entry: number(entry["p50"], 2),
        "95 % interval": lambda entry: "–".join(number(end, 2) for end in entry["intervals"]["p50"]),
        "p90, ms": lambda entry: number(entry["p90"], 2),
        "p95, ms": lambda entry: number(entry["p95"], 2),
        "p99, ms": lambda entry: number(entry["p99"], 2),
        "CPU time, ms": lambda entry: number(entry["cpu_ms"], 2),
    }
    return _table(columns, entries, 1)


def parity_table(results: dict[str, Any]) -> Table:
    """How far each file's answers are from those of what it was made from, beside what is allowed."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "file": lambda row: str(row["name"]),
        "made from": lambda row: str(row["source"]),
        "largest logit difference": lambda row: (
            NOT_MEASURED if row["max_abs_error"] is None else f"{row['max_abs_error']:.2g}"
        ),
        "allowed": lambda row: _allowed(results["tolerances"], row["name"]),
        "flips, %": lambda row: number(row["flip_rate"], 2, 100),
    }
    return _table(columns, [row for row in results["artifacts"] if row["source"] is not None], 2)


def _allowed(tolerances: dict[str, Any], name: str) -> str:
    """The bound on a file's logits, where one is kept."""
    bound = tolerances.get(name, {}).get("max_abs_error")
    return NOT_MEASURED if bound is None else f"{bound:g}"


def _table(
    columns: dict[str, Callable[[dict[str, Any]], str]], rows: Sequence[dict[str, Any]], text_columns: int
) -> Table:
    cells = tuple(tuple(cell(row) for cell in columns.values()) for row in rows)
    return Table(tuple(columns), cells, text_columns)


def data_facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows per split and per label, what was dropped, and what always giving one answer would score."""
    data = results["data"]
    facts = [(split, f"{data[f'{split}_rows']:,} rows") for split in ("train", "validation", "test")]
    dropped = [
        f"{data[key]:,} {what}"
        for key, what in (("dropped_duplicates", "duplicates"), ("dropped_low_confidence", "unsure rows"))
        if data.get(key)
    ]
    if dropped:
        facts.append(("dropped", " and ".join(dropped)))
    words = SCORE_WORDS[metric_of(results)][0]
    fixed = f"{words} {100 * data['fixed_answer_score']:.1f} % on test"
    facts.append((f"always answering {data['fixed_answer']!r}", fixed))
    return facts


def machine_facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What decides the latencies, as name and text; what the system did not tell is left out."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    facts = [
        ("CPU", f"{machine['cpu']} ({machine['architecture']}, {machine['cores']} cores)"),
        ("instructions", ", ".join(machine["cpu_flags"])),
        ("memory", f"{number(machine['memory_bytes'], 1, 1e-9)} GB"),
        ("threads", str(machine["threads"])),
        ("governor", machine["governor"]),
        ("system", f"{machine['os']}, Python {machine['python']}"),
        ("versions", versions),
        ("load average", f"{number(machine['load_average_1m'], 2)} over one minute"),
        ("measured", machine["date"]),
    ]
    return [(name, text) for name, text in facts if text and not text.startswith(NOT_MEASURED)]


def workload_line(results: dict[str, Any]) -> str:
    """One sentence that says what was timed."""
    work = results["workload"]
    caches = {row["page_cache"] for row in all_rows(results)} - {None}
    cache = (
        " The system was asked to drop each file from its cache before each process started."
        if caches == {"dropped"}
        else ""
    )
    lengths = ", ".join(str(length) for length in work["lengths"])
    return (
        f"Real text at {lengths} tokens, batch {work['batch_size']}, {work['threads']} threads: "
        f"{work['rounds']} fresh processes per row, taken in turn, with {work['samples']} timed calls at "
        f"each length after {work['warmup']} untimed ones.{cache}"
    )


def sentence(line: str) -> str:
    """The line with a capital letter and a full stop."""
    return f"{line[:1].upper()}{line[1:]}."


def escape_markdown(text: str) -> str:
    """Text as one line that Markdown shows as it is: names and notes are not to be trusted."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*[]|":
        line = line.replace(mark, f"\\{mark}")
    return line


def bullets(lines: Iterable[str]) -> str:
    """Lines as a list in Markdown."""
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)


def markdown(table: Table) -> str:
    """A table as Markdown, numbers to the right. A header may hold a recipe's name: escaped too."""
    rules = ["---"] * table.text_columns + ["---:"] * (len(table.header) - table.text_columns)
    header, *rows = (tuple(escape_markdown(cell) for cell in row) for row in (table.header, *table.rows))
    lines = [header, tuple(rules), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(table: Table) -> str:
    """A table as aligned text for a terminal."""
    widths = [max(len(line[at]) for line in (table.header, *table.rows)) for at in range(len(table.header))]

    def cells(line: tuple[str, ...]) -> str:
        sides = (str.ljust if at < table.text_columns else str.rjust for at in range(len(line)))
        return "  ".join(
            side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)
        ).rstrip()

    return "\n".join(cells(line) for line in (table.header, *table.rows))


def markdown_table(results: dict[str, Any]) -> str:
    """The main table of a valid results document as Markdown."""
    return markdown(main_table(results))


def remake_command(results: dict[str, Any]) -> str:
    """The shell line that makes these results again: as it was given, or by the recipe's name."""
    if "command" in results:
        return str(results["command"])
    name = results["recipe"]["name"]
    return f"stillroom run {shlex.quote(name)} --out {shlex.quote(f'runs/{name}')}"


def version_line(results: dict[str, Any]) -> str:
    """Who wrote the results, and when."""
    return f"Written by stillroom {results['stillroom_version']} at {results['created']}."
