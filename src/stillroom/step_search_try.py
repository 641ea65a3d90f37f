"""Trying files of a run's student under a budget: which, and what is measured of each, cheapest first."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import stillroom
from stillroom.apart import apart
from stillroom.errors import CheckFailed, Terminated, UsageError, first_line
from stillroom.files import read_json, sha256_json, write_json
from stillroom.kinds import all_scores
from stillroom.model_folder import check_model_folder
from stillroom.numerics import compare_logits
from stillroom.progress import progress_bar, say
from stillroom.recipe import Recipe, override
from stillroom.scheme import SCHEMES
from stillroom.step_data import encode
from stillroom.step_export import calibration_rows
from stillroom.step_search_models import model_of, shorter_lengths
from stillroom.steps import STATE, Run, recorded
from stillroom.student import load_model, load_student

if TYPE_CHECKING:
    from stillroom.export.options import ExportOptions
    from stillroom.export.search import Candidate, Found, Limits
    from stillroom.tokens import Tokens

ROUNDS, SAMPLES, WARMUP = 3, 30, 5  # fresh processes of a file, timed calls in each, untimed ones before
SENSITIVITY_ROWS = 256
JOBS = min(2, os.cpu_count() or 1)

Tried = dict["Candidate", "Found"]


@dataclass(frozen=True)
class Search:
    """One search of a run. ends: time.monotonic() from which nothing new is begun.

    validation_rows: of so many rows, drawn by seed, retention and flips are taken.
    """

    run: Run
    recipe: Recipe
    limits: Limits
    prefer: str
    seed: int
    validation_rows: int
    ends: float

    @property
    def work(self) -> Path:
        """What has been measured, and the files while they are."""
        return self.run.folder / STATE / "search"

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends


def recipe_of_run(run: Run) -> Recipe:
    """The recipe that a finished run was made by. Raises UsageError for an unfinished one."""
    path = run.folder / "report" / "results.json"
    if not path.is_file():
        raise UsageError(f"{run.folder} has no report/results.json: stillroom run first")
    return override(Recipe(), read_json(path)["recipe"])


def explore(search: Search, targets: Sequence[str], layers: Sequence[int]) -> Tried:
    """Try files until the rounds or the time are over; what has been measured before is not measured again.

    layers: depths for which a student may be trained. Raises UsageError for a target that cannot be timed.
    """
    from stillroom.export import search as plan

    tried: Tried = {}
    limits, prefer = search.limits, search.prefer
    vocabulary = vocabulary_of(search.run)
    smaller = (plan.TRIM, *(size for size in plan.VOCABULARIES if size < vocabulary))
    # The cheapest and most telling first: a model is made for each vocabulary, and trained for each depth.
    rounds: dict[str, Callable[[], list[Candidate]]] = {
        "schemes": lambda: plan.first_round(targets),
        "parts in fp32": lambda: plan.parts_round(tried, limits, prefer, lambda: _sensitive(search)),
        "vocabularies": lambda: plan.further_round(tried, limits, prefer, "vocabulary", smaller),
        "lengths": lambda: plan.further_round(
            tried, limits, prefer, "max_length", shorter_lengths(search.run)
        ),
        "depths": lambda: plan.further_round(tried, limits, prefer, "layers", layers),
    }
    for name, candidates in rounds.items():
        if search.over:
            break
        if wanted := candidates():
            say(f"{name}: {len(wanted)} files")
            try_round(search, wanted, tried)
    return tried


def vocabulary_of(run: Run) -> int:
    """Tokens that the run's student knows."""
    from stillroom.student import load_config

    return int(load_config(run.folder / "student").vocab_size)


def _sensitive(search: Search) -> list[str]:
    """Groups of the student that may be left in fp32, the most sensitive to 8 bits first."""
    from stillroom.export.calibration import simulated
    from stillroom.export.options import ExportOptions
    from stillroom.export.sensitivity import EMBEDDINGS, EVERYTHING, sensitivities
    from stillroom.export.static_int8 import Numerics

    folder = search.run.folder / "student"
    calibration = calibration_rows(search.run, folder, search.recipe.export.calibration_rows)
    model = simulated(folder, ExportOptions(calibration=calibration, prefer_learned=True), Numerics())
    judged = calibration_rows(search.run, folder, SENSITIVITY_ROWS)
    found = sensitivities(model, judged)
    found.sort(key=lambda one: -one.mean_squared_error)
    return [one.group for one in found if one.group not in (EMBEDDINGS, EVERYTHING)]


def try_round(search: Search, candidates: Sequence[Candidate], tried: Tried) -> None:
    """Measure candidates, the cheapest checks first: one that misses a limit is not measured further."""
    from stillroom.export.search import missed

    for candidate in candidates:
        tried[candidate] = _known(search, candidate)

    def left() -> list[Candidate]:
        found = {it: tried[it] for it in candidates}
        return [it for it, one in found.items() if not one.problem and not missed(one, search.limits)
                and one.rss_bytes is None]  # fmt: skip

    note = functools.partial(noted, search, tried)
    folders: dict[Candidate, Path] = {}  # by model
    for model, group in _by(left(), lambda it: it.model).items():
        if search.over:
            return
        try:
            folders[model] = model_of(search.run, search.recipe, model, search.work, search.ends)
        except Terminated:
            if search.over:
                return
            raise
        elements = weight_elements(check_model_folder(folders[model]).tensors)
        for candidate in group:
            if tried[candidate].size_bytes is None:
                note(candidate, size_bytes=elements * SCHEMES[candidate.scheme].weight_bits // 8)
    lacking = [it for it in left() if not (tried[it].made and file_of(search, it).is_dir())]
    for candidate, found in make(search, {it: folders[it.model] for it in lacking}):
        note(candidate, **found)
    for model, folder in folders.items():
        _compare(search, folder, [it for it in left() if it.model == model], tried, note)
        _time(search, folder, [it for it in left() if it.model == model], note)


def noted(search: Search, tried: Tried, candidate: Candidate, **facts: Any) -> None:
    """Add what was found of a candidate, and keep it for a search that goes on."""
    tried[candidate] = replace(tried[candidate], **facts)
    write_json(_record(search, candidate), {"name": candidate.name, "found": asdict(tried[candidate])})


def _by(candidates: Sequence[Candidate], key: Callable[[Candidate], Any]) -> dict[Any, list[Candidate]]:
    groups: dict[Any, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(key(candidate), []).append(candidate)
    return groups


def _known(search: Search, candidate: Candidate) -> Found:
    from stillroom.export.search import Found

    path = _record(search, candidate)
    if not path.is_file():
        return Found()
    facts = read_json(path)["found"]
    return Found(**{**facts, "p90_rounds_ms": tuple(facts["p90_rounds_ms"])})


def _record(search: Search, candidate: Candidate) -> Path:
    """Where what is known of a candidate is kept, by all that it depends on."""
    from stillroom.export.targets import TARGETS

    tools = TARGETS[candidate.target].tool_versions()
    key = {"candidate": asdict(candidate), "tools": tools, **_same_for_all(search)}
    return search.work / "tried" / f"{sha256_json(key)}.json"


@functools.cache
def _same_for_all(search: Search) -> dict[str, Any]:
    """What every candidate of a search depends on."""
    from stillroom.benchmarks.machine import describe_machine

    threads = search.recipe.measure.threads
    return {
        "export": asdict(search.recipe.export),
        "stillroom": stillroom.__version__,
        "machine": [describe_machine(threads)["cpu"], threads],
        "judged": [search.seed, search.validation_rows],
        **recorded(search.run, "data", "teacher", "student"),
    }


@functools.cache
def _validation(search: Search, folder: Path) -> Tokens:
    """The validation split as a model folder reads it."""
    return encode(search.run, folder, load_student(folder).task, "validation")[0]


def file_of(search: Search, candidate: Candidate) -> Path:
    return search.work / "artifacts" / candidate.name


def make(search: Search, wanted: Mapping[Candidate, Path]) -> Iterator[tuple[Candidate, dict[str, Any]]]:
    """Export model folders to files, as long as there is time: each candidate and what Found knows of it.

    Two at a time, each in a process of its own: exporters are Python, which uses one core.
    """
    from stillroom.export.options import ExportOptions

    export = search.recipe.export
    texts = {it: calibration_rows(search.run, it, export.calibration_rows) for it in set(wanted.values())}
    calls, ends = [], time.time() + search.ends - time.monotonic()  # which every process knows
    for it, folder in wanted.items():
        options = ExportOptions(
            calibration=texts[folder],
            ranges=export.ranges,
            rounding=export.rounding,
            keep=it.keep,
            prefer_learned=True,
        )
        calls.append((folder, it.target, it.scheme, file_of(search, it), options, ends))
    with progress_bar(len(wanted), "export", "file") as bar:
        for candidate, facts in zip(wanted, apart(make_file, calls, JOBS), strict=True):
            yield candidate, facts
            bar.update(1)


def weight_elements(shapes: dict[str, Any]) -> int:
    """Elements of the matrices that every file of a model holds: all but position and type embeddings."""
    folded = ("position_embeddings", "token_type_embeddings")
    return sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if len(shape) == 2 and not any(word in name for word in folded)
    )


def make_file(
    folder: Path, target: str, scheme: str, out: Path, options: ExportOptions, ends: float
) -> dict[str, Any]:
    """Export a model folder, unless time.time() is past ends: what Found knows then."""
    import torch

    from stillroom.export.targets import export

    if time.time() > ends:
        return {}
    # Threads of processes side by side wait for each other, busily: both would take several times as long.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // JOBS))
    try:
        artifact = export(folder, target, scheme, out, options)
    except Exception as error:  # one that cannot be exported is a row of the table, not the end
        return {"problem": f"export failed: {first_line(error)}"}
    return {"size_bytes": artifact.size_bytes, "made": True}


@functools.cache
def _reference(search: Search) -> tuple[np.ndarray, np.ndarray, float]:
    """Validation rows that are judged on; the student's logits for them; its score on them."""
    from stillroom.distill.evaluate import predict_logits
    from stillroom.tokens import some_rows

    folder = search.run.folder / "student"
    task = load_student(folder).task
    tokens = _validation(search, folder)
    rows = np.arange(len(tokens))
    if len(rows) > search.validation_rows:
        rows = np.sort(np.random.default_rng(search.seed).permutation(rows)[: search.validation_rows])
    judged = some_rows(tokens, rows)
    logits = predict_logits(load_model(folder), judged, task.inputs, "student")
    score = all_scores(task.kind, logits, judged.labels)[task.metric]
    if not score > 0:
        raise UsageError(f"the student's {task.metric} on validation is {score:.3g}: nothing to retain")
    return rows, logits, score


def logits_of_file(artifact: Path, tokens: Tokens, rows: np.ndarray, threads: int) -> np.ndarray:
    """What an artifact answers to rows, one by one. Raises what its runtime raises."""
    from stillroom.artifact import load_artifact
    from stillroom.export.targets import open_artifact
    from stillroom.export.verify import batches_of

    found = load_artifact(artifact)
    predict = open_artifact(found, threads)
    return np.concatenate([predict(*batch) for batch in batches_of(tokens, rows, found.task)])


def _compare(search: Search, folder: Path, group: list[Candidate], tried: Tried, note: Any) -> None:
    """Retention and flips of a group's files, from validation rows fed one by one."""
    wanted = [it for it in group if tried[it].made and tried[it].retention is None]
    if not wanted or search.over:
        return
    rows, of_student, whole_score = _reference(search)
    task = load_student(folder).task
    tokens = _validation(search, folder)
    with progress_bar(len(wanted), "compare", "file") as bar:
        for candidate in wanted:
            if search.over:
                return
            try:
                logits = logits_of_file(
                    file_of(search, candidate), tokens, rows, search.recipe.measure.threads
                )
            except Exception as error:  # runtimes raise what they like
                note(candidate, problem=f"does not answer: {first_line(error)}")
            else:
                score = all_scores(task.kind, logits, tokens.labels[rows])[task.metric]
                flips = compare_logits(of_student, logits, task.kind).flip_rate
                note(candidate, retention=score / whole_score, flip_rate=flips)
            bar.update(1)


def _time(search: Search, folder: Path, group: list[Candidate], note: Any) -> None:
    """Latency and memory of a group's files, interleaved, each in fresh processes."""
    group = [candidate for candidate in group if file_of(search, candidate).is_dir()]
    if not group or search.over:
        return
    files = {candidate.name: file_of(search, candidate) for candidate in group}
    try:
        found = measured(search, folder, files)
    except CheckFailed:  # of one of them: the others still count
        found = {}
        for candidate in group:
            try:
                found |= measured(search, folder, {candidate.name: files[candidate.name]})
            except CheckFailed as error:
                note(candidate, problem=str(error))
    for candidate in group:
        if candidate.name in found:
            note(candidate, **found[candidate.name])


def measured(search: Search, folder: Path, files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Name -> p50_ms, p90_ms, p90_rounds_ms, rss_bytes of artifacts or bundles of one model folder.

    At the longest input, of real text. Raises CheckFailed as measure does.
    """
    from stillroom.benchmarks.measure import Subject, measure
    from stillroom.benchmarks.statistics import percentiles
    from stillroom.benchmarks.workload import Workload
    from stillroom.export.bundle import artifact_at

    tokens = _validation(search, folder)
    artifacts = {name: artifact_at(path) for name, path in files.items()}
    ((length, inputs),) = {(it.task.max_length, it.task.inputs) for it in artifacts.values()}
    ids = tuple(int(token) for token in np.resize(tokens.ids, length))
    workload = Workload(ids, (length,), ROUNDS, SAMPLES, WARMUP, search.recipe.measure.threads)
    subjects = [Subject(name, it.target, str(files[name]), inputs) for name, it in artifacts.items()]
    facts = {}
    for name, one in measure(subjects, workload).items():
        samples = one.samples_ms[length]
        at = percentiles(samples)
        rounds = [samples[start : start + SAMPLES] for start in range(0, len(samples), SAMPLES)]
        added = (
            peak - before for peak, before in zip(one.peak_rss_bytes, one.baseline_rss_bytes, strict=True)
        )
        facts[name] = {
            "p50_ms": at["p50"],
            "p90_ms": at["p90"],
            "p90_rounds_ms": tuple(percentiles(part)["p90"] for part in rounds),
            "rss_bytes": max(added),
        }
    return facts
