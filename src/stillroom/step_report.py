"""Step "report": all findings of a run in one document, and finished runs side by side."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import stillroom
from stillroom.errors import CheckFailed, UsageError
from stillroom.files import read_json, sha256_json, staged_folder
from stillroom.numerics import compare_logits
from stillroom.progress import say
from stillroom.recipe import Recipe, recipe_to_dict
from stillroom.step_data import encode
from stillroom.step_measure import model_roles
from stillroom.step_sensitivity import FACTS_FILE, FOLDER
from stillroom.step_train import learned_nothing
from stillroom.steps import Run, do_step

EMULATED_FILE = Path("emulated") / "bench.json"
APP_FILE = Path("android") / "app.json"


def report_step(run: Run, recipe: Recipe, *, baselines: bool, command: str = "") -> dict[str, Any]:
    """report/: results.json, report.md, report.html, model-card.md, plot.svg."""

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
    found = [_sensitivity(run), _emulated(run), _app(run), *(run.facts(step) for step in steps)]
    facts = sha256_json([recipe_to_dict(recipe), *found])
    return do_step(run, "report", {"facts_sha256": facts}, ("report",), work)


def assemble_results(run: Run, recipe: Recipe, *, baselines: bool) -> dict[str, Any]:
    """The results.json of a run, from the facts its steps recorded (docs/schemas/results.schema.json)."""
    from stillroom.benchmarks.measure import Measurement
    from stillroom.benchmarks.quality import quality
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
        per_length = {  # JSON has no numbers for keys
            field: {int(length): tuple(values) for length, values in raw[field].items()}
            for field in ("samples_ms", "cpu_ms")
        }
        return result_row(facts, task.metric, teacher_score, Measurement(**{**raw, **per_length}))

    targets = encode(run, run.folder / "student", task, "test")[0].labels
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
                    quality=quality(
                        task.kind,
                        task.labels,
                        logits[name],
                        targets,
                        {other: logits[other] for other in ("teacher", "student")},
                        None if name == "teacher" else "teacher",
                    ),
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
                    quality=proof["quality"],
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
        **{key: measured[key] for key in ("noise", "tokenization_samples_ms", "sweeps", "limits")},
        "sensitivity": _sensitivity(run),
        "emulated": _emulated(run),
        "app": _app(run),
        "estimates": _estimates(run, measured),
        "parity": {
            row["name"]: [
                {
                    "case": case["name"],
                    "max_abs_error": case["agreement"]["max_abs_error"],
                    "flip_rate": case["agreement"]["flip_rate"],
                    "passed": case["passed"],
                }
                for case in run.facts("verify")[row["name"]]["cases"]
            ]
            for row in artifact_rows
        },
        "tolerances": {row["name"]: run.facts("export")[row["name"]]["tolerance"] for row in artifact_rows},
        "machine": measured["machine"],
        "seconds": {folder: read_json(run.record(folder))["seconds"] for folder, _ in roles.values()},
        "notes": _notes(run, models, baselines=baselines),
    }


def _sensitivity(run: Run) -> list[dict[str, Any]] | None:
    """What stillroom sensitivity found of this run's student, part by part, if it was asked."""
    path = run.folder / FOLDER / FACTS_FILE
    if not path.is_file():
        return None
    return [{key: one[key] for key in ("group", "mean_squared_error")} for one in read_json(path)["groups"]]


def _emulated(run: Run) -> list[dict[str, Any]] | None:
    """What stillroom bench --target arm64 --out RUN/emulated found of this run's files, if it was asked."""
    path = run.folder / EMULATED_FILE
    if not path.is_file():
        return None
    keys = ("core", "status", "texts", "max_abs_error", "flips", "instructions")
    document = read_json(path)
    return [
        {
            "name": Path(row["name"]).name,
            "runtime": row["runtime_version"],
            "tokens": document["counted_tokens"],
            **{key: row[key] for key in keys},
        }
        for row in document["rows"]
    ]


def _app(run: Run) -> dict[str, Any] | None:
    """The APK's size, where stillroom android build --out RUN/android/app.apk made it of this run's files."""
    path = run.folder / APP_FILE
    if not path.is_file():
        return None
    built = read_json(path)
    for name in run.facts("export"):
        if _recorded_sha256(run, name) == built["artifact_sha256"]:
            runtime = f"{built['flavour']} {built['runtime_version']}"
            return {
                "artifact": name, "abi": built["abi"], "runtime": runtime, "parts_bytes": built["parts_bytes"]
            }  # fmt: skip
    return None  # of an earlier run in the same folder


def _recorded_sha256(run: Run, name: str) -> str:
    """What an artifact's own record says; the steps before have held it against the file."""
    return str(read_json(run.folder / "artifacts" / name / "artifact.json")["sha256"])


def _estimates(run: Run, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Ranges for classes of phones, of the files whose arithmetic and traffic are known."""
    from stillroom.benchmarks.phone.device_profiles import cost_of, estimates, read_counts, read_profiles

    of_files = (measured["limits"] or {"profiles": {}})["profiles"]
    costs = {name: cost_of(profile) for name, profile in of_files.items()}
    sha256s = {name: _recorded_sha256(run, name) for name in costs}
    threads, tokens = measured["workload"]["threads"], max(measured["workload"]["lengths"])
    profiles = read_profiles().values()
    emulated = run.folder / EMULATED_FILE
    counted = read_counts(emulated, profiles, tokens) if emulated.is_file() else {}
    return [
        {
            "name": row["artifact"],
            "phone": row["title"],
            "cores": f"{row['threads']}x {row['cluster']}",
            "instructions": row["instructions_low_ms"] is not None,
            **{key: row[key] for key in ("low_ms", "high_ms", "bound")},
        }
        for row in estimates(profiles, costs, sha256s, threads=threads, counted=counted)
    ]


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


def report_runs(folders: list[Path]) -> tuple[str, dict[str, Any]]:
    """Finished runs as tables for people, and their results and the tables' figures as JSON.

    Raises UsageError naming the folder that is no finished run, or is given twice.
    """
    from stillroom.benchmarks.compare import PASS_TITLE, compare, run_figures
    from stillroom.benchmarks.report import headline, markdown_table, size_lines

    runs: dict[str, dict[str, Any]] = {}
    for folder in folders:
        if any(folder.samefile(other) for other in runs if folder.exists()):
            raise UsageError(f"{folder} is given twice: it would count as two runs")
        runs[str(folder)] = _read_results(folder)
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


def _read_results(folder: Path) -> dict[str, Any]:
    """The valid results.json of a run folder. Raises UsageError naming what is wrong."""
    from stillroom.benchmarks.results import validate_results

    path = folder / "report" / "results.json"
    if not path.is_file():
        raise UsageError(f"{folder} has no report/results.json: stillroom run first")
    return _valid(path, validate_results)


def _valid(path: Path, validate: Callable[[Any], None]) -> dict[str, Any]:
    document = read_json(path)
    try:
        validate(document)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return dict(document)


def report_against(a: Path, b: Path, *, fail: bool) -> tuple[str, dict[str, Any]]:
    """What changed in A from B; each a run folder, a results.json or a bench.json.

    Raises UsageError for anything else, CheckFailed, after showing the table, when fail is set and something
    is worse.
    """
    from stillroom.benchmarks.against import change_facts, change_table, changes, regressions
    from stillroom.benchmarks.results import validate_bench, validate_results
    from stillroom.benchmarks.tables import markdown

    def read(path: Path) -> dict[str, Any]:
        if path.is_dir() and (path / "bench.json").is_file():
            path = path / "bench.json"
        if not path.is_file():
            return _read_results(path)
        document = read_json(path)
        is_bench = isinstance(document, dict) and "rows" in document
        return _valid(path, validate_bench if is_bench else validate_results)

    found = changes(read(a), read(b))
    worse = regressions(found)
    text = f"A: {a}\nB: {b}\n\n{markdown(change_table(found))}\n\n" + (
        f"{len(worse)} of {len(found)} figures are worse in A" if worse else "nothing is worse in A"
    )
    if fail and worse:
        say(text)
        raise CheckFailed(f"{worse[0].name}: {worse[0].figure} {worse[0].a} in A, {worse[0].b} in B")
    return text, {"changes": change_facts(found), "worse": len(worse)}
