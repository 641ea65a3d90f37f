"""Every mistake a user can make at the command line: one line, exit code 2, no traceback."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from stillroom.cli import main

Say = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command that must fail; return its one line of error."""

    def run(*arguments: str | Path, code: int = 2) -> str:
        assert main([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = [line for line in captured.err.splitlines() if line.startswith("stillroom: ")]
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err
        return lines[0]

    return run


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    rows = [
        f"{word} film number {number},{stars}"
        for number in range(20)
        for word, stars in (("good", 5), ("bad", 1))
    ]
    path.write_text("\n".join(["review,stars", *rows]), encoding="utf-8")
    return path


@pytest.fixture
def teacher(tmp_path: Path, make_model_folder: Callable[..., Path]) -> Path:
    return make_model_folder(tmp_path / "teacher")


@pytest.fixture
def run_with(refused: Say, reviews: Path, teacher: Path, tmp_path: Path) -> Say:
    """`stillroom run` on the reviews with some options changed; an option of None is left out."""

    def run(code: int = 2, **changes: str | Path | None) -> str:
        options = {"data": reviews, "text-column": "review", "label-column": "stars", "teacher": teacher,
                   "out": tmp_path / "run", **changes}  # fmt: skip
        words = [
            word for name, value in options.items() if value is not None for word in (f"--{name}", value)
        ]
        line = refused("run", "demo", *words, code=code)
        out = options["out"]
        assert isinstance(out, Path)
        for left in ("teacher", "student", "bundle", "report"):
            assert not (out / left).exists()
        return line

    return run


def test_missing_file(run_with: Say, tmp_path: Path) -> None:
    assert "no such data file" in run_with(data=tmp_path / "nowhere.csv")


def test_missing_column_names_the_columns_there_are(run_with: Say) -> None:
    line = run_with(**{"text-column": "reviews"})
    assert "reviews" in line and "review" in line and "stars" in line


def test_empty_text(run_with: Say, reviews: Path) -> None:
    reviews.write_text(reviews.read_text() + "\n   ,5\n", encoding="utf-8")
    assert "reviews.csv:42" in run_with()


def test_broken_utf8_names_file_and_line(run_with: Say, reviews: Path) -> None:
    reviews.write_bytes(reviews.read_bytes() + b"\ncaf\xe9 was good,5\n")
    line = run_with()
    assert "reviews.csv:42" in line and "UTF-8" in line.upper()


def test_too_many_fields_names_the_line(run_with: Say, reviews: Path) -> None:
    reviews.write_text(reviews.read_text() + "\ngood, but long,5\n", encoding="utf-8")
    assert "reviews.csv:42" in run_with()


def test_unknown_label_in_test_file(run_with: Say, tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text("review,stars\nsome film,3\n", encoding="utf-8")
    line = run_with(test=test)
    assert "'3'" in line and "test.csv:2" in line


def test_one_class_only(run_with: Say, reviews: Path) -> None:
    reviews.write_text("review,stars\n" + "\n".join(f"film {n},5" for n in range(30)), encoding="utf-8")
    assert "one" in run_with()


def test_fewer_rows_than_can_be_split(run_with: Say, reviews: Path) -> None:
    reviews.write_text("review,stars\ngood film,5\nbad film,1\nfine film,5\nawful film,1\n", encoding="utf-8")
    assert "3" in run_with()


def test_teacher_with_too_many_tokens(run_with: Say, teacher: Path) -> None:
    content = json.loads((teacher / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["surplus"] = 5000  # beyond the embedding rows
    (teacher / "tokenizer.json").write_text(json.dumps(content))
    assert "belong to different models" in run_with()


def test_teacher_without_weights(run_with: Say, teacher: Path) -> None:
    (teacher / "model.safetensors").unlink()
    assert "no weights" in run_with()


def test_pickled_teacher_is_refused(run_with: Say, teacher: Path) -> None:
    (teacher / "model.safetensors").rename(teacher / "pytorch_model.bin")
    line = run_with()
    assert "pickle" in line and "safetensors" in line


def test_missing_teacher_and_hub_id(run_with: Say, tmp_path: Path) -> None:
    assert "no teacher folder" in run_with(teacher=tmp_path / "nowhere")
    assert "--allow-download" in run_with(teacher="someone/some-bert")


def test_layer_index_out_of_range(refused: Say, reviews: Path, teacher: Path, tmp_path: Path) -> None:
    line = refused(
        "distill", "demo", "--data", reviews, "--text-column", "review", "--label-column", "stars",
        "--teacher", teacher, "--out", tmp_path / "run",
        "--set", "student.layers=[0, 9]", "--set", "teacher.epochs=1",
    )  # fmt: skip
    assert "student.layers" in line and "[0, 9]" in line
    assert not (tmp_path / "run" / "student").exists()


def test_unknown_recipe_key_names_the_nearest(run_with: Say) -> None:
    assert "did you mean 'temperature'" in run_with(set="student.temprature=3")


def test_nan_loss_stops_and_says_the_step(run_with: Say) -> None:
    line = run_with(set="teacher.learning_rate=1e30")
    assert "step" in line and "learning_rate" in line


def test_foreign_folder_is_not_overwritten(refused: Say, tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").write_bytes(b"meow")
    assert "not a stillroom run" in refused("run", "demo", "--out", foreign)
    assert [path.name for path in foreign.iterdir()] == ["cat.jpg"]


@pytest.mark.parametrize("verb", ["export", "bundle"])
def test_an_output_folder_with_other_files_is_refused(
    refused: Say, tmp_path: Path, verb: str, make_model_folder: Callable[..., Path]
) -> None:
    model = make_model_folder(tmp_path / "model", head_labels=("bad", "good"))
    (tmp_path / "artifacts" / "onnx-int8-dynamic").mkdir(parents=True)
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").write_bytes(b"meow")
    source = model if verb == "export" else tmp_path
    assert "choose another folder" in refused(verb, source, "--out", foreign)
    assert (foreign / "cat.jpg").read_bytes() == b"meow"


FULL = OSError(errno.ENOSPC, "No space left on device", "rows.jsonl")
FULL_FOR_SAFETENSORS = SafetensorError(
    "Error while serializing: I/O error: No space left on device (os error 28)"
)


@pytest.mark.parametrize("error", [FULL, FULL_FOR_SAFETENSORS], ids=["python", "safetensors"])
def test_no_disk_space(run_with: Say, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    from stillroom import step_data

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(step_data, "save_splits", full)
    assert "no disk space" in run_with()


def test_a_bug_is_no_mistake_of_the_user(run_with: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    from stillroom import step_data

    monkeypatch.setattr(step_data, "save_splits", lambda *_: {}["absent"])
    with pytest.raises(KeyError, match="absent"):
        run_with()


@pytest.mark.parametrize("verb", ["verify", "bundle", "predict", "report", "bench", "export"])
def test_a_folder_that_is_not_there(refused: Say, tmp_path: Path, verb: str) -> None:
    rest = {
        "predict": ["text"],
        "bundle": ["--out", str(tmp_path / "b")],
        "export": ["--out", str(tmp_path / "e")],
    }
    assert "nowhere" in refused(verb, tmp_path / "nowhere", *rest.get(verb, []))


@pytest.mark.parametrize(
    "verb", ["run", "distill", "export", "verify", "bench", "report", "bundle", "predict", "doctor"]
)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"example: stillroom {verb}" in " ".join(shown.split()) and "--json" in shown


def test_unknown_verb_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["frobnicate"])
    assert stopped.value.code == 2


def test_doctor_prints_the_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    table = capsys.readouterr().out
    assert "int8-dynamic" in table and "interpreted on Linux, not run on Apple hardware" in table
    assert "works; deprecated by PyTorch in favour of ExecuTorch" in table
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"format": "onnx-fp32", "state": "works"} in document["formats"]


def test_jobs_below_zero_are_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".stillroom").mkdir()
    assert main(["verify", str(tmp_path), "--jobs", "-1"]) == 2
    assert "--jobs -1: expected 1 or more" in capsys.readouterr().err
