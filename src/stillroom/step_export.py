"""Steps "export" and "bundle": the files, and the folder that an app takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillroom.apart import apart
from stillroom.artifact import SCHEMA_VERSION
from stillroom.files import staged_folder
from stillroom.observe import Batch, calibration_of
from stillroom.recipe import Recipe
from stillroom.splits import load_splits
from stillroom.step_data import encode_for
from stillroom.steps import Run, do_step, recorded
from stillroom.text import Row

TEACHER_ARTIFACT = "teacher-onnx-fp32"  # the yardstick: the teacher as other exporters write it


def artifact_sources(recipe: Recipe) -> dict[str, str]:
    """Artifact name -> the model folder in the run it is made from."""
    return {TEACHER_ARTIFACT: "teacher", **{name: "student" for name in recipe.export.artifacts}}


def export_step(run: Run, recipe: Recipe) -> dict[str, Any]:
    """artifacts/: the student in every format and scheme asked for, and the teacher as a yardstick.

    Each format in a process of its own: exporters keep what they have seen in memory.
    """
    from stillroom.export.targets import split_name
    from stillroom.progress import progress_bar

    sources = artifact_sources(recipe)
    of_target: dict[str, dict[str, str]] = {}
    for name, source in sources.items():
        of_target.setdefault(split_name(name.removeprefix("teacher-"))[0], {})[name] = source

    def work() -> dict[str, Any]:
        facts: dict[str, Any] = {}
        calibration = calibration_rows(run, run.folder / "student", recipe.export.calibration_rows)
        with (
            staged_folder(run.folder / "artifacts") as partial,
            progress_bar(len(sources), "export", "file") as bar,
        ):
            rules = (recipe.export.ranges, recipe.export.rounding)
            calls = [(run.folder, names, partial, calibration, *rules) for names in of_target.values()]
            for made in apart(export_files, calls):
                facts |= made
                bar.update(len(made))
        return {name: facts[name] for name in sources}

    made_from = {
        "artifacts": list(recipe.export.artifacts),
        "calibration": [recipe.export.calibration_rows, recipe.export.ranges, recipe.export.rounding],
        "schema_version": SCHEMA_VERSION,  # files of an older one are made again
        **recorded(run, "teacher", "student"),
    }
    return do_step(run, "export", made_from, ("artifacts",), work)


def export_files(
    run: Path, sources: dict[str, str], out: Path, calibration: Any, ranges: str, rounding: str
) -> dict[str, Any]:
    """Write artifacts into out: name -> what is known of it. sources: name -> model folder in the run."""
    from stillroom.export.options import ExportOptions
    from stillroom.export.targets import export, split_name

    facts = {}
    for name, source in sources.items():
        target, scheme = split_name(name.removeprefix("teacher-"))
        options = ExportOptions(
            shorten=source == "student",
            calibration=calibration,
            ranges=ranges,
            rounding=rounding,
            prefer_learned=True,
        )
        made = export(run / source, target, scheme, out / name, options)
        facts[name] = {
            "target": target, "scheme": scheme, "source": source, "parameters": made.parameters,
            "size_bytes": made.size_bytes, "tolerance": made.tolerance, "proof": made.proof,
        }  # fmt: skip
    return facts


def calibration_rows(run: Run, folder: Path, count: int) -> tuple[Batch, ...]:
    """Training rows of the run as a student folder's inputs: int8 is measured, 4 bits are rounded by them."""
    return calibration_by(folder, load_splits(run.folder / "data").train, count)


def calibration_by(folder: Path, rows: Sequence[Row], count: int) -> tuple[Batch, ...]:
    """So many of some rows, evenly spread, as a model folder's inputs. No others are encoded."""
    from stillroom.student import load_student
    from stillroom.tokens import spread_rows

    task, chosen = load_student(folder).task, spread_rows(len(rows), count)
    return calibration_of(encode_for(folder, task, [rows[at] for at in chosen]), task.inputs, count)


def bundle_step(run: Run, recipe: Recipe) -> dict[str, Any]:
    """bundle/: what the app takes; its golden vectors are replayed once from the written files."""

    def work() -> dict[str, Any]:
        from stillroom.export.bundle import load_bundle, replay_goldens, write_bundle

        chosen = run.folder / "artifacts" / recipe.export.bundle
        manifest = write_bundle(recipe.name, chosen, run.folder / "student", run.folder / "bundle")
        error = replay_goldens(load_bundle(run.folder / "bundle"))
        return {"goldens": manifest["golden"]["count"], "golden_max_abs_error": error}

    made_from = {"bundle": recipe.export.bundle, "name": recipe.name, **recorded(run, "student", "export")}
    return do_step(run, "bundle", made_from, ("bundle",), work)
