"""The student step from the command line: cut vocabularies, narrower students, other teachers and starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillroom
from stillroom.cli import main

QUICK = ("teacher.epochs=1", "student.epochs=1", "measure.rounds=1", "measure.samples=3", "measure.warmup=1",
         "measure.sweeps=false",
         "measure.lengths=[8]", "data.test_fraction=0.2")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, review_csv: Callable[..., Path]) -> Path:
    return review_csv(tmp_path_factory.mktemp("data") / "reviews.csv", 90)


def command(verb: str, data: Path, teacher: Path, out: Path, *changes: str) -> list[str]:
    options = [word for change in (*QUICK, *changes) for word in ("--set", change)]
    return [verb, "demo", "--data", str(data), "--text-column", "review", "--label-column", "stars",
            "--teacher", str(teacher), "--out", str(out), *options]  # fmt: skip


def lineage(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "stillroom.json").read_text("utf-8"))["lineage"])


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_a_cut_vocabulary_goes_the_whole_way(
    data: Path, tmp_path: Path, make_model_folder: Callable[..., Path], family: str
) -> None:
    teacher = make_model_folder(tmp_path / "model", family)
    assert main(command("run", data, teacher, tmp_path / "mine", "student.vocabulary=trim")) == 0
    cut = lineage(tmp_path / "mine" / "student")["vocabulary"]
    config = json.loads((tmp_path / "mine" / "student" / "config.json").read_text("utf-8"))
    assert cut["after"] == config["vocab_size"] < cut["before"] and cut["limit"] is None
    assert lineage(tmp_path / "mine" / "baseline")["vocabulary"] == cut
    # goldens were recorded with the small tokenizer, and are replayed by it
    assert main(["verify", str(tmp_path / "mine" / "bundle")]) == 0
    bundle = stillroom.load_bundle(tmp_path / "mine" / "bundle")
    assert bundle.tokenizer.get_vocab_size() == cut["after"]
    assert bundle.manifest["lineage"]["vocabulary"] == cut


def test_a_hard_limit_and_a_narrower_student(
    data: Path, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("student.vocabulary=40", "student.hidden_size=16", "student.hidden_weight=1.0")
    assert main(command("distill", data, tiny_bert, tmp_path / "mine", *changes)) == 0
    config = json.loads((tmp_path / "mine" / "student" / "config.json").read_text("utf-8"))
    assert (config["vocab_size"], config["hidden_size"]) == (40, 16)
    said = capsys.readouterr().err
    assert "cut to 40" in said and "the cosine loss is left out" in said
    assert main(command("distill", data, tiny_bert, tmp_path / "mine", "student.vocabulary=4")) == 2
    assert "a vocabulary of 4 tokens is too small" in capsys.readouterr().err
    assert main(command("distill", data, tiny_bert, tmp_path / "mine", "student.heads=3")) == 2
    assert "student.heads 3" in capsys.readouterr().err


def test_two_teachers_and_a_start_of_another_family(
    data: Path, tmp_path: Path, tiny_bert: Path, tiny_xlmr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    also = f"teacher.also={json.dumps([str(tiny_xlmr)])}"
    assert main(command("distill", data, tiny_bert, tmp_path / "mine", also)) == 0
    assert "2 teachers teach through their answers only" in capsys.readouterr().err
    assert len(lineage(tmp_path / "mine" / "student")["other_teachers"]) == 1
    assert (tmp_path / "mine" / "teacher-2" / "model.safetensors").is_file()
    start = f"student.source={tiny_xlmr}"
    assert main(command("run", data, tiny_bert, tmp_path / "other", start)) == 0
    assert "the teacher has another tokenizer" in capsys.readouterr().err
    config = json.loads((tmp_path / "other" / "student" / "config.json").read_text("utf-8"))
    assert config["model_type"] == "xlm-roberta"
    assert main(["verify", str(tmp_path / "other")]) == 0


def test_altered_copies_need_one_teachers_tokens(
    data: Path, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in (("student.vocabulary", "40"), ("student.source", str(tiny_bert))):
        changes = (f"{key}={value}", "student.augment_copies=1")
        assert main(command("distill", data, tiny_bert, tmp_path / "mine", *changes)) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("stillroom: student.augment_copies 1: ") and key in said
    changes = ("student.vocabulary=trim", "student.augment_copies=1")
    assert main(command("distill", data, tiny_bert, tmp_path / "mine", *changes)) == 0
    made = lineage(tmp_path / "mine" / "student")
    assert made["vocabulary"]["after"] < made["vocabulary"]["before"]
    assert made["rows_without_labels"]["augmentation"]["copies"] == 1
