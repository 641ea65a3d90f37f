"""Fill-mask from the command line: taught, distilled, scored; stopped, started again, in two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from stillroom.cli import main
from stillroom.files import sha256_file
from stillroom.fill_mask_recipe import load_fill_mask_recipe
from stillroom.step_fill_mask import distill_fill_mask_steps
from stillroom.steps import open_run

# Dropout draws other numbers in other processes; without it two processes compute what one does.
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SETTINGS = ("learning_rate=3e-3", "batch_size=16", "max_length=16", "held_out_share=0.1", "pseudo_rows=2",
            "checkpoint_every_s=0")  # fmt: skip
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, review_text: Callable[..., Path]) -> Path:
    return review_text(tmp_path_factory.mktemp("text") / "text.txt", 400)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, make_model_folder: Callable[..., Path]) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("encoder") / "my-bert", **NO_DROPOUT)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, make_model_folder: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "my-bert"
    return make_model_folder(folder, masked_lm=True, **NO_DROPOUT)


def words(
    verb: str, model: Path, text: Path | None, out: Path, *more: str, sets: tuple[str, ...] = ()
) -> list[str]:
    given = ["--text", str(text)] if text is not None else []
    return [verb, "--task", "fill-mask", "--teacher", str(model), "--out", str(out), *given, *more,
            *(word for assignment in (*SETTINGS, *sets) for word in ("--set", assignment))]  # fmt: skip


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, encoder: Path, text: Path) -> Path:
    out = tmp_path_factory.mktemp("taught") / "run"
    assert main(words("teach", encoder, text, out, "--epochs", "6")) == 0
    return out


def test_teach_then_distill_in_the_same_folder(
    taught: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = AutoModelForMaskedLM.from_pretrained(taught / "teacher")
    assert type(model).__name__ == "BertForMaskedLM"
    capsys.readouterr()
    arguments = words("distill", taught / "teacher", text, taught, "--json",
                      sets=("form=distilbert",))  # fmt: skip
    assert main(arguments) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert set(found["scores"]) == {"teacher", "student", "baseline"}
    for row in found["scores"].values():
        assert 0 <= row["masked_accuracy"] <= 1 and row["masked_loss"] > 0 and row["pseudo_perplexity"] > 1
    student = AutoModelForMaskedLM.from_pretrained(taught / "student")
    tokenizer = AutoTokenizer.from_pretrained(taught / "student")
    assert type(student).__name__ == "DistilBertForMaskedLM" and student.config.n_layers == 2
    with torch.no_grad():
        logits = student(**tokenizer("the [MASK] was great", return_tensors="pt")).logits
    assert logits.shape[-1] == 200
    said = json.loads((taught / "student" / "stillroom.json").read_text())
    assert said["task"] == {"kind": "fill-mask", "max_length": 16, "inputs": ["input_ids", "attention_mask"]}
    assert said["lineage"]["training"]["losses"]["soft"] == 5.0
    assert said["lineage"]["corpus"]["text_bytes"] == text.stat().st_size
    assert str(taught.parent) not in json.dumps(said)
    inode = (taught / "corpus" / "train-00000.arrow").stat().st_ino
    before = sha256_file(taught / "student" / "model.safetensors")
    assert main([*arguments[:-2], "--set", "form=distilbert", "--set", "scored_rows=5"]) == 0
    again = capsys.readouterr().err
    assert "student: done before, kept" in again and "scores: done again" in again
    assert (taught / "corpus" / "train-00000.arrow").stat().st_ino == inode
    assert sha256_file(taught / "student" / "model.safetensors") == before
    assert not list(taught.rglob("*.partial"))


def test_a_second_call_does_nothing_and_loads_no_torch(taught: Path, encoder: Path, text: Path) -> None:
    arguments = words("teach", encoder, text, taught, "--epochs", "6")
    assert main(arguments) == 0  # the last to record the corpus may have been distill, with its own tokenizer
    code = (
        "import sys; from stillroom.cli import main; "
        f"code = main({arguments!r}); "
        "print('torch' in sys.modules, 'datasets' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False False"
    assert done.stderr.count("done before, kept") == 3
    assert done.stdout.splitlines()[-1] == f"teacher: {taught / 'teacher'}"
    assert "masked accuracy" in done.stdout and "pseudo-perplexity" in done.stdout


def test_a_frozen_encoder_stays(tmp_path: Path, encoder: Path, text: Path) -> None:
    assert main(words("teach", encoder, text, tmp_path / "run", "--epochs", "1", "--freeze-encoder")) == 0
    before, after = (
        load_file(folder / "model.safetensors") for folder in (encoder, tmp_path / "run/teacher")
    )
    inside = {name: tensor for name, tensor in after.items() if name.startswith("bert.")}
    assert inside and all(
        torch.equal(tensor, before[name[len("bert.") :]]) for name, tensor in inside.items()
    )


def test_the_student_is_a_classifiers_teacher(
    taught: Path, tmp_path: Path, review_csv: Callable[..., Path]
) -> None:
    if not (taught / "student").is_dir():
        pytest.fail("made by the first test of this file")
    data = review_csv(tmp_path / "reviews.csv", 60)
    assert main(["distill", "demo", "--data", str(data), "--text-column", "review", "--label-column", "stars",
                 "--teacher", str(taught / "student"), "--out", str(tmp_path / "run"),
                 "--set", "student.epochs=1", "--set", "teacher.epochs=1"]) == 0  # fmt: skip


def command(*arguments: str, processes: int = 1) -> list[str]:
    several = ["--num-processes", str(processes)] if processes != 1 else []
    return [sys.executable, "-m", "stillroom", *arguments, *several]


def done(line: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, check=True, capture_output=True, text=True, env=ONE_THREAD, timeout=240)


@pytest.fixture(scope="module")
def alone(teacher: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    done(command(*words("distill", teacher, text, out)))
    return out


def losses(out: Path) -> list[float]:
    said = json.loads((out / "student" / "stillroom.json").read_text())
    return list(said["lineage"]["training"]["epoch_losses"])


def test_two_processes_have_the_losses_of_one(alone: Path, teacher: Path, text: Path, tmp_path: Path) -> None:
    found = done(command(*words("distill", teacher, text, tmp_path / "run", "--json"), processes=2))
    assert found.stderr.count("2 processes train together") == found.stderr.count("student ...") == 1
    assert "Traceback" not in found.stderr
    assert set(json.loads(found.stdout)) == {"scores", "student_folder"}
    # bf16 rounds sums that are split otherwise to neighbours, no more.
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=5e-3)
    assert losses(alone)[-1] < losses(alone)[0]

    def names(out: Path) -> set[str]:
        return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}

    assert names(alone) == names(tmp_path / "run")


def test_killed_and_started_again_ends_with_the_same_student(
    alone: Path, teacher: Path, text: Path, tmp_path: Path
) -> None:
    line = command(*words("distill", teacher, text, tmp_path / "run"))
    with subprocess.Popen(
        line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=ONE_THREAD
    ) as process:
        checkpoints = tmp_path / "run" / ".stillroom" / "work" / "student" / "checkpoints"
        deadline = time.monotonic() + 120
        while not list(checkpoints.glob("step-*[1-9]")):
            assert process.poll() is None and time.monotonic() < deadline, "ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "run" / "student").exists()
    assert "going on from step" in done(line).stderr
    whole, resumed = (out / "student" / "model.safetensors" for out in (alone, tmp_path / "run"))
    assert sha256_file(whole) == sha256_file(resumed)


KEPT = ("epochs=3", "mask_variants=2", "teacher_cache=top-k", "teacher_cache_k=8")


@pytest.fixture(scope="module")
def kept(teacher: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose teacher answered once for each variant of the masks."""
    out = tmp_path_factory.mktemp("kept") / "run"
    with_baseline(out, teacher, text, KEPT)
    return out


def with_baseline(out: Path, teacher: Path, text: Path, sets: tuple[str, ...]) -> None:
    given = dict(one.split("=") for one in (*SETTINGS, *sets))
    changes = {key: value if key == "teacher_cache" else json.loads(value) for key, value in given.items()}
    with open_run(out) as run:
        recipe = load_fill_mask_recipe(None, changes)
        distill_fill_mask_steps(run, recipe, teacher, [text], baseline=True)


def test_two_processes_use_one_teachers_answers(
    kept: Path, teacher: Path, text: Path, tmp_path: Path
) -> None:
    found = done(command(*words("distill", teacher, text, tmp_path / "run", sets=KEPT), processes=2))
    assert found.stderr.count("MB for 2 mask variants (top-k)") == 1 and "Traceback" not in found.stderr
    assert losses(tmp_path / "run") == pytest.approx(losses(kept), rel=5e-3)
    assert losses(kept)[-1] < losses(kept)[0]
    assert not (tmp_path / "run" / ".stillroom" / "work" / "student").exists()


def test_another_cache_makes_another_student_and_the_same_baseline(
    kept: Path, teacher: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sha256_file(kept / "student" / "model.safetensors")
    sets = (*KEPT[:2], "teacher_cache=fp16")
    with_baseline(kept, teacher, text, sets)
    said = capsys.readouterr().err
    assert "student: done again, because recipe.teacher_cache changed (top-k -> fp16)" in said
    assert "baseline: done before, kept" in said and "MB for 2 mask variants (fp16)" in said
    assert sha256_file(kept / "student" / "model.safetensors") != before
    lineage = json.loads((kept / "student" / "stillroom.json").read_text())["lineage"]["training"]
    assert lineage["teacher_cache"]["kind"] == "fp16" and lineage["masking"]["variants"] == 2


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith("stillroom: ")]
        assert captured.out == "" and len(lines) == 1 and "Traceback" not in captured.err
        return lines[0]

    return run


def test_mistakes_are_told(
    refused: Callable[..., str], tmp_path: Path, encoder: Path, teacher: Path, text: Path
) -> None:
    out = tmp_path / "run"
    assert "has no masked-LM head: stillroom teach --task fill-mask" in refused(
        *words("distill", encoder, text, out)
    )
    assert not (out / "corpus").exists()
    assert "no text: give --text FILE" in refused(*words("distill", teacher, None, out))
    assert "no such text file" in refused(*words("distill", teacher, tmp_path / "absent", out))
    assert "no model folder" in refused(*words("distill", text, text, out))
    assert "learning_rte" in refused(*words("distill", teacher, text, out, sets=("learning_rte=1",)))
    sets = ("mask_variants=1", "teacher_cache=top-k", "teacher_cache_k=201")
    assert "teacher_cache_k 201: the teacher's vocabulary has 200 tokens" in refused(
        *words("distill", teacher, text, tmp_path / "cached", sets=sets)
    )
    assert "--data is for labelled data: fill-mask takes --text" in refused(
        *words("distill", teacher, text, out, "--data", "x.csv")
    )
    assert "fill-mask needs --out" in refused("distill", "--task", "fill-mask", "--teacher", str(teacher))
    assert "no teacher: give --teacher FOLDER" in refused("distill", "--task", "fill-mask", "--out", str(out))
    assert "--text is for --task fill-mask" in refused("distill", "demo", "--text", str(text))
    assert "--max-length is for --task fill-mask" in refused("distill", "demo", "--max-length", "9")
    assert "run is for labelled data" in refused("run", "--task", "fill-mask")
    assert "--task regression: teach is for fill-mask" in refused(
        "teach", "--task", "regression", "--teacher", str(encoder), "--out", str(out)
    )
    assert "recipe 'full' is not for fill-mask" in refused(
        "distill", "full", *words("", teacher, text, out)[1:]
    )


def test_a_run_on_labelled_data_is_not_touched(
    refused: Callable[..., str], tmp_path: Path, teacher: Path, text: Path
) -> None:
    steps = tmp_path / "run" / ".stillroom" / "steps"
    steps.mkdir(parents=True)
    (steps / "data.json").write_text("{}")
    assert "holds a run on labelled data" in refused(*words("distill", teacher, text, tmp_path / "run"))


def test_exporting_a_fill_mask_model_says_what_to_do(
    refused: Callable[..., str], alone: Path, tmp_path: Path
) -> None:
    said = refused("export", str(alone / "student"), "--out", str(tmp_path / "out"))
    assert "fills masks and has no classification head: stillroom run RECIPE --teacher" in said
