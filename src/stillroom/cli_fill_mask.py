"""The command line of fill-mask: distill --task fill-mask, and teach."""

from __future__ import annotations

import argparse

from stillroom.cli import RECIPE_OPTIONS, Answer, assignments
from stillroom.errors import UsageError
from stillroom.fill_mask_recipe import FillMaskRecipe, load_fill_mask_recipe
from stillroom.step_fill_mask import distill_fill_mask_steps, scores_table, teach_steps
from stillroom.step_train import find_model
from stillroom.steps import open_run


def fill_mask_verb(options: argparse.Namespace) -> Answer:
    """distill --task fill-mask, and teach. Raises UsageError."""
    if options.out is None:
        raise UsageError("fill-mask needs --out: say where the run goes, for example --out runs/general")
    recipe = fill_mask_recipe_of(options)
    source = find_model(options.teacher or "", allow_download=options.allow_download)
    teaches = options.verb == "teach"
    with open_run(options.out, fresh=options.fresh) as run:
        if teaches:
            scores = teach_steps(run, recipe, source, options.text or ())
        else:
            texts = options.text or ()
            scores = distill_fill_mask_steps(run, recipe, source, texts, baseline=not options.no_baselines)
    made = "teacher" if teaches else "student"
    folder = options.out / made
    document = {"scores": scores, f"{made}_folder": str(folder)}
    return f"{scores_table(scores)}\n{made}: {folder}", document


def fill_mask_recipe_of(options: argparse.Namespace) -> FillMaskRecipe:
    """The fill-mask recipe, with what the command line changes.

    Raises UsageError for the options of other tasks.
    """
    for name in set(RECIPE_OPTIONS) - {"task", "teacher", "seed"}:
        if getattr(options, name, None) is not None:
            word = f"--{name.replace('_', '-')}"
            raise UsageError(f"{word} is for labelled data: fill-mask takes --text FILES")
    names = ("seed", "max_length", "epochs", "freeze_encoder")
    changes = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    path = None if options.recipe in (None, "demo") else options.recipe  # demo: distill's default
    return load_fill_mask_recipe(path, {**changes, **assignments(options, "learning_rate=1e-4")})
