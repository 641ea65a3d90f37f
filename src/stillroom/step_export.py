"""Steps "export", "verify" and "bundle": files, the proof that they equal their source, and the bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import CheckFailed
from stillroom.files import staged_folder
from stillroom.kinds import all_scores
from stillroom.progress import say
from stillroom.recipe import Recipe
from stillroom.step_data import encode
from stillroom.steps import Run, do_step, recorded

VERIFY_THREADS = os.cpu_count() or 1
TEACHER_ARTIFACT = "teacher-onnx-fp32"  # the yardstick: the teacher as other exporters write it


def artifact_sources(recipe: Recipe) -> dict[str, str]:
    """Artifact name -> the model folder in the run it is made from."""
    return {TEACHER_ARTIFACT: "teacher", **{name: "student" for name in recipe.export.artifacts}}


def export_step(run: Run, recipe: Recipe) -> dict[str, Any]:
    """artifacts/: the student in every format and scheme asked for, and the teacher as a yardstick."""
    from stillroom.export.targets import export, split_name
    from stillroom.progress import progress_bar

    for name in recipe.export.artifacts:
        split_name(name)

    def work() -> dict[str, Any]:
        sources, facts = artifact_sources(recipe), {}
        with (
            staged_folder(run.folder / "artifacts") as partial,
            progress_bar(len(sources), "export", "file") as bar,
        ):
            for name, source in sources.items():
                target, scheme = split_name(name.removeprefix("teacher-"))
                made = export(
                    run.folder / source, target, scheme, partial / name, shorten=source == "student"
                )
                facts[name] = {
                    "target": target, "scheme": scheme, "source": source, "parameters": made.parameters,
                    "size_bytes": made.size_bytes, "tolerance": made.tolerance,
                }  # fmt: skip
                bar.update(1)
        return facts

    made_from = {"artifacts": list(recipe.export.artifacts), **recorded(run, "teacher", "student")}
    return do_step(run, "export", made_from, ("artifacts",), work)


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


def verify_artifacts(run: Run, sources: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compare artifacts with the model folders they were made from; "failure" is "" when one holds.

    sources: artifact name -> model folder in the run.
    """
    from stillroom.artifact import load_artifact
    from stillroom.export.verify import failure, feedings, verify
    from stillroom.student import load_student

    for source in dict.fromkeys(sources.values()):
        folder = run.folder / source
        task = load_student(folder).task
        tokens, texts = encode(run, folder, task, "test")
        fed = feedings(folder, task, tokens, np.load(folder / "test_logits.npy", allow_pickle=False))
        for name in (name for name, made_from in sources.items() if made_from == source):
            artifact = load_artifact(run.folder / "artifacts" / name)
            found = verify(name, artifact, fed, tokens, texts, VERIFY_THREADS)
            whole = found.cases[0].agreement  # the test split as it is
            yield (
                name,
                {
                    "scores": all_scores(task.kind, found.logits, tokens.labels),
                    "flip_rate": whole.flip_rate,
                    "max_abs_error": whole.max_abs_error,
                    "cosine": whole.cosine,
                    "cases": found.facts(),
                    "failure": failure(found, artifact.tolerance),
                },
            )


def verify_run(folder: Path) -> tuple[str, dict[str, Any]]:
    """Compare every artifact of a run with its source again: a table for people, and the same as JSON.

    Raises CheckFailed, after printing the table, when an artifact is out of tolerance.
    """
    run = Run(folder)
    made = run.facts("export")
    proofs = dict(verify_artifacts(run, {name: facts["source"] for name, facts in made.items()}))
    lines = [f"{'artifact':<24}{'case':<30}{'max abs error':>14}{'cosine':>10}{'flips':>9}  result"]
    for name, proof in proofs.items():
        for case in proof["cases"]:
            found = case["agreement"]
            lines.append(
                f"{name:<24}{case['name']:<30}{found['max_abs_error']:>14.3g}{found['cosine']:>10.5f}"
                f"{found['flip_rate']:>9.2%}  {'ok' if case['passed'] else 'FAILED'}"
            )
    failures = [proof["failure"] for proof in proofs.values() if proof["failure"]]
    if failures:
        say("\n".join(lines))
        raise CheckFailed(failures[0])
    return "\n".join(lines), proofs


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
