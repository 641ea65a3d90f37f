"""What stillroom search does: files of a run's student are tried under a budget, and one is handed over."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import CheckFailed, UsageError
from stillroom.files import write_atomic, write_json
from stillroom.kinds import SCORE_WORDS, kind_of
from stillroom.numerics import compare_logits
from stillroom.progress import say
from stillroom.step_data import encode
from stillroom.step_search_models import model_of
from stillroom.step_search_try import (
    ROUNDS,
    Search,
    Tried,
    explore,
    file_of,
    logits_of_file,
    make,
    measured,
    noted,
    recipe_of_run,
)
from stillroom.step_verify import verify_artifacts
from stillroom.steps import open_run
from stillroom.student import load_student

if TYPE_CHECKING:
    from stillroom.benchmarks.tables import Table
    from stillroom.export.search import Candidate, Limits

FOLDER, WINNER = "search", "winner"
TABLE_FILE, FACTS_FILE, PLOT_FILE = "search.md", "search.json", "pareto.svg"
RESAMPLES = 1000  # for the interval of retention


def search_run(
    folder: Path,
    targets: Sequence[str],
    limits: Limits,
    *,
    prefer: str,
    layers: Sequence[int],
    minutes: float,
    rows: int,
    seed: int,
    fresh: bool,
) -> tuple[str, dict[str, Any]]:
    """Find the one file of a run's student under a budget: a table of all tried, and the same as JSON.

    Leaves it as a bundle in folder/search/winner, with table, figures and a plot beside it. Raises UsageError
    for bad input, CheckFailed (after showing the table) when nothing holds all limits.
    """
    check_limits(limits, minutes, rows)
    for count in layers:
        if count < 1:
            raise UsageError(f"--layers {count}: expected 1 or more")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a run folder: stillroom run first")
    with open_run(folder) as run:
        recipe, begun = recipe_of_run(run), time.monotonic()
        search = Search(run, recipe, limits, prefer, seed, rows, begun + 60 * minutes)
        if fresh:
            shutil.rmtree(search.work, ignore_errors=True)
        tried = explore(search, targets, layers)
        winner, confirmed = _winner(search, tried)
        table, facts = _written(search, tried, winner, confirmed, time.monotonic() - begun)
        shutil.rmtree(search.work / "artifacts", ignore_errors=True)  # the winner is in its bundle
    if winner is None:
        from stillroom.export.search import nobody

        say(table)
        raise CheckFailed(nobody(tried, limits, prefer))
    return table, facts


def check_limits(limits: Limits, minutes: float, rows: int) -> None:
    """Raise UsageError for a limit, time or number of rows that is not above 0."""
    from stillroom.export.search import WORDS

    options = {WORDS[name][0]: value for name, value in asdict(limits).items() if value is not None}
    for option, value in {**options, "--minutes": minutes, "--rows": rows}.items():
        if not 0 < value < float("inf"):
            raise UsageError(f"{option} {value:g}: expected a number above 0")


def _winner(search: Search, tried: Tried) -> tuple[Candidate | None, dict[str, Any]]:
    """The best candidate whose bundle holds everything once more, measured anew; and what that found."""
    from stillroom.export.search import holds, ranked

    out = search.run.folder / FOLDER / WINNER
    while True:
        best = next(iter(ranked(tried, search.limits, search.prefer)), None)
        if best is None or not holds(tried[best], search.limits):
            shutil.rmtree(out, ignore_errors=True)  # it would be the winner of another search
            return None, {}
        try:
            if len(tried[best].p90_rounds_ms) == ROUNDS:
                _time_again(search, best, tried)
                continue
            say(f"confirm {best.name}")
            return best, _confirmed(search, best, tried, out)
        except CheckFailed as error:
            say(f"  not confirmed: {error}")
            tried[best] = replace(tried[best], problem=f"not confirmed: {error}")


def _time_again(search: Search, best: Candidate, tried: Tried) -> None:
    """Time the best once more, a while after the first time: how far this machine's speed wanders.

    The slower counts. Raises CheckFailed as measured does.
    """
    say(f"time {best.name} again")
    source, first = _source_and_file(search, best), tried[best]
    again = measured(search, source, {best.name: file_of(search, best)})[best.name]
    slower = {name: max(again[name], getattr(first, name)) for name in ("p50_ms", "p90_ms", "rss_bytes")}
    rounds = (*first.p90_rounds_ms, *again["p90_rounds_ms"])
    noted(search, tried, best, **slower, p90_rounds_ms=rounds)


def _source_and_file(search: Search, best: Candidate) -> Path:
    """The model folder of a candidate, whose file is made if it is no longer there."""
    source = model_of(search.run, search.recipe, best.model, search.work, search.ends)
    if not file_of(search, best).is_dir():
        for _, made in make(search, {best: source}):
            if "made" not in made:
                raise CheckFailed(made.get("problem", "the time limit came before it was exported again"))
    return source


def _confirmed(search: Search, best: Candidate, tried: Tried, out: Path) -> dict[str, Any]:
    """Prove a candidate equal to its source on the test split, bundle it, and measure the bundle.

    Raises CheckFailed when it is not equal, or misses a limit by more than what is noise.
    """
    from stillroom.export.bundle import load_bundle, replay_goldens, write_bundle

    run, limits = search.run, search.limits
    source = _source_and_file(search, best)
    sources = {best.name: str(source.resolve())}
    ((_, proof),) = verify_artifacts(run, sources, artifacts=search.work / "artifacts")
    if proof["failure"]:
        raise CheckFailed(proof["failure"])
    on_test = _on_test(search, source, file_of(search, best))
    high = on_test["test_retention_interval"][1]
    if limits.retention is not None and high < limits.retention:
        raise CheckFailed(f"retention on the test split is at most {high:.4f}, below {limits.retention:g}")
    write_bundle(search.recipe.name, file_of(search, best), source, out)
    replay_goldens(load_bundle(out))
    again = measured(search, source, {WINNER: out})[WINNER]
    found = replace(tried[best], **again)
    noise = [*found.p90_rounds_ms, *tried[best].p90_rounds_ms]
    for name, limit in (("p90_ms", limits.p90_ms), ("rss_bytes", limits.rss_bytes)):
        if limit is not None and again[name] > limit:
            raise CheckFailed(f"measured again, its {name} was {again[name]:.4g}, above {limit:.4g}")
    return {
        **again,
        **on_test,
        "p90_range_ms": [min(noise), max(noise)],
        "agrees": overlap(found.p90_rounds_ms, tried[best].p90_rounds_ms),
    }


def overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    """True where the values of two measurements cannot be told apart: their ranges share a value."""
    return min(first) <= max(second) and min(second) <= max(first)


def _on_test(search: Search, source: Path, artifact: Path) -> dict[str, Any]:
    """Test scores over the fp32 student's and the teacher's; the first between the ends of its 95 % interval.

    By bootstrap over rows: the same rows for both, so what is hard for both does not widen it.
    """
    task = load_student(source).task
    tokens, _ = encode(search.run, source, task, "test")
    labels, count = tokens.labels, len(tokens)
    logits = logits_of_file(artifact, tokens, np.arange(count), search.recipe.measure.threads)
    student, teacher = (
        np.load(search.run.folder / name / "test_logits.npy", allow_pickle=False)
        for name in ("student", "teacher")
    )
    score = kind_of(task.kind).scores[task.metric]
    random, found = np.random.default_rng(search.seed), []
    for _ in range(RESAMPLES):
        rows = random.integers(0, count, count)
        if (below := score(student[rows], labels[rows])) > 0:
            found.append(score(logits[rows], labels[rows]) / below)
    low, high = np.percentile(found, [2.5, 97.5]).tolist()
    return {
        "test_rows": count,
        "test_retention": score(logits, labels) / score(student, labels),
        "test_retention_interval": [low, high],
        "test_retention_of_teacher": score(logits, labels) / score(teacher, labels),
        "test_flip_rate": compare_logits(student, logits, task.kind).flip_rate,
    }


def _written(
    search: Search, tried: Tried, winner: Candidate | None, confirmed: dict[str, Any], seconds: float
) -> tuple[str, dict[str, Any]]:
    """Write table, figures and plot into the run's search folder; the table for people and the figures."""
    from stillroom.benchmarks.machine import describe_machine
    from stillroom.benchmarks.pareto import pareto_svg
    from stillroom.benchmarks.tables import markdown
    from stillroom.export.search import holds, nobody, ranked, verdict

    limits = search.limits
    order = ranked(tried, limits, search.prefer)
    order += [candidate for candidate in tried if candidate not in order]
    rows = [
        {
            "name": it.name,
            **asdict(tried[it]),
            "verdict": "winner" if it == winner else verdict(tried[it], limits),
            "holds": holds(tried[it], limits),
        }
        for it in order
    ]
    facts = {
        "limits": asdict(limits),
        "prefer": search.prefer,
        "seed": search.seed,
        "winner": winner and {"name": winner.name, **asdict(winner)},
        "confirmed": confirmed,
        "tried": rows,
        "nobody": "" if winner else nobody(tried, limits, search.prefer),
        "seconds": round(seconds, 1),
        "machine": describe_machine(search.recipe.measure.threads),
    }
    out = search.run.folder / FOLDER
    out.mkdir(exist_ok=True)
    lines = [markdown(_table(rows)), "", *_conclusion(search, winner, confirmed, out, len(rows), seconds)]
    if any(row["p90_ms"] for row in rows):
        write_atomic(out / PLOT_FILE, pareto_svg(facts))
        lines.append(f"plot: {out / PLOT_FILE}")
    write_json(out / FACTS_FILE, facts)
    write_atomic(out / TABLE_FILE, "\n".join(lines) + "\n")
    return "\n".join(lines), facts


def _table(rows: list[dict[str, Any]]) -> Table:
    from stillroom.benchmarks.tables import Table, number

    header = (
        "file",
        "verdict",
        "size, MB",
        "retention, %",
        "flips, %",
        "p50, ms",
        "p90, ms",
        "RSS added, MB",
    )
    cells = tuple(
        (
            row["name"],
            row["verdict"],
            number(row["size_bytes"], 1, 1e-6),
            number(row["retention"], 1, 100),
            number(row["flip_rate"], 2, 100),
            number(row["p50_ms"], 2),
            number(row["p90_ms"], 2),
            number(row["rss_bytes"], 0, 1e-6),
        )
        for row in rows
    )
    return Table(header, cells, 2)


def _conclusion(
    search: Search, winner: Candidate | None, confirmed: dict[str, Any], out: Path, count: int, seconds: float
) -> Iterator[str]:
    words = SCORE_WORDS[load_student(search.run.folder / "student").task.metric][0]
    yield (
        f"{count} files in {seconds:.0f} s. Retention ({words}) and flips, against the fp32 student on "
        "validation rows; times at the longest input, threads as the run's; RSS added: peak over "
        "the process before the file was opened."
    )
    if search.over:
        yield "The time limit was reached: the same command goes on from here, --minutes gives it longer."
    if winner is None:
        return
    low, high = confirmed["test_retention_interval"]
    alike = "no difference" if confirmed["agrees"] else "another speed of this machine"
    yield (
        f"winner: {winner.name}. On {confirmed['test_rows']:,} test rows it keeps "
        f"{confirmed['test_retention']:.1%} of the student's {words} (95 % interval {low:.1%} to {high:.1%}; "
        f"{confirmed['test_retention_of_teacher']:.1%} of the teacher's) and flips "
        f"{confirmed['test_flip_rate']:.2%} of its labels; measured again its p90 is "
        f"{confirmed['p90_ms']:.2f} ms ({alike}), RSS added {confirmed['rss_bytes'] / 1e6:.0f} MB."
    )
    yield f"bundle: {out / WINNER}"
