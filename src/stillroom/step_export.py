"""Steps "export", "verify" and "bundle": files, the proof that they equal their source, and the bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import CheckFailed, UsageError
from stillroom.files import staged_folder
from stillroom.kinds import all_scores
from stillroom.progress import say
from stillroom.recipe import Recipe
from stillroom.step_data import encode
from stillroom.steps import Run, do_step, recorded
from stillroom.task import TaskSpec

VERIFY_THREADS = os.cpu_count() or 1
TEACHER_ARTIFACT = "teacher-onnx-fp32"  # the yardstick: the teacher as other exporters write it


def artifact_sources(recipe: Recipe) -> dict[str, str]:
    """Artifact name -> the model folder in the run it is made from."""
    return {TEACHER_ARTIFACT: "teacher", **{name: "student" for name in recipe.export.artifacts}}


def export_step(run: Run, recipe: Recipe) -> dict[str, Any]:
    """artifacts/: the student in every format and scheme asked for, and the teacher as a yardstick."""
    from stillroom.export.options import ExportOptions
    from stillroom.export.targets import export, split_name
    from stillroom.progress import progress_bar

    for name in recipe.export.artifacts:
        split_name(name)

    def work() -> dict[str, Any]:
        sources, facts = artifact_sources(recipe), {}
        calibration = calibration_rows(run) if any("static" in name for name in sources) else ()
        with (
            staged_folder(run.folder / "artifacts") as partial,
            progress_bar(len(sources), "export", "file") as bar,
        ):
            for name, source in sources.items():
                target, scheme = split_name(name.removeprefix("teacher-"))
                options = ExportOptions(shorten=source == "student", calibration=calibration)
                made = export(run.folder / source, target, scheme, partial / name, options)
                facts[name] = {
                    "target": target, "scheme": scheme, "source": source, "parameters": made.parameters,
                    "size_bytes": made.size_bytes, "tolerance": made.tolerance,
                }  # fmt: skip
                bar.update(1)
        return facts

    made_from = {"artifacts": list(recipe.export.artifacts), **recorded(run, "teacher", "student")}
    return do_step(run, "export", made_from, ("artifacts",), work)


def calibration_rows(run: Run) -> Any:
    """Training rows of the run as the student's inputs: what static schemes measure their ranges on."""
    from stillroom.export.calibration import calibration_of
    from stillroom.student import load_student

    folder = run.folder / "student"
    task = load_student(folder).task
    return calibration_of(encode(run, folder, task, "train")[0], task.inputs)


def verify_step(run: Run, recipe: Recipe) -> dict[str, Any]:
    """Every artifact against its source on the test split; stops the run when one differs too much."""

    def work() -> dict[str, Any]:
        facts = {}
        for name, proof in verify_artifacts(run, artifact_sources(recipe)):
            if proof["failure"]:
                raise CheckFailed(proof["failure"])
            say(
                f"  {name}: equal to its source within tolerance in {len(proof['cases'])} cases; on the test "
                f"split max abs error {proof['max_abs_error']:.2g}, cosine {proof['cosine']:.5f}, "
                f"label flips {proof['flip_rate']:.2%}"
            )
            facts[name] = proof
        return facts

    return do_step(run, "verify", recorded(run, "data", "teacher", "student", "export"), (), work)


def verify_artifacts(
    run: Run, sources: dict[str, str], threads: int = VERIFY_THREADS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compare artifacts with the model folders they were made from; "failure" is "" when one holds.

    sources: artifact name -> model folder in the run.
    """
    from stillroom.artifact import load_artifact
    from stillroom.export.verify import failure, feedings, verify
    from stillroom.student import load_student

    made: dict[tuple[str, int], Any] = {}  # (source, max_length) -> feedings, labels

    def fed_for(source: str, task: TaskSpec) -> Any:
        key = (source, task.max_length)
        if key not in made:
            folder = run.folder / source
            tokens, texts = encode(run, folder, task, "test")
            whole = load_student(folder).task.max_length == task.max_length
            known = np.load(folder / "test_logits.npy", allow_pickle=False) if whole else None
            made[key] = feedings(folder, task, tokens, texts, known), tokens.labels
        return made[key]

    for name, source in sources.items():
        artifact = load_artifact(run.folder / "artifacts" / name)
        fed, labels = fed_for(source, artifact.task)
        found = verify(name, artifact, fed, threads)
        whole = found.cases[0].agreement  # the test split as it is
        scores = all_scores(artifact.task.kind, found.logits, labels)
        of_source = all_scores(artifact.task.kind, fed[0].wanted, labels)
        yield (
            name,
            {
                "scores": scores,
                "score_change": {score: value - of_source[score] for score, value in scores.items()},
                "flip_rate": whole.flip_rate,
                "max_abs_error": whole.max_abs_error,
                "cosine": whole.cosine,
                "proof": artifact.proof,
                "cases": found.facts(),
                "failure": failure(found, artifact.tolerance),
            },
        )


def verify_run(folder: Path, jobs: int = 0) -> tuple[str, dict[str, Any]]:
    """Compare every artifact of a run with its source again: a table for people, and the same as JSON.

    jobs: 0, one after the other in this process; else so many at a time, each in a process of its own.
    Raises CheckFailed, after printing the table, when an artifact is out of tolerance, UsageError for
    jobs below 0.
    """
    if jobs < 0:
        raise UsageError(f"--jobs {jobs}: expected 1 or more, or nothing for this process alone")
    run = Run(folder)
    sources = {name: facts["source"] for name, facts in run.facts("export").items()}
    if jobs:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
            threads = max(1, VERIFY_THREADS // jobs)
            waiting = [pool.submit(_verify_one, folder, *pair, threads) for pair in sources.items()]
            proofs = dict(found.result() for found in waiting)
    else:
        proofs = dict(verify_artifacts(run, sources))
    failures = [proof["failure"] for proof in proofs.values() if proof["failure"]]
    if failures:
        say(proof_table(proofs))
        raise CheckFailed(failures[0])
    return proof_table(proofs), proofs


def _verify_one(folder: Path, name: str, source: str, threads: int) -> tuple[str, dict[str, Any]]:
    (found,) = verify_artifacts(Run(folder), {name: source}, threads)
    return found


def proof_table(proofs: dict[str, dict[str, Any]]) -> str:
    """Artifacts x cases; the change of the score that counts beside the test split."""
    width = max(len(name) for name in ("artifact", *proofs)) + 2
    lines = [
        f"{'artifact':<{width}}{'case':<30}{'max abs error':>14}{'cosine':>10}{'flips':>9}{'score':>9}"
        "  result"
    ]
    for name, proof in proofs.items():
        changes = iter([f"{100 * next(iter(proof['score_change'].values())):+.2f}"])
        for case in proof["cases"]:
            found = case["agreement"]
            lines.append(
                f"{name:<{width}}{case['name']:<30}{found['max_abs_error']:>14.3g}{found['cosine']:>10.5f}"
                f"{found['flip_rate']:>9.2%}{next(changes, ''):>9}  {'ok' if case['passed'] else 'FAILED'}"
            )
        if proof["proof"] != "run":
            lines.append(f"{name:<{width}}{proof['proof']}")
    lines.append("score: change against the source on the test split, in hundredths of the score")
    return "\n".join(lines)


def bundle_step(run: Run, recipe: Recipe) -> dict[str, Any]:
    """bundle/: what the app takes; its golden vectors are replayed once from the written files."""

    def work() -> dict[str, Any]:
        from stillroom.export.bundle import load_bundle, replay_goldens, write_bundle

        chosen = run.folder / "artifacts" / recipe.export.bundle
        manifest = write_bundle(recipe.name, chosen, run.folder / "student", run.folder / "bundle")
        error = replay_goldens(load_bundle(run.folder / "bundle"))
        return {"goldens": manifest["golden"]["count"], "golden_max_abs_error": error}

    made_from = {"bundle": recipe.export.bundle, "name": recipe.name, **recorded(run, "student", "export")}
    return do_step(run, "bundle", made_from, ("bundle",), work)
