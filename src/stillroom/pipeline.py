"""The main job, in order. Heavy rooms are imported inside the steps: a run that finds all done loads none."""

from __future__ import annotations

from pathlib import Path

from stillroom.recipe import Recipe
from stillroom.step_data import data_step
from stillroom.step_export import bundle_step, export_step
from stillroom.step_measure import measure_step
from stillroom.step_report import report_step
from stillroom.step_student import baseline_step, student_step, teacher_names
from stillroom.step_train import find_model, teacher_step
from stillroom.step_transfer import transfer_step
from stillroom.step_verify import verify_step
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
    """The steps up to the student; returns the pretrained model that its layers came from.

    Raises UsageError.
    """
    sources = [recipe.teacher.source, *recipe.teacher.also]
    folders = [find_model(source, allow_download=allow_download) for source in sources]
    start = (
        find_model(recipe.student.source, allow_download=allow_download) if recipe.student.source else None
    )
    data_step(run, recipe)
    transfer_step(run, recipe)
    for name, folder in zip(teacher_names(recipe), folders, strict=True):
        teacher_step(run, recipe, folder, name)
    student_step(run, recipe, folders[0], start)
    return start or folders[0]
