"""The fill-mask table: defaults, a file, --set; and mistakes named with their line or key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import UsageError
from stillroom.fill_mask_recipe import (
    LIMITS,
    NOT_OF_THE_MODEL,
    OF_THE_CORPUS,
    OF_THE_TEACHER,
    FillMaskRecipe,
    load_fill_mask_recipe,
)
from stillroom.toml_tables import as_plain


def test_the_weights_are_distilberts() -> None:
    recipe = load_fill_mask_recipe(None, {})
    assert (recipe.soft_weight, recipe.hard_weight, recipe.cosine_weight) == (5.0, 2.0, 1.0)
    assert recipe.temperature == 2.0 and recipe.mask_share == 0.15
    assert recipe == FillMaskRecipe()


def test_a_file_and_changes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 5\nlayers = [0, 3]\nwhole_words = true\n")
    recipe = load_fill_mask_recipe(str(path), {"epochs": 7, "learning_rate": 1})
    assert recipe == FillMaskRecipe(epochs=7, layers=(0, 3), whole_words=True, learning_rate=1.0)


def test_every_number_and_choice_has_a_limit() -> None:
    free = {name for name, value in as_plain(FillMaskRecipe()).items() if isinstance(value, bool)}
    assert set(LIMITS) == set(as_plain(FillMaskRecipe())) - free
    assert {*NOT_OF_THE_MODEL, *OF_THE_CORPUS, *OF_THE_TEACHER} < set(LIMITS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": 1}, r"unknown key 'epoch' \(did you mean 'epochs'\?\)"),
        ({"student.epochs": 1}, "unknown key 'student.epochs'"),
        ({"epochs": 0}, "epochs is 0, expected 1 or more"),
        ({"epochs": 1.5}, "epochs is 1.5, expected a whole number"),
        ({"max_length": 2}, "max_length is 2, expected 3 to 512"),
        ({"held_out_share": 0.6}, "held_out_share is 0.6, expected above 0, to 0.5"),
        ({"mask_share": 1.0}, "mask_share is 1.0, expected between 0 and 1"),
        ({"form": "bert"}, 'form is \'bert\', expected "same" or "distilbert"'),
        ({"soft_positions": "none"}, 'soft_positions is \'none\', expected "masked" or "all"'),
        ({"mask_variants": -1}, "mask_variants is -1, expected 0 or more"),
        ({"teacher_cache": "fp8"}, 'teacher_cache is \'fp8\', expected "off", "fp16" or "top-k"'),
        ({"teacher_cache_k": 0}, "teacher_cache_k is 0, expected 1 or more"),
        ({"teacher_cache": "fp16"}, "teacher_cache is 'fp16' and mask_variants is 0, expected 1 or more"),
        ({"layers": "all"}, "layers is 'all', expected \"half\", a number"),
        ({"soft_weight": 0, "hard_weight": 0, "cosine_weight": 0}, "are all 0, expected at least one"),
        ({"pseudo_rows": -1}, "pseudo_rows is -1, expected 0 or more"),
        ({"scored_rows": 0}, "scored_rows is 0, expected 1 or more"),
    ],
)
def test_values_that_do_not_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_fill_mask_recipe(None, changes)


def test_a_files_mistakes_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 5\n\nlayers = 0\n")
    with pytest.raises(UsageError, match=r"mine\.toml:3: layers is 0"):
        load_fill_mask_recipe(str(path), {"layers": 2})
    path.write_text("epochs = \n")
    with pytest.raises(UsageError, match=r"mine\.toml:1: not valid TOML"):
        load_fill_mask_recipe(str(path), {})
    with pytest.raises(UsageError, match="cannot read recipe"):
        load_fill_mask_recipe(str(tmp_path / "absent.toml"), {})
    with pytest.raises(UsageError, match="recipe 'full' is not for fill-mask: leave it out"):
        load_fill_mask_recipe("full", {})
