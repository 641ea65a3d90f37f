"""Steps "measure" and "report": every model and file timed side by side, and all findings in one document."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import stillroom
from stillroom.errors import UsageError
from stillroom.files import read_json, sha256_json, staged_folder
from stillroom.numerics import compare_logits
from stillroom.recipe import Recipe, recipe_to_dict
from stillroom.step_data import encode
from stillroom.step_train import learned_nothing
from stillroom.steps import Run, do_step, recorded


def model_roles(*, baselines: bool) -> dict[str, tuple[str, str]]:
    """Row name -> (folder in the run, role)."""
    rows = {
        "teacher": ("teacher", "teacher"),
        "student-plain": ("baseline", "baseline"),
        "student": ("student", "student"),
    }
    return rows if baselines else {name: row for name, row in rows.items() if name != "student-plain"}


def measure_step(run: Run, recipe: Recipe, *, baselines: bool) -> dict[str, Any]:
    """Time and memory of every model and artifact, each in fresh processes, interleaved.

    Its facts hold no token ids: they are the user's text.
    """

    def work() -> dict[str, Any]:
        from stillroom.benchmarks.machine import describe_machine
        from stillroom.benchmarks.measure import Subject, measure
        from stillroom.benchmarks.workload import Workload
        from stillroom.student import load_student

        task = load_student(run.folder / "student").task
        tokens, _ = encode(run, run.folder / "student", task, "test")
        lengths = tuple(sorted({min(length, task.max_length) for length in recipe.measure.lengths}))
        plan = recipe.measure
        ids = tuple(int(token) for token in np.resize(tokens.ids, max(lengths)))
        rows, _ = encode(run, run.folder / "student", task, "validation")
        workload = Workload(
            ids,
            lengths,
            plan.rounds,
            plan.samples,
            plan.warmup,
            plan.threads,
            evaluation=tuple(tuple(row.tolist()) for row in np.split(rows.ids, rows.offsets[1:-1])),
        )
        subjects = [
            Subject(name, "torch", str(run.folder / folder), task.inputs)
            for name, (folder, _) in model_roles(baselines=baselines).items()
        ] + [
            Subject(name, facts["target"], str(run.folder / "artifacts" / name), task.inputs)
            for name, facts in run.facts("export").items()
            if facts["proof"] == "run"  # an interpreter's time says nothing about the file
        ]
        measured = measure(subjects, workload)
        facts = {name: asdict(measurement) for name, measurement in measured.items()}
        return {"rows": facts, "workload": workload.to_dict(), "machine": describe_machine(plan.threads)}

    made_from = {
        "recipe": recipe_to_dict(recipe)["measure"],
        "baselines": baselines,
        **recorded(run, "data", "teacher", "student", "export", *(("baseline",) if baselines else ())),
    }
    return do_step(run, "measure", made_from, (), work)


def report_step(run: Run, recipe: Recipe, *, baselines: bool, command: str = "") -> dict[str, Any]:
    """report/: results.json, report.md, report.html, plot.svg."""

    def work() -> dict[str, Any]:
        from stillroom.benchmarks.report import write_report

        results = assemble_results(run, recipe, baselines=baselines)
        if command:
            results["command"] = command
        with staged_folder(run.folder / "report") as partial:
            write_report(results, partial)
        return {}

    steps = [
        "data",
        *(folder for folder, _ in model_roles(baselines=baselines).values()),
        "export",
        "verify",
        "measure",
    ]
    facts = sha256_json([recipe_to_dict(recipe), *(run.facts(step) for step in steps)])
    return do_step(run, "report", {"facts_sha256": facts}, ("report",), work)


def assemble_results(run: Run, recipe: Recipe, *, baselines: bool) -> dict[str, Any]:
    """The results.json of a run, from the facts its steps recorded (docs/schemas/results.schema.json)."""
    from stillroom.benchmarks.measure import Measurement
    from stillroom.benchmarks.results import SCHEMA_VERSION, RowFacts, result_row
    from stillroom.student import load_student

    measured = run.facts("measure")
    roles = model_roles(baselines=baselines)
    models = {name: run.facts(folder) for name, (folder, _) in roles.items()}
    task = load_student(run.folder / "student").task
    logits = {
        name: np.load(run.folder / folder / "test_logits.npy", allow_pickle=False)
        for name, (folder, _) in roles.items()
    }

    def row(facts: RowFacts) -> dict[str, Any]:
        raw, teacher_score = measured["rows"].get(facts.name), models["teacher"]["test"][task.metric]
        if raw is None:
            return result_row(facts, task.metric, teacher_score, None)
        samples = {int(length): tuple(values) for length, values in raw["samples_ms"].items()}
        return result_row(facts, task.metric, teacher_score, Measurement(**{**raw, "samples_ms": samples}))

    model_rows = []
    for name, facts in models.items():
        against = compare_logits(logits["teacher"], logits[name], task.kind)
        model_rows.append(
            row(
                RowFacts(
                    name=name,
                    role=roles[name][1],
                    source=None if name == "teacher" else "teacher",
                    target="torch",
                    scheme="fp32",
                    parameters=facts["parameters"],
                    size_bytes=facts["size_bytes"],
                    scores=facts["test"],
                    flip_rate=against.flip_rate,
                    max_abs_error=against.max_abs_error,
                )
            )
        )
    artifact_rows = []
    for name, facts in run.facts("export").items():
        proof = run.facts("verify")[name]
        if not proof["cases"]:  # nothing is known of its answers: see the notes
            continue
        artifact_rows.append(
            row(
                RowFacts(
                    name=name,
                    role=facts["source"],
                    source=facts["source"],
                    target=facts["target"],
                    scheme=facts["scheme"],
                    parameters=facts["parameters"],
                    size_bytes=facts["size_bytes"],
                    scores=proof["scores"],
                    flip_rate=proof["flip_rate"],
                    max_abs_error=proof["max_abs_error"],
                )
            )
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "stillroom_version": stillroom.__version__,
        "recipe": recipe_to_dict(recipe),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": task.to_dict(),
        "data": run.facts("data")["counts"],
        "models": model_rows,
        "artifacts": artifact_rows,
        "workload": measured["workload"],
        "tolerances": {row["name"]: run.facts("export")[row["name"]]["tolerance"] for row in artifact_rows},
        "machine": measured["machine"],
        "notes": _notes(run, models, baselines=baselines),
    }


def _notes(run: Run, models: dict[str, dict[str, Any]], *, baselines: bool) -> list[str]:
    """What a reader of the numbers should know. models: row name -> what its step recorded."""
    weak = {name: learned_nothing(run, facts) for name, facts in models.items()}
    notes = [*run.facts("data")["warnings"], *(f"{name} is {why}" for name, why in weak.items() if why)]
    precision = run.facts("student")["training"].get("precision")
    notes.append(f"Training in {precision}; every score is computed in fp32 on the test split.")
    notes.append(
        "teacher-onnx-fp32 is the yardstick: the teacher exported without our shortened last layer, as other "
        "exporters write it. The student's files compute their last layer for the first token only."
    )
    notes += [
        f"{name} ({facts['size_bytes'] / 1e6:.1f} MB): {facts['proof']}; not timed."
        for name, facts in run.facts("export").items()
        if facts["proof"] != "run"
    ]
    if baselines:
        start = run.facts("baseline")["training"]["start"]
        notes.append(
            f"student-plain starts from the same layers of the model the teacher came from ({start}) and saw "
            "the same rows, steps and seed as student, with hard labels only: no teacher took part."
        )
    return notes


def bench_folders(
    folders: list[Path], lengths: list[int] | None, rounds: int, samples: int, threads: int
) -> tuple[str, dict[str, Any]]:
    """Time artifacts, bundles and model folders side by side: a table for people, raw samples as JSON.

    Raises UsageError for a folder that is none of these, or a length beyond what a model reads.
    """
    from stillroom.benchmarks.machine import describe_machine
    from stillroom.benchmarks.measure import Subject, measure, percentiles
    from stillroom.benchmarks.workload import Workload
    from stillroom.export.bundle import artifact_at
    from stillroom.export.targets import TARGETS
    from stillroom.student import load_student

    subjects, longest = [], []
    for folder in folders:
        if not any((folder / name).is_file() for name in ("artifact.json", "manifest.json")):
            task = load_student(folder).task
            subjects.append(Subject(str(folder), "torch", str(folder), task.inputs))
            longest.append(task.max_length)
            continue
        artifact = artifact_at(folder)
        if (proof := TARGETS[artifact.target].proof) != "run":
            raise UsageError(f"{folder}: {proof}; there is no time to take")
        subjects.append(
            Subject(str(folder), artifact.target, str(folder), artifact.task.inputs, artifact.lengths)
        )
        longest.append(artifact.task.max_length)
    chosen = sorted(set(lengths or [min(length, *longest) for length in (64, 128)]))
    if chosen[-1] > min(longest):
        raise UsageError(f"--length {chosen[-1]}: the shortest max_length of these models is {min(longest)}")
    ids = _real_ids(folders, chosen[-1])
    workload = Workload(ids, tuple(chosen), rounds, samples, 5, threads)
    measured = measure(subjects, workload)
    lines = [
        f"{'folder':<44}{'length':>7}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'load ms':>9}{'peak RSS MB':>13}"
    ]
    for name, found in measured.items():
        for length, times in sorted(found.samples_ms.items()):
            at = percentiles(times)
            lines.append(
                f"{name:<44}{length:>7}{at['p50']:>9.2f}{at['p90']:>9.2f}{at['p99']:>9.2f}"
                f"{float(np.median(found.load_samples_ms)):>9.1f}{max(found.peak_rss_bytes) / 1e6:>13.1f}"
            )
    document = {
        "measurements": [asdict(found) for found in measured.values()],
        "workload": workload.to_dict(),
        "machine": describe_machine(threads),
    }
    return "\n".join(lines), document


def _real_ids(folders: list[Path], length: int) -> tuple[int, ...]:
    """So many token ids of real text, by the tokenizer in one of the folders or in the run around one.

    Random ids would touch other rows of the embedding table than text does. Raises UsageError when there is
    no tokenizer.
    """
    from stillroom.export.golden import GOLDEN_TEXTS
    from stillroom.tokens import load_tokenizer

    places = [place for folder in folders for place in (folder, folder.resolve().parent.parent / "student")]
    for place in places:
        if (place / "tokenizer.json").is_file():
            found = load_tokenizer(place, length).encode(GOLDEN_TEXTS[-1]).ids
            return tuple(int(token) for token in np.resize(found, length))
    raise UsageError(
        f"no tokenizer.json in or around {folders[0]}: name a model folder or bundle too, to time real text"
    )


def report_runs(folders: list[Path]) -> tuple[str, dict[str, Any]]:
    """Finished runs as tables for people, and their results and the tables' figures as JSON.

    Raises UsageError naming the folder that is no finished run, or is given twice.
    """
    from stillroom.benchmarks.compare import PASS_TITLE, compare, run_figures
    from stillroom.benchmarks.report import headline, markdown_table, size_lines
    from stillroom.benchmarks.results import validate_results

    runs: dict[str, dict[str, Any]] = {}
    for folder in folders:
        path = folder / "report" / "results.json"
        if not path.is_file():
            raise UsageError(f"{folder} has no report/results.json: stillroom run first")
        if any(folder.samefile(other) for other in runs):
            raise UsageError(f"{folder} is given twice: it would count as two runs")
        results = read_json(path)
        try:
            validate_results(results)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        runs[str(folder)] = results
    if len(runs) > 1:
        text, figures = compare(runs)
    else:
        ((_, results),) = runs.items()
        lines = [
            markdown_table(results),
            "",
            *headline(results),
            "",
            f"## {PASS_TITLE}",
            "",
            size_lines(results),
        ]
        text, figures = "\n".join(lines), run_figures(runs)
    return text, {"runs": list(runs.values()), **figures}
