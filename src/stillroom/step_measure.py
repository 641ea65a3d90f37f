"""Step "measure": every model and file timed side by side, in sweeps, and beside what the machine can do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from stillroom.recipe import Recipe, recipe_to_dict
from stillroom.splits import load_splits
from stillroom.step_data import encode
from stillroom.steps import Run, do_step, recorded

FORM = 2  # of this step's facts: another form measures again


def model_roles(*, baselines: bool) -> dict[str, tuple[str, str]]:
    """Row name -> (folder in the run, role)."""
    rows = {
        "teacher": ("teacher", "teacher"),
        "student-plain": ("baseline", "baseline"),
        "student": ("student", "student"),
    }
    return rows if baselines else {name: row for name, row in rows.items() if name != "student-plain"}


def measure_step(run: Run, recipe: Recipe, *, baselines: bool) -> dict[str, Any]:
    """Time and memory of every model and artifact, each in fresh processes, interleaved.

    Then sweeps over threads, lengths and batches of the files, and where the time of onnxruntime's goes. Its
    facts hold no texts and no token ids: they are the user's.
    """

    def work() -> dict[str, Any]:
        from stillroom.benchmarks.limits import limits_beside
        from stillroom.benchmarks.machine import describe_machine, usable_cores
        from stillroom.benchmarks.measure import Subject, measure
        from stillroom.benchmarks.noise import AGAIN, noise_facts, with_again
        from stillroom.benchmarks.sweep import sweep
        from stillroom.benchmarks.tokenization import time_tokenizer
        from stillroom.benchmarks.workload import Workload
        from stillroom.student import load_student

        student = run.folder / "student"
        task = load_student(student).task
        tokens, _ = encode(run, student, task, "test")
        lengths = tuple(sorted({min(length, task.max_length) for length in recipe.measure.lengths}))
        plan = recipe.measure
        ids = tuple(int(token) for token in np.resize(tokens.ids, max(lengths)))
        rows, _ = encode(run, student, task, "validation")
        workload = Workload(
            ids,
            lengths,
            plan.rounds,
            plan.samples,
            plan.warmup,
            plan.threads,
            evaluation=tuple(tuple(row.tolist()) for row in np.split(rows.ids, rows.offsets[1:-1])),
        )
        exported = run.facts("export").items()
        timed = {name: facts["target"] for name, facts in exported if facts["proof"] == "run"}
        files = [
            Subject(name, target, str(run.folder / "artifacts" / name), task.inputs)
            for name, target in timed.items()  # an interpreter's time says nothing about the file
        ]
        models = [
            Subject(name, "torch", str(run.folder / folder), task.inputs)
            for name, (folder, _) in model_roles(baselines=baselines).items()
        ]
        subjects = [*models, *files]
        measured = measure(with_again(subjects), workload)
        noise = noise_facts(measured, subjects[-1].name)
        texts = [(row.text, row.pair) for row in load_splits(run.folder / "data").validation]
        return {
            "rows": {name: asdict(found) for name, found in measured.items() if name != AGAIN},
            "workload": workload.to_dict(),
            "noise": noise,
            "tokenization_samples_ms": time_tokenizer(student, task.max_length, texts),
            "sweeps": sweep(files, ids, usable_cores()) if plan.sweeps else [],
            "limits": limits_beside(subjects, workload) if plan.sweeps else None,
            "machine": describe_machine(plan.threads),
        }

    made_from = {
        "form": FORM,
        "recipe": recipe_to_dict(recipe)["measure"],
        "baselines": baselines,
        **recorded(run, "data", "teacher", "student", "export", *(("baseline",) if baselines else ())),
    }
    return do_step(run, "measure", made_from, (), work)
