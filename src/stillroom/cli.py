"""The command line: one verb, one small function. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stillroom
from stillroom import cli_android, cli_bundle, cli_options
from stillroom.errors import StillroomError, UsageError
from stillroom.files import is_disk_full
from stillroom.processes import is_first
from stillroom.progress import say
from stillroom.student import FILL_MASK

if TYPE_CHECKING:
    from stillroom.recipe import Recipe

# What a verb returns: the table for people, and the JSON document for machines.
Answer = tuple[str, dict[str, Any]]
Work = Callable[[argparse.Namespace], Answer]

# option -> the recipe key it sets
RECIPE_OPTIONS = {
    "task": "task",
    "data": "data.source",
    "validation": "data.validation",
    "test": "data.test",
    "transfer": "data.transfer",
    "text_column": "data.text_column",
    "label_column": "data.label_column",
    "pair_column": "data.pair_column",
    "confidence_column": "data.confidence_column",
    "encoding": "data.encoding",
    "max_train_rows": "data.max_train_rows",
    "teacher": "teacher.source",
    "seed": "seed",
}


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe named, with what the command line changes."""
    from stillroom.recipe import DataRecipe, StudentRecipe, TeacherRecipe, load_recipe, override

    recipe = load_recipe(options.recipe)
    changes: dict[str, Any] = {
        key: value for name, key in RECIPE_OPTIONS.items() if (value := getattr(options, name)) is not None
    }
    if "data.source" in changes and recipe.data.source.startswith("package:"):
        # The columns and filters of an embedded recipe describe its own file, not the user's.
        changes = {**{f"data.{key}": value for key, value in asdict(DataRecipe()).items()}, **changes}
        if options.out is not None:
            changes["name"] = options.out.resolve().name
    if "teacher.source" in changes and recipe.teacher.source.startswith("package:"):
        # Its learning rates suit its own small teacher; a larger one would diverge.
        changes["teacher.learning_rate"] = TeacherRecipe.learning_rate
        changes["student.learning_rate"] = StudentRecipe.learning_rate
    return override(recipe, {**changes, **assignments(options, "student.epochs=2")})


def assignments(options: argparse.Namespace, example: str) -> dict[str, Any]:
    """What --set says: key -> value. Raises UsageError."""
    changes: dict[str, Any] = {}
    for assignment in options.set or ():
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: expected KEY=VALUE, for example --set {example}")
        try:
            changes[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            changes[key.strip()] = value
    return changes


def run_folder(options: argparse.Namespace) -> Path:
    """--out, or runs/RECIPE while the recipe's own data is used. Raises UsageError otherwise."""
    if options.out is not None:
        return Path(options.out)
    if options.data is not None:
        raise UsageError("--data needs --out: say where your run goes, for example --out runs/mine")
    return Path("runs") / Path(options.recipe).stem


def run_verb(options: argparse.Namespace) -> Answer:
    if options.task == FILL_MASK:
        raise UsageError(
            "run is for labelled data: stillroom distill --task fill-mask --text FILES --out DIR"
        )
    from stillroom.files import read_json
    from stillroom.pipeline import run_pipeline
    from stillroom.steps import open_run

    recipe, out = recipe_of(options), run_folder(options)
    with open_run(out, fresh=options.fresh) as run:
        run_pipeline(
            run,
            recipe,
            baselines=not options.no_baselines,
            allow_download=options.allow_download,
            command=options.command,
        )
    report, bundle = out / "report" / "report.html", out / "bundle"
    from stillroom.benchmarks.report import headline, markdown_table

    results = read_json(out / "report" / "results.json")
    table = "\n".join(
        [markdown_table(results), "", *headline(results), "", f"report: {report}   bundle: {bundle}"]
    )
    return table, {"results": results, "report": str(report), "bundle": str(bundle)}


def start_processes(options: argparse.Namespace) -> None:
    """Run this command in several processes and leave, where it asks for them and is not one of them."""
    from stillroom.processes import process_count, run_processes

    if options.num_processes != 1 and process_count() == 1:
        sys.exit(run_processes(options.num_processes, options.arguments))
    if process_count() > 1:
        say(f"{process_count()} processes train together")


def distill_verb(options: argparse.Namespace) -> Answer:
    from stillroom.kinds import in_words
    from stillroom.pipeline import distill_pipeline
    from stillroom.steps import open_run

    start_processes(options)
    if options.task == FILL_MASK:
        from stillroom.cli_fill_mask import fill_mask_verb

        return fill_mask_verb(options)
    for name in ("text", "max_length", "epochs", "no_baselines"):
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} is for --task fill-mask")
    recipe, out = recipe_of(options), run_folder(options)
    with open_run(out, fresh=options.fresh) as run:
        distill_pipeline(run, recipe, allow_download=options.allow_download)
        facts = {name: run.facts(name) for name in ("teacher", "student")}
    lines = [
        f"{name:<8} {row['parameters'] / 1e6:6.1f} M parameters   {in_words(row['test'])}"
        for name, row in facts.items()
    ]
    student = out / "student"
    return "\n".join([*lines, f"student: {student}"]), {**facts, "student_folder": str(student)}


def teach_verb(options: argparse.Namespace) -> Answer:
    from stillroom.cli_fill_mask import fill_mask_verb

    if options.task != FILL_MASK:
        raise UsageError(f"--task {options.task}: teach is for fill-mask; stillroom run trains classifiers")
    start_processes(options)
    return fill_mask_verb(options)


def export_verb(options: argparse.Namespace) -> Answer:
    from stillroom.cli_export import export_model

    return export_model(options)


def verify_verb(options: argparse.Namespace) -> Answer:
    from stillroom.step_verify import verify_bundle, verify_run
    from stillroom.steps import STATE

    if (options.path / STATE).is_dir():
        return verify_run(options.path, options.jobs)
    return verify_bundle(options.path)


def sensitivity_verb(options: argparse.Namespace) -> Answer:
    from stillroom.step_sensitivity import sensitivity_of_run

    return sensitivity_of_run(options.run, options.rows)


def search_verb(options: argparse.Namespace) -> Answer:
    from stillroom.cli_export import search_files

    return search_files(options)


def bench_verb(options: argparse.Namespace) -> Answer:
    from stillroom.cli_bench import bench_folders

    return bench_folders(options)


def report_verb(options: argparse.Namespace) -> Answer:
    from stillroom.step_report import report_against, report_runs

    if options.against is None:
        if options.fail_on_regression:
            raise UsageError("--fail-on-regression needs --against: say what to compare with")
        return report_runs(options.runs)
    if len(options.runs) != 1:
        raise UsageError(f"--against compares one run with another, {len(options.runs)} were given before it")
    return report_against(options.runs[0], options.against, fail=options.fail_on_regression)


def predict_verb(options: argparse.Namespace) -> Answer:
    bundle = stillroom.load_bundle(options.bundle)
    found = bundle(options.text, options.pair)
    ranked = sorted(found.probabilities.items(), key=lambda item: -item[1])
    lines = [f"{found.label}   ({found.latency_ms:.1f} ms, {found.tokens} tokens)"]
    lines += [f"  {label:<20} {value:7.2%}  {'#' * round(40 * value)}" for label, value in ranked]
    return "\n".join(lines), asdict(found)


def doctor_verb(options: argparse.Namespace) -> Answer:
    from stillroom.doctor import examine

    return examine()


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="stillroom",
        description="Distill a BERT text classifier, export it, prove the export equal, and measure it.",
        epilog="example: stillroom run demo --out runs/demo",
    )
    top.add_argument("--version", action="version", version=f"stillroom {stillroom.__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (work, summary, example, add_options) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary, epilog=f"example: {example}")
        verb.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
        verb.set_defaults(work=work)
        add_options(verb)
    return top


# verb -> (its function, summary, example, its options)
VERBS: dict[str, tuple[Work, str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": (
        run_verb,
        "Do the whole way: data, teacher, student, export, verify, measure, report, bundle.",
        "stillroom run demo --data reviews.csv --text-column review --label-column stars "
        "--teacher ./my-bert --out runs/mine",
        cli_options.run_options,
    ),
    "distill": (
        distill_verb,
        "Do the first part of run: data, teacher, student.",
        "stillroom distill demo --data reviews.csv --teacher ./my-bert --out runs/mine",
        cli_options.distill_verb_options,
    ),
    "teach": (
        teach_verb,
        "Train a fill-mask head for an encoder that has none, on raw text.",
        "stillroom teach --task fill-mask --teacher ./my-encoder --text *.txt --out runs/taught",
        cli_options.teach_options,
    ),
    "export": (
        export_verb,
        "Convert one model folder to one file.",
        "stillroom export runs/demo/student --format onnx-int8-dynamic --out my-model",
        cli_options.export_options,
    ),
    "verify": (
        verify_verb,
        "Prove a run's files equal to their source, or replay a bundle's golden vectors.",
        "stillroom verify runs/demo/bundle",
        cli_options.verify_options,
    ),
    "sensitivity": (
        sensitivity_verb,
        "Show which part of a run's student suffers most from 8 bits.",
        "stillroom sensitivity runs/demo",
        cli_options.sensitivity_options,
    ),
    "search": (
        search_verb,
        "Find the one file of a run's student that holds a budget of size, latency, memory and accuracy.",
        "stillroom search runs/demo --max-size-mb 12 --max-p90-ms 15 --min-retention 0.99",
        cli_options.search_options,
    ),
    "bench": (
        bench_verb,
        "Time models and exported files side by side, each in fresh processes.",
        "stillroom bench runs/demo/artifacts/* --length 64 --length 128",
        cli_options.bench_options,
    ),
    "report": (
        report_verb,
        "Show finished runs: scores per task, average and retention; size and time of an evaluation pass. "
        "Or what changed between two.",
        "stillroom report runs/new --against runs/old --fail-on-regression",
        cli_options.report_options,
    ),
    "bundle": (
        cli_bundle.bundle_verb,
        "Make the folder an app takes: model, tokenizer, labels, golden vectors.",
        "stillroom bundle runs/demo --for android --into android_demo",
        cli_options.bundle_options,
    ),
    "android": (
        cli_android.android_verb,
        "Make an APK of the Android sample app with a bundle in it, without an Android SDK.",
        "stillroom android build --project android_demo --fetch",
        cli_options.android_options,
    ),
    "predict": (
        predict_verb,
        "Classify one text with a bundle.",
        'stillroom predict runs/demo/bundle "What a lovely flight!"',
        cli_options.predict_options,
    ),
    "doctor": (
        doctor_verb,
        "Say which targets and schemes work on this machine, and why others do not.",
        "stillroom doctor",
        cli_options.no_options,
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Exit codes: 0 ok, 1 a check failed, 2 bad usage or input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    options.arguments = arguments
    options.command = shlex.join(["stillroom", *arguments])
    if not getattr(options, "allow_download", False):
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers loads: nothing reaches for a network
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        table, document = options.work(options)
    except StillroomError as error:
        say(f"stillroom: {' '.join(str(error).split())}")
        return error.exit_code
    except KeyboardInterrupt:
        say("stillroom: interrupted; the same command goes on from here")
        return 130
    except MemoryError:
        say("stillroom: out of memory: use a smaller batch_size, or a smaller teacher")
        return 2
    except Exception as error:
        if is_disk_full(error):
            say("stillroom: no disk space left: free some and run the same command again")
        elif isinstance(error, OSError):
            say(f"stillroom: {error.strerror or error}: {error.filename or ''}")
        else:
            raise
        return 2
    if is_first():
        print(json.dumps(document, ensure_ascii=False, indent=2) if options.json else table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
