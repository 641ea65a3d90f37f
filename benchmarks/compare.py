"""Finished runs of any tasks as tables: scores with average and retention; size and a full evaluation pass.

Both are put together as numbers first, which `stillroom report --json` prints: shares between 0 and 1, and of
what several runs have, {"mean", "deviation" (the sample's, null of one value), "n"}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stillroom.benchmarks.results import all_rows, metric_of
from stillroom.benchmarks.seeds import Figure, compare_runs, figure, mean_and_spread, timed_on
from stillroom.benchmarks.tables import Table, escape_markdown, markdown, number
from stillroom.errors import UsageError
from stillroom.kinds import SCORE_WORDS

Runs = Mapping[str, dict[str, Any]]  # the run as the user named it -> its valid results

PASS_TITLE = "Size and a full evaluation pass"
MAX_KEYS_SHOWN = 6


def tasks_of(runs: Runs) -> dict[str, Runs]:
    """What to call a task -> its runs: those of one recipe name and task, such as other seeds."""
    tasks: dict[str, Runs] = {}
    for group in _grouped(runs, lambda results: [results["recipe"]["name"], results["task"]]):
        name = label = str(next(iter(group.values()))["recipe"]["name"])
        count = 1
        while label in tasks:  # another task under the same name
            count += 1
            label = f"{name} ({count})"
        tasks[label] = group
    return tasks


def _grouped(runs: Runs, key: Callable[[dict[str, Any]], Any]) -> list[Runs]:
    """Runs with the same key together, in order of first appearance. key: results -> a JSON value."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for run, results in runs.items():
        groups.setdefault(json.dumps(key(results), sort_keys=True), {})[run] = results
    return list(groups.values())


def _rows(runs: Runs) -> dict[str, dict[str, dict[str, Any]]]:
    """Row name -> run -> the row, models before files."""
    sections = [results[section] for section in ("models", "artifacts") for results in runs.values()]
    found: dict[str, dict[str, dict[str, Any]]] = {row["name"]: {} for rows in sections for row in rows}
    for run, results in runs.items():
        for row in all_rows(results):
            found[row["name"]][run] = row
    return found


def score_figures(runs: Runs) -> dict[str, Any]:
    """Per model and file: score and retention on each task, and their means over the tasks.

    average and retained are null for a row that some task lacks: a mean over other tasks would not compare.
    """
    tasks = tasks_of(runs)
    metrics = [metric_of(next(iter(group.values()))) for group in tasks.values()]
    rows = []
    for name, found in _rows(runs).items():
        mine = [[found[run] for run in group if run in found] for group in tasks.values()]
        scores = [
            figure([row["scores"][metric] for row in of_task])
            for of_task, metric in zip(mine, metrics, strict=True)
        ]
        retention = [figure([row["retention"] for row in of_task]) for of_task in mine]
        rows.append(
            {
                "name": name,
                "scores": scores,
                "average": _mean_of_means(scores),
                "retention": retention,
                "retained": _mean_of_means(retention),
            }
        )
    columns = [
        {"task": task, "metric": metric, "runs": list(group)}
        for (task, group), metric in zip(tasks.items(), metrics, strict=True)
    ]
    return {"columns": columns, "rows": rows}


def _mean_of_means(figures: list[Figure | None]) -> float | None:
    means = [found["mean"] for found in figures if found is not None]
    return float(np.mean(means)) if len(means) == len(figures) else None


def score_table(figures: dict[str, Any]) -> Table:
    """score_figures as text: one line per model and file, one column per task, then average and retained."""
    columns = figures["columns"]
    header = [f"{column['task']}, {SCORE_WORDS[column['metric']][0]}, %" for column in columns]
    rows = tuple(
        (
            row["name"],
            *(
                _cell(found, 2, 100, several=len(column["runs"]) > 1)
                for found, column in zip(row["scores"], columns, strict=True)
            ),
            number(row["average"], 2, 100),
            number(row["retained"], 1, 100),
        )
        for row in figures["rows"]
    )
    return Table(("name", *header, "average, %", "retained, %"), rows, 1)


def size_figures(runs: Runs) -> list[dict[str, Any]]:
    """Per task, and within it per way the runs were timed: parameters, size, pass and speed of every row.

    Runs of one task that were timed on other machines, with other threads or over other numbers of rows are
    not averaged. speed: the teacher model's pass over the row's, in the same run.
    """
    found = []
    for task, group in tasks_of(runs).items():
        for alike in _grouped(group, _timed):
            first = next(iter(alike.values()))
            found.append(
                {
                    "task": task,
                    "runs": list(alike),
                    "evaluation_rows": first["workload"]["evaluation_rows"],
                    "threads": first["workload"]["threads"],
                    **{key: first["machine"][key] for key in ("cpu", "architecture", "cores")},
                    "rows": [_size_row(name, rows, alike) for name, rows in _rows(alike).items()],
                }
            )
    return found


def _timed(results: dict[str, Any]) -> dict[str, Any]:
    return {**timed_on(results), "number of rows": results["workload"]["evaluation_rows"]}


def _size_row(name: str, found: dict[str, dict[str, Any]], runs: Runs) -> dict[str, Any]:
    """found: run -> the row of this name."""
    passes = {run: row["evaluation_pass_ms"] for run, row in found.items() if row["evaluation_pass_ms"]}
    teachers = {
        run: next(row for row in runs[run]["models"] if row["role"] == "teacher")["evaluation_pass_ms"]
        for run in passes
    }
    return {
        "name": name,
        "parameters": float(np.mean([row["parameters"] for row in found.values()])),
        "size_bytes": float(np.mean([row["size_bytes"] for row in found.values()])),
        "evaluation_pass_ms": figure(list(passes.values())),
        "speed": figure([teachers[run] / ms for run, ms in passes.items() if teachers[run]]),
    }


def size_table(group: dict[str, Any]) -> Table:
    """One group of size_figures as text."""
    several = len(group["runs"]) > 1
    rows = tuple(
        (
            row["name"],
            number(row["parameters"], 1, 1e-6),
            number(row["size_bytes"], 1, 1e-6),
            _cell(row["evaluation_pass_ms"], 2, 1e-3, several=several),
            _cell(row["speed"], 1, several=several),
        )
        for row in group["rows"]
    )
    header = ("name", "parameters, M", "size, MB", "evaluation pass, s", "speed, × teacher")
    return Table(header, rows, 1)


def _cell(found: Figure | None, decimals: int, scale: float = 1, *, several: bool) -> str:
    """Mean ± deviation (n) where a column is of several runs, else the one value."""
    if several:
        return mean_and_spread(found, decimals, scale)
    return number(found["mean"] if found else None, decimals, scale)


def pass_line(group: dict[str, Any]) -> str:
    """What was timed for one group of size_figures, as sentences."""
    if not group["evaluation_rows"]:
        return "No evaluation pass was timed."
    return (
        f"Evaluation pass: the {group['evaluation_rows']:,} rows of the validation split once, at batch 1, "
        f"each at its own length, with {group['threads']} threads on {group['cpu']} "
        f"({group['architecture']}, {group['cores']} cores). Speed: the time of the teacher model divided by "
        "the row's, so what a file gains by its runtime alone is in it."
    )


def size_section(results: dict[str, Any]) -> tuple[Table, str]:
    """One run's table of sizes and passes, and what was timed."""
    (group,) = size_figures({"": results})
    return size_table(group), pass_line(group)


def run_figures(runs: Runs) -> dict[str, Any]:
    """Both tables' figures, and what a reader of them should know, as JSON values."""
    scores = score_figures(runs)
    return {"scores": scores, "size_and_speed": size_figures(runs), "notes": list(_notes(runs, scores))}


def _notes(runs: Runs, scores: dict[str, Any]) -> Iterator[str]:
    lacking = [row["name"] for row in scores["rows"] if row["average"] is None]
    if lacking:
        yield f"Not in every task, so without average and retained: {', '.join(lacking)}."
    for task, group in tasks_of(runs).items():
        recipes = [{**_flat(results["recipe"]), "seed": None} for results in group.values()]
        keys = _differing(recipes)
        if keys:
            more = f" and {len(keys) - MAX_KEYS_SHOWN} more" if len(keys) > MAX_KEYS_SHOWN else ""
            shown = ", ".join(keys[:MAX_KEYS_SHOWN])
            yield f"{task}: its runs differ in more than the seed: {shown}{more}."
        keys = _differing([_timed(results) for results in group.values()])
        if keys:
            yield f"{task}: timed with different {', '.join(keys)}, so its times are not averaged."


def _flat(recipe: dict[str, Any], place: str = "") -> dict[str, Any]:
    """{"student": {"epochs": 3}} -> {"student.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        flat.update(_flat(value, f"{place}{key}.") if isinstance(value, dict) else {place + key: value})
    return flat


def _differing(values: list[dict[str, Any]]) -> list[str]:
    """Keys that not all of these have with the same value."""
    keys = dict.fromkeys(key for value in values for key in value)
    return [key for key in keys if any(value.get(key) != values[0].get(key) for value in values)]


def compare(runs: Runs) -> tuple[str, dict[str, Any]]:
    """Several runs as text for people, in Markdown, and as run_figures."""
    figures = run_figures(runs)
    parts = [
        "## Scores on the test splits",
        markdown(score_table(figures["scores"])),
        "Average: the mean of the columns, each weighing the same. Retained: the mean over the tasks of the "
        "score divided by the teacher's in the same run. Of several runs: mean ± sample deviation (runs).",
        "\n".join(
            f"- {escape_markdown(column['task'])}: {escape_markdown(', '.join(column['runs']))}"
            for column in figures["scores"]["columns"]
        ),
    ]
    for group in figures["size_and_speed"]:
        runs_named = f"{group['task']} ({', '.join(group['runs'])})"
        parts += [
            f"## {PASS_TITLE}: {escape_markdown(runs_named)}",
            markdown(size_table(group)),
            escape_markdown(pass_line(group)),
        ]
    notes = list(figures["notes"])
    if len(figures["scores"]["columns"]) == 1:
        try:
            parts += ["## Over all runs", compare_runs(list(runs.values()))]
        except UsageError as error:
            notes.append(f"No table of latencies: {error}.")
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape_markdown(note)}" for note in notes)]
    return "\n\n".join(parts), figures
