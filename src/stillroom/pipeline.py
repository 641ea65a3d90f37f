"""The main job, in order. Heavy rooms are imported inside the steps: a run that finds all done loads none."""

from __future__ import annotations

from pathlib import Path

from stillroom.recipe import Recipe
from stillroom.step_data import data_step
from stillroom.step_export import bundle_step, export_step, verify_step
from stillroom.step_report import measure_step, report_step
from stillroom.step_train import baseline_step, find_model, student_step, teacher_step
from stillroom.step_transfer import transfer_step
from stillroom.steps import Run


def run_pipeline(
    run: Run, recipe: Recipe, *, baselines: bool = True, allow_download: bool = False, command: str = ""
) -> None:
    """Do every step that is not done yet, and leave the run folder whole after each.

    command: the shell line that asked for it, for the report.

    Raises UsageError for bad input and CheckFailed when an artifact is not equal to its source.
    """
    source = distill_pipeline(run, recipe, allow_download=allow_download)
    if baselines:
        baseline_step(run, recipe, source)
    export_step(run, recipe)
    verify_step(run, recipe)
    measure_step(run, recipe, baselines=baselines)
    report_step(run, recipe, baselines=baselines, command=command)
    bundle_step(run, recipe)


def distill_pipeline(run: Run, recipe: Recipe, *, allow_download: bool = False) -> Path:
    """The steps up to the student; returns the model folder the teacher came from. Raises UsageError."""
    source = find_model(recipe.teacher.source, allow_download=allow_download)
    data_step(run, recipe)
    transfer_step(run, recipe)
    teacher_step(run, recipe, source)
    student_step(run, recipe, source)
    return source
