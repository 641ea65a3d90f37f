"""report.html: one file with its style and plots inside, for a wide screen, a phone, by day and by night."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from stillroom.benchmarks.compare import PASS_TITLE, size_section
from stillroom.benchmarks.detail_tables import (
    app_table,
    app_words,
    emulated_rows,
    estimate_rows,
    label_table,
    limit_table,
    noise_line,
    operator_table,
    parity_matrix,
    peak_line,
    quality_table,
    sweep_table,
    text_table,
)
from stillroom.benchmarks.headline import TARGET_NAMES, best_row, headline, reference_row, tiles
from stillroom.benchmarks.plots import DARK, LIGHT, css_variables, themed
from stillroom.benchmarks.results import all_rows
from stillroom.benchmarks.tables import (
    Table,
    data_facts,
    length_table,
    machine_facts,
    main_table,
    parity_table,
    remake_command,
    sentence,
    version_line,
    workload_line,
)

NO_PHONE = "Latency and memory are of the host CPU described below. No phone was measured."
MAX_LABELS_SHOWN = 12
QUALITY_WORDS = (
    "Retention with its 95 % interval (rows drawn in pairs); rows that are right here and wrong there, and "
    "the other way round, with the p-value of McNemar's exact test: below 0.05 the two are not equally good. "
    "Calibration error: how far an answer's probability is from how often it is right."
)
EMULATED_WORDS = (
    "Emulated: the arm64 builds of the runtimes on an emulator's model of each core. Differences are from "
    "this machine's answers to the golden texts; instructions are of one inference of as many tokens. There "
    "is no time here, and no phone was measured."
)
ESTIMATE_WORDS = (
    "Estimate: no phone was measured. A range from arithmetic and memory traffic (docs/devices.md), at the "
    "longest length."
)
TEXT_WORDS = (
    "Each row of the validation split once at its own length. Tokenizing was timed apart, on one thread; end "
    "to end is the sum, text by text."
)

STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.8rem, 5vw, 2.6rem); line-height: 1.1; letter-spacing: -0.02em; margin: 0;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; letter-spacing: -0.01em; margin: 2.8rem 0 0.4rem; }
p { margin: 0.4rem 0; max-width: 46rem; }
.kicker { color: var(--student); font-weight: 600; font-size: 0.85rem; margin: 0 0 0.3rem; }
.muted, figcaption, dt { color: var(--muted); font-size: 0.9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 0.8rem;
  margin: 1.8rem 0 0.6rem; padding: 0; list-style: none; }
.tiles li, figure, .scroll, pre { background: var(--paper); border: 1px solid var(--grid);
  border-radius: 12px; }
.tiles li { padding: 1rem 1.1rem 0.9rem; }
.tiles b { display: block; font-size: clamp(1.7rem, 4.5vw, 2.5rem); line-height: 1.1;
  letter-spacing: -0.03em; }
.tiles span { display: block; font-weight: 600; line-height: 1.3; margin-top: 0.15rem; }
.tiles small { display: block; color: var(--muted); font-size: 0.85rem; line-height: 1.4;
  margin-top: 0.3rem; }
.said { padding-left: 1.1rem; max-width: 50rem; }
.said li { margin: 0.35rem 0; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; align-items: start;
  margin-top: 1rem; }
figure { margin: 0; padding: 1rem; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: 0.6rem; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.5rem 0.7rem; text-align: right; border-top: 1px solid var(--grid); }
th { font-weight: 600; }
thead th { color: var(--muted); font-size: 0.82rem; border-top: 0; vertical-align: bottom;
  line-height: 1.3; }
th.word, td.word { text-align: left; }
td { white-space: nowrap; }
tbody th { position: sticky; left: 0; background: var(--paper); overflow-wrap: anywhere;
  min-width: 11.5rem; max-width: 18rem; }
.best th, .best td { background: var(--marked); }
.dot { display: inline-block; width: 0.6em; height: 0.6em; border-radius: 50%; margin-right: 0.5em; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1rem; margin: 0.6rem 0; }
dt { max-width: 11rem; overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; font-size: 0.95rem; }
code { font: 0.92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { padding: 0.8rem 1rem; overflow-x: auto; }
details { margin: 1rem 0; }
.emulated .scroll, .estimate .scroll { border-left: 6px solid var(--baseline); }
.emulated summary, .estimate summary { color: var(--baseline); font-weight: 600; }
summary { cursor: pointer; color: var(--muted); }
@media (max-width: 820px) {
  main { padding: 1.6rem 1rem 3rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tiles li { padding: 0.8rem; }
  tbody th { min-width: 8.5rem; }
  td.word { white-space: normal; min-width: 6rem; }
  th, td { padding: 0.45rem 0.5rem; }
  .figures, .pair { grid-template-columns: 1fr; }
  figure { padding: 0.7rem 0.3rem; }
  figcaption { padding: 0 0.5rem; }
}
"""

CAPTIONS = {
    "scatter": "Towards the lower left is smaller and faster. The percentage is the first score on the test "
    "split.",
    "spread": "Every timed call. Line: 1st to 99th percentile; box: the middle half; number: the median.",
    "sweep": "The files with other lengths, threads and batches.",
    "sensitivity": "What each part of the student costs when it alone is rounded to 8 bits.",
}
GLOSSARY = (
    ("retention", "the first score divided by the teacher's"),
    ("flips", "test rows whose label differs from that of the model it is compared with"),
    ("p50, p99", "half of the calls, and 99 of 100, were at least this fast"),
    ("evaluation pass", "the time of the model's calls; tokenizing is not in it"),
    ("cold load", "from the file on disk to a model that can be called, the runtime's import not included"),
    ("peak RSS", "largest resident memory of the process, with Python and the runtime in it"),
    ("MB", "1,000,000 bytes"),
)


def render_page(results: dict[str, Any], plots: Mapping[str, str]) -> str:
    """The report of a valid results document as one HTML text: no script, and nothing it would load.

    plots: name -> SVG text of those named in CAPTIONS; none where nothing was timed.
    """
    title = escape(results["recipe"]["name"])
    night = css_variables(DARK) + " --ground: #0d1117; --marked: #2a211c;"
    day = css_variables(LIGHT) + " --ground: #f6f7f8; --marked: #fff4ec;"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}: stillroom report</title>
<style>
:root {{ color-scheme: light dark; {day} }}
@media (prefers-color-scheme: dark) {{ :root {{ {night} }} }}
{STYLE}</style>
</head>
<body>
<main>
{_header(results, title)}
{_figures(results, plots)}
{_tables(results)}
{_background(results)}
</main>
</body>
</html>
"""


def _header(results: dict[str, Any], title: str) -> str:
    best, reference = best_row(results), reference_row(results)
    target = TARGET_NAMES.get(reference["target"], reference["target"])
    against = f"{best['name']} against the {reference['scheme']} teacher in {target}"
    boxes = "".join(
        f"<li><b>{escape(tile.value)}</b><span>{escape(tile.label)}</span><small>{_text(tile.detail)}</small></li>"
        for tile in tiles(results)
    )
    return f"""<header>
<p class="kicker">stillroom report</p>
<h1>{title}</h1>
<p class="muted">{escape(_task_line(results["task"]))}</p>
<ul class="tiles">{boxes}</ul>
<p class="muted">{escape(against)}. {NO_PHONE}</p>
<ul class="said">{_items(headline(results))}</ul>
</header>"""


def _task_line(task: dict[str, Any]) -> str:
    labels = list(task["labels"])
    more = f" and {len(labels) - MAX_LABELS_SHOWN} more" if len(labels) > MAX_LABELS_SHOWN else ""
    shown = ", ".join(labels[:MAX_LABELS_SHOWN])
    return f"{task['kind']} · {shown}{more} · up to {task['max_length']} tokens"


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{_text(line)}</li>" for line in lines)


def _text(line: str) -> str:
    """Escaped, and without a line break between a number and its unit."""
    return re.sub(r"(\d) (%|MB|ms|GB)", r"\1&nbsp;\2", escape(line))


def _figures(results: dict[str, Any], plots: Mapping[str, str]) -> str:
    if not plots:
        return "<h2>Size and speed</h2><p>Nothing was timed in this run.</p>"
    drawn = "".join(
        f"<figure>{themed(plots[name])}<figcaption>{caption}</figcaption></figure>"
        for name, caption in CAPTIONS.items()
        if name in plots
    )
    return f"""<h2>Size and speed</h2>
<p class="muted">{escape(workload_line(results))} {escape(sentence(noise_line(results)))}</p>
<div class="figures">{drawn}</div>"""


def _tables(results: dict[str, Any]) -> str:
    sizes, timed = size_section(results)
    return f"""<h2>Models and files</h2>
{_table(main_table(results), results)}
<h2>{PASS_TITLE}</h2>
<p class="muted">{_text(timed)}</p>
{_table(sizes, results)}
<h2>Does a file still say what its model says?</h2>
<p class="muted">Each exported file beside the model it was made from, on every row of the test split.</p>
{_table(parity_table(results), results)}
{_details(results)}"""


def _details(results: dict[str, Any]) -> str:
    """What is behind the first tables, closed until it is asked for."""
    rows = all_rows(results)
    parts = [("Latency at every length", "", length_table(results))]
    if any(row["quality"] for row in rows):
        parts += [
            ("As good as the teacher and the student?", QUALITY_WORDS, quality_table(results)),
            ("Other answers than the source's, by label", "", label_table(results)),
        ]
    if results["parity"]:
        words = "Largest logit difference from the source, for every way of feeding a file."
        parts.append(("Parity in every way of feeding", words, parity_matrix(results)))
    if results["tokenization_samples_ms"] and any(row["evaluation_samples_ms"] for row in rows):
        parts.append(("From text to answer", TEXT_WORDS, text_table(results, rows)))
    if results["sweeps"]:
        parts.append(("Other threads, lengths and batches", "", sweep_table(results["sweeps"])))
    if results["limits"]:
        words = sentence(peak_line(results["limits"]["peaks"]))
        parts.append(("Beside what this machine can do", words, limit_table(results, rows)))
        parts += [
            (f"Where the time of {name} goes", "By onnxruntime's profiler.", operator_table(profile))
            for name, profile in results["limits"]["profiles"].items()
        ]
    if results["app"]:
        parts.append(("Size of the Android app", app_words(results["app"]), app_table(results["app"])))
    marked = {
        "emulated": ("Emulated: on arm64 cores", EMULATED_WORDS, emulated_rows(results["emulated"] or [])),
        "estimate": ("Estimate: on phones", ESTIMATE_WORDS, estimate_rows(results["estimates"])),
    }
    return "".join(
        _detail(*part, results, kind)
        for kind, part in [*(("", part) for part in parts), *marked.items()]
        if part[2].rows
    )


def _detail(title: str, words: str, table: Table, results: dict[str, Any], kind: str = "") -> str:
    """kind: "emulated" or "estimate" for what was not measured: it has a colour beside the word."""
    marked = f' class="{kind}"' if kind else ""
    return (
        f'<details{marked}><summary>{escape(title)}</summary><p class="muted">{_text(words)}</p>'
        f"{_table(table, results)}</details>"
    )


def _table(table: Table, results: dict[str, Any]) -> str:
    roles = {row["name"]: row["role"] for row in all_rows(results)}
    best = best_row(results)["name"]

    def line(cells: Sequence[str]) -> str:
        role = roles.get(cells[0])  # the first cell may be something else than a row's name
        dot = f'<span class="dot" style="background: var(--{role})"></span>' if role else ""
        rest = "".join(
            f"<td{_word(place, table)}>{escape(cell)}</td>" for place, cell in enumerate(cells[1:], 1)
        )
        marked = ' class="best"' if cells[0] == best else ""
        return f'<tr{marked}><th scope="row" class="word">{dot}{escape(cells[0])}</th>{rest}</tr>'

    head = "".join(
        f'<th scope="col"{_word(place, table)}>{escape(cell)}</th>' for place, cell in enumerate(table.header)
    )
    body = "\n".join(line(cells) for cells in table.rows)
    return f"""<div class="scroll" tabindex="0"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def _word(place: int, table: Table) -> str:
    return ' class="word"' if place < table.text_columns else ""


def _background(results: dict[str, Any]) -> str:
    notes = f'<h2>Notes</h2><ul class="said">{_items(results["notes"])}</ul>' if results["notes"] else ""
    return f"""<div class="pair">
<section><h2>Data</h2>{_facts(data_facts(results))}</section>
<section><h2>Machine</h2>{_facts(machine_facts(results))}</section>
</div>
{notes}
<h2>Make it again</h2>
<pre><code>{escape(remake_command(results))}</code></pre>
<p class="muted">{escape(version_line(results))} The recipe as it
was run, the raw samples and the machine are in results.json beside this page.</p>
<details><summary>What the words mean</summary>{_facts(GLOSSARY)}</details>"""


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return (
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{_text(text)}</dd>" for name, text in facts) + "</dl>"
    )
