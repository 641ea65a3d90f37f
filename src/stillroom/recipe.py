"""Recipes: one TOML file says what is distilled, from what, and how it is exported and measured."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError, did_you_mean, shown
from stillroom.kinds import KINDS
from stillroom.scheme import RANGE_RULES, ROUNDINGS
from stillroom.toml_tables import Limit, Place, as_plain, build, check_limits, parse_toml, read_toml


@dataclass(frozen=True)
class DataRecipe:
    """source, validation, test, transfer: a path, or "package:DISTRIBUTION/path".

    validation or test "": drawn from source. A column "": the file has none. max_..._rows: 0 for all.
    """

    source: str = ""
    validation: str = ""
    test: str = ""
    transfer: str = ""
    text_column: str = "text"
    label_column: str = "label"
    pair_column: str = ""
    confidence_column: str = ""
    min_confidence: float = 0.0
    encoding: str = "utf-8"
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    max_train_rows: int = 0
    max_transfer_rows: int = 0
    split_seed: int = 0


@dataclass(frozen=True)
class TeacherRecipe:
    """source, also (more teachers): a model folder, or "package:DISTRIBUTION/path". batch_size: rows."""

    source: str = ""
    also: tuple[str, ...] = ()
    epochs: int = 2
    learning_rate: float = 5e-5
    batch_size: int = 32
    freeze_word_embeddings: bool = True


@dataclass(frozen=True)
class StudentRecipe:
    """layers: "half" of the teacher's, how many, or which (from 0). The weights are those of the losses.

    source: a model to start from, "" for the teacher. layer_choice: see distill.layers.choose_layers.
    vocabulary: "all", "trim", or how many tokens at most. hidden_size, heads, intermediate_size: 0 for the
    teacher's; relation_heads: 0 for the student's. augment_copies: of every row, see distill.augment.
    quantized_epochs: further ones, with everything rounded to 8 bits, or weights to 4 (quantized_bits), see
    distill.fake_quantization.
    """

    source: str = ""
    layers: str | int | tuple[int, ...] = "half"
    layer_choice: str = "every-other"
    vocabulary: str | int = "all"
    hidden_size: int = 0
    heads: int = 0
    intermediate_size: int = 0
    epochs: int = 3
    learning_rate: float = 1e-4
    batch_size: int = 32
    freeze_word_embeddings: bool = True
    temperature: float = 2.0
    soft_weight: float = 1.0
    hard_weight: float = 0.5
    cosine_weight: float = 1.0
    hidden_weight: float = 0.0
    relation_weight: float = 0.0
    relation_heads: int = 0
    augment_copies: int = 0
    quantized_epochs: int = 0
    quantized_bits: int = 8


@dataclass(frozen=True)
class ExportRecipe:
    """artifacts: "format-scheme" names. bundle: the one of them that goes into the bundle.

    calibration_rows: training rows that int8-static measures its ranges on and GPTQ rounds by. ranges,
    rounding: see scheme.RANGE_RULES and scheme.ROUNDINGS.
    """

    artifacts: tuple[str, ...] = ("onnx-fp32", "onnx-int8-dynamic")
    bundle: str = "onnx-int8-dynamic"
    calibration_rows: int = 512
    ranges: str = "best"
    rounding: str = "best"


@dataclass(frozen=True)
class MeasureRecipe:
    """lengths: tokens per input. samples, warmup: timed and untimed calls a round.

    sweeps: also time other threads, lengths and batches, and what the machine can do at best.
    """

    lengths: tuple[int, ...] = (64, 128)
    rounds: int = 3
    samples: int = 30
    warmup: int = 5
    threads: int = 2
    sweeps: bool = True


@dataclass(frozen=True)
class Recipe:
    """task: a kind of kinds.KINDS. max_length: tokens, special tokens included; longer texts are cut.

    checkpoint_every_s: seconds of training between checkpoints, of which the last checkpoints_kept stay.
    """

    name: str = ""
    task: str = "text-classification"
    seed: int = 0
    max_length: int = 128
    checkpoint_every_s: float = 60.0
    checkpoints_kept: int = 2
    data: DataRecipe = field(default_factory=DataRecipe)
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    student: StudentRecipe = field(default_factory=StudentRecipe)
    export: ExportRecipe = field(default_factory=ExportRecipe)
    measure: MeasureRecipe = field(default_factory=MeasureRecipe)


def _within(low: int, high: int) -> Limit:
    return Limit(lambda value: low <= value <= high, f"{low} to {high}")


def _good_layers(value: str | int | list[int]) -> bool:
    if isinstance(value, list):
        return bool(value) and value[0] >= 0 and value == sorted(set(value))
    return value == "half" if isinstance(value, str) else value >= 1


def _good_lengths(value: list[int]) -> bool:
    return bool(value) and min(value) >= 1 and max(value) <= 512 and len(set(value)) == len(value)


_AT_LEAST_0 = Limit(lambda value: value >= 0, "0 or more")
_AT_LEAST_1 = Limit(lambda value: value >= 1, "1 or more")
_ABOVE_0 = Limit(lambda value: value > 0, "more than 0")
_FRACTION = Limit(lambda value: 0 < value < 1, "between 0 and 1")
_NOT_EMPTY = Limit(bool, "not empty")
_SEED = _within(0, 2**32 - 1)  # what every library's generator takes

LIMITS = {
    "task": Limit(lambda value: value in KINDS, " or ".join(f'"{name}"' for name in KINDS)),
    "seed": _SEED,
    "checkpoint_every_s": _AT_LEAST_0,
    "checkpoints_kept": _AT_LEAST_1,
    "max_length": _within(2, 512),  # [CLS] and [SEP] alone are two; BERT's position table ends at 512
    "data.text_column": _NOT_EMPTY,
    "data.label_column": _NOT_EMPTY,
    "data.min_confidence": _AT_LEAST_0,
    "data.validation_fraction": _FRACTION,
    "data.test_fraction": _FRACTION,
    "data.max_train_rows": _AT_LEAST_0,
    "data.max_transfer_rows": _AT_LEAST_0,
    "data.split_seed": _SEED,
    "teacher.epochs": _AT_LEAST_1,
    "teacher.learning_rate": _ABOVE_0,
    "teacher.batch_size": _AT_LEAST_1,
    "student.layers": Limit(
        _good_layers, '"half", a number of layers, or a list of increasing indices from 0'
    ),
    "student.layer_choice": Limit(
        lambda value: value in ("every-other", "first-last", "top"), '"every-other", "first-last" or "top"'
    ),
    "student.vocabulary": Limit(
        lambda value: value in ("all", "trim") or (isinstance(value, int) and value > 0),
        '"all", "trim" or a number of tokens',
    ),
    "student.hidden_size": _AT_LEAST_0,
    "student.heads": _AT_LEAST_0,
    "student.intermediate_size": _AT_LEAST_0,
    "student.epochs": _AT_LEAST_1,
    "student.learning_rate": _ABOVE_0,
    "student.batch_size": _AT_LEAST_1,
    "student.temperature": _ABOVE_0,
    "student.soft_weight": _AT_LEAST_0,
    "student.hard_weight": _AT_LEAST_0,
    "student.cosine_weight": _AT_LEAST_0,
    "student.hidden_weight": _AT_LEAST_0,
    "student.relation_weight": _AT_LEAST_0,
    "student.relation_heads": _AT_LEAST_0,
    "student.augment_copies": _AT_LEAST_0,
    "student.quantized_epochs": _AT_LEAST_0,
    "student.quantized_bits": Limit(lambda value: value in (4, 8), "4 or 8"),
    "export.artifacts": _NOT_EMPTY,
    "export.calibration_rows": _AT_LEAST_1,
    "export.ranges": Limit(lambda value: value in RANGE_RULES, " or ".join(f'"{it}"' for it in RANGE_RULES)),
    "export.rounding": Limit(lambda value: value in ROUNDINGS, " or ".join(f'"{it}"' for it in ROUNDINGS)),
    "measure.lengths": Limit(_good_lengths, "different lengths of 1 to 512"),
    "measure.rounds": _AT_LEAST_1,
    "measure.samples": _AT_LEAST_1,
    "measure.warmup": _AT_LEAST_0,
    "measure.threads": _AT_LEAST_1,
}


def load_recipe(name_or_path: str) -> Recipe:
    """Read an embedded recipe by name ("demo"), or a .toml file, which is called after its file by default.

    Paths written in a recipe are taken as they are: relative ones start from the working directory, not
    from the recipe's folder. Raises UsageError, naming file and line, for anything that does not fit.
    """
    embedded = {
        entry.name.removesuffix(".toml"): entry
        for entry in importlib.resources.files("stillroom").joinpath("recipes").iterdir()
        if entry.name.endswith(".toml")
    }
    if name_or_path in embedded:
        return _recipe(*parse_toml(embedded[name_or_path].read_bytes(), f"{name_or_path}.toml"))
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():
        raise UsageError(
            f"no recipe {name_or_path!r}{did_you_mean(name_or_path, embedded)}: "
            f"there are {', '.join(sorted(embedded))}, or give the path of a .toml file"
        )
    recipe = _recipe(*read_toml(path))
    return recipe if recipe.name else dataclasses.replace(recipe, name=path.stem)


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A recipe with some values replaced, by dotted key ("student.epochs"); lists stand for tuples.

    Raises UsageError, naming the key, for what a file could not say either.
    """
    values = recipe_to_dict(recipe)
    for dotted, value in changes.items():
        *tables, name = dotted.split(".")
        place = values
        for table in tables:
            if not isinstance(place.get(table), dict):
                place[table] = {}
            place = place[table]
        place[name] = value
    return _recipe(values, lambda key: "")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as TOML and JSON know it: tables are dicts, tuples are lists."""
    return as_plain(recipe)


def _recipe(values: dict[str, Any], place: Place) -> Recipe:
    recipe: Recipe = build(Recipe, values, place, hint=_hint)
    check_limits(recipe_to_dict(recipe), LIMITS, place)
    student, export = recipe.student, recipe.export
    losses = ("soft", "hard", "cosine", "hidden", "relation")
    if not any(getattr(student, f"{name}_weight") for name in losses):
        words = ", ".join(f"student.{name}_weight" for name in losses)
        raise UsageError(
            f"{place(('student', 'soft_weight'))}{words} are all 0, expected at least one above 0"
        )
    if export.bundle not in export.artifacts:
        raise UsageError(
            f"{place(('export', 'bundle'))}export.bundle is {shown(export.bundle)}, expected one of "
            f"export.artifacts: {', '.join(export.artifacts)}"
        )
    return recipe


def _hint(name: str, known: Iterable[str]) -> str:
    """The same name in another table (TOML keys below a header belong to it), or the nearest one here."""
    tables = recipe_to_dict(Recipe())
    homes = [f"{table}.{name}" for table, keys in tables.items() if isinstance(keys, dict) and name in keys]
    homes += [name] if name in tables else []
    return f" (did you mean {' or '.join(map(repr, homes))}?)" if homes else did_you_mean(name, known)
