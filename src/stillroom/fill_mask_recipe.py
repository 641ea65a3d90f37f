"""The dials of fill-mask distillation: one flat table, from a .toml file or from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.recipe import LIMITS as RECIPE_LIMITS
from stillroom.toml_tables import Limit, Place, as_plain, build, check_limits, read_toml

# Keys that change no model: how often it is saved, and how it is scored in the end.
NOT_OF_THE_MODEL = ("checkpoint_every_s", "checkpoints_kept", "scored_rows", "pseudo_rows")
OF_THE_TEACHER = ("teacher_cache", "teacher_cache_k")  # nothing to a model that none teaches
OF_THE_CORPUS = ("max_length", "held_out_share", "split_seed")


@dataclass(frozen=True)
class FillMaskRecipe:
    """The losses' weights and temperature are DistilBERT's (https://arxiv.org/abs/1910.01108).

    max_length: tokens of a row, [CLS] and [SEP] included. held_out_share: of the rows, never trained on,
    chosen with split_seed. mask_share: of the tokens. whole_words: hide whole words. soft_positions: where
    the teacher is imitated, "masked" or "all". mask_variants: after so many epochs the masks repeat, 0 for
    never. teacher_cache: "off", the teacher answers in every step; or it answers once for each mask variant,
    into files that hold the whole answers, "fp16", or the teacher_cache_k likeliest tokens of each, "top-k".
    Of those the temperature decides what they lose: docs/log.md.
    layers: "half" of the teacher's, how many, or which. form: "same" architecture as the teacher, or
    "distilbert". freeze_encoder: for teach. scored_rows, pseudo_rows: held-out rows scored at most, and those
    with pseudo-perplexity.
    """

    seed: int = 0
    max_length: int = 128
    held_out_share: float = 0.02
    split_seed: int = 0
    mask_share: float = 0.15
    whole_words: bool = False
    layers: str | int | tuple[int, ...] = "half"
    layer_choice: str = "every-other"
    form: str = "same"
    epochs: int = 3
    learning_rate: float = 3e-4
    batch_size: int = 32
    freeze_word_embeddings: bool = False
    freeze_encoder: bool = False
    temperature: float = 2.0
    soft_weight: float = 5.0
    hard_weight: float = 2.0
    cosine_weight: float = 1.0
    soft_positions: str = "masked"
    mask_variants: int = 0
    teacher_cache: str = "off"
    teacher_cache_k: int = 64
    scored_rows: int = 1000
    pseudo_rows: int = 8
    checkpoint_every_s: float = 60.0
    checkpoints_kept: int = 2


_LIKE_THE_STUDENT = ("layers", "layer_choice", "epochs", "learning_rate", "batch_size", "temperature",
                     "soft_weight", "hard_weight", "cosine_weight")  # fmt: skip
LIMITS = {
    **{name: RECIPE_LIMITS[name] for name in ("seed", "checkpoint_every_s", "checkpoints_kept")},
    **{name: RECIPE_LIMITS[f"student.{name}"] for name in _LIKE_THE_STUDENT},
    "max_length": Limit(lambda value: 3 <= value <= 512, "3 to 512"),
    "held_out_share": Limit(lambda value: 0 < value <= 0.5, "above 0, to 0.5"),
    "split_seed": RECIPE_LIMITS["data.split_seed"],
    "mask_share": Limit(lambda value: 0 < value < 1, "between 0 and 1"),
    "form": Limit(lambda value: value in ("same", "distilbert"), '"same" or "distilbert"'),
    "soft_positions": Limit(lambda value: value in ("masked", "all"), '"masked" or "all"'),
    "mask_variants": RECIPE_LIMITS["data.max_train_rows"],
    "teacher_cache": Limit(lambda value: value in ("off", "fp16", "top-k"), '"off", "fp16" or "top-k"'),
    "teacher_cache_k": RECIPE_LIMITS["student.batch_size"],
    "scored_rows": RECIPE_LIMITS["student.batch_size"],
    "pseudo_rows": RECIPE_LIMITS["student.soft_weight"],
}


def load_fill_mask_recipe(path: str | None, changes: dict[str, Any]) -> FillMaskRecipe:
    """The recipe in a .toml file, or the defaults, with some values replaced.

    Raises UsageError, naming file and line or the key, for what does not fit.
    """
    if path is None:
        return _recipe(changes, lambda key: "")
    if Path(path).suffix != ".toml":
        raise UsageError(
            f"recipe {path!r} is not for fill-mask: leave it out and --set what differs, or give the path of "
            "a .toml file with fill-mask's own keys"
        )
    values, place = read_toml(Path(path))
    _recipe(values, place)  # so that the file's mistakes are told with their lines
    return _recipe({**values, **changes}, lambda key: "")


def _recipe(values: dict[str, Any], place: Place) -> FillMaskRecipe:
    recipe: FillMaskRecipe = build(FillMaskRecipe, values, place)
    check_limits(as_plain(recipe), LIMITS, place)
    if not any((recipe.soft_weight, recipe.hard_weight, recipe.cosine_weight)):
        raise UsageError(
            f"{place(('soft_weight',))}soft_weight, hard_weight and cosine_weight are all 0, expected at "
            "least one above 0"
        )
    if recipe.teacher_cache != "off" and not recipe.mask_variants:
        raise UsageError(
            f"{place(('teacher_cache',))}teacher_cache is {recipe.teacher_cache!r} and mask_variants is 0, "
            "expected 1 or more: masks that repeat, so that answers can be used again"
        )
    return recipe
