"""The models that a search exports: a run's student with fewer tokens, for shorter texts, of other depth."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import Terminated
from stillroom.files import staged_folder
from stillroom.progress import say
from stillroom.recipe import Recipe, override
from stillroom.splits import load_splits
from stillroom.step_data import encode, encode_for
from stillroom.step_student import cut_vocabulary, teacher_names
from stillroom.step_transfer import load_transfer
from stillroom.steps import STATE, Run, open_run
from stillroom.student import load_model, load_student, save_student

if TYPE_CHECKING:
    from stillroom.export.search import Candidate

LENGTH_STEP = 8  # lengths tried are multiples of it
LONG_TEXT = 0.99  # share of the training rows that a shorter length still reads whole


def shorter_lengths(run: Run) -> tuple[int, ...]:
    """Lengths worth trying: what nearly all training rows fit in, and half of what the student reads."""
    folder = run.folder / "student"
    task = load_student(folder).task
    tokens, _ = encode(run, folder, task, "train")
    long = int(np.quantile(tokens.lengths, LONG_TEXT, method="higher"))
    wanted = {-(-long // LENGTH_STEP) * LENGTH_STEP, task.max_length // 2}
    return tuple(sorted(length for length in wanted if LENGTH_STEP <= length < task.max_length))


def model_of(run: Run, recipe: Recipe, candidate: Candidate, work: Path, ends: float) -> Path:
    """The model folder that a candidate is exported from, made in work unless it is there.

    ends: time.monotonic() at which training a student of another depth stops, raising Terminated; it goes on
    from there when it is asked for again.
    """
    base = run.folder / "student"
    if candidate.layers:
        base = _student_of_depth(run, recipe, candidate.layers, work, ends)
    if not candidate.vocabulary and not candidate.max_length:
        return base
    out = work / "models" / candidate.model.name
    if (out / "stillroom.json").is_file():
        return out
    from stillroom.export.search import TRIM

    student, model = load_student(base), load_model(base)
    tokenizer_json = (base / "tokenizer.json").read_text(encoding="utf-8")
    rows = (*load_splits(run.folder / "data").train, *load_transfer(run))
    wanted = {TRIM: "trim", 0: "all"}.get(candidate.vocabulary, candidate.vocabulary)
    cutting = override(recipe, {"student.vocabulary": wanted})
    ids = np.unique(encode_for(base, student.task, rows).ids)
    start = cut_vocabulary(cutting, model, tokenizer_json, student.task, rows, ids)
    task = replace(start.task, max_length=candidate.max_length or start.task.max_length)
    with staged_folder(out) as partial:
        save_student(partial, start.model, start.tokenizer_json, task, {**student.lineage, **start.facts})
    return out


def _student_of_depth(run: Run, recipe: Recipe, layers: int, work: Path, ends: float) -> Path:
    """A student of so many layers, by the run's own recipe, in a run of its own with the same teacher."""
    from stillroom.pipeline import distill_pipeline

    folder = work / f"layers-{layers}"
    shared = ("data", "transfer", *teacher_names(recipe))
    if not (folder / STATE / "steps").is_dir():
        with staged_folder(folder) as partial:
            (partial / STATE / "steps").mkdir(parents=True)
            for name in shared:
                if (run.folder / name).is_dir():
                    # Links: a run's folders are replaced whole and never written into.
                    shutil.copytree(run.folder / name, partial / name, copy_function=os.link)
                if run.record(name).is_file():
                    shutil.copyfile(run.record(name), partial / STATE / "steps" / f"{name}.json")
    say(f"a student of {layers} layers, by the run's recipe:")
    with open_run(folder) as other, _until(ends):
        distill_pipeline(other, override(recipe, {"student.layers": layers}))
    return folder / "student"


@contextmanager
def _until(ends: float) -> Iterator[None]:
    """Have training save its state and raise Terminated, as SIGTERM does, at time.monotonic() = ends."""

    def leave(*_: Any) -> None:
        raise Terminated(
            "the time limit came before the student was trained; the same command goes on from here"
        )

    handlers = {signal.SIGALRM: lambda *_: os.kill(os.getpid(), signal.SIGTERM), signal.SIGTERM: leave}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.setitimer(signal.ITIMER_REAL, max(0.001, ends - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
