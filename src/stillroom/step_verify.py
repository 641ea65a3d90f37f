"""Step "verify": the proof that files equal their source; and the same for a finished run or a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.apart import apart
from stillroom.errors import CheckFailed, UsageError
from stillroom.kinds import all_scores
from stillroom.progress import say
from stillroom.recipe import Recipe
from stillroom.step_data import encode
from stillroom.step_export import artifact_sources
from stillroom.steps import Run, do_step, recorded
from stillroom.task import TaskSpec

FORM = 2  # of the step's facts: another form verifies again
VERIFY_THREADS = os.cpu_count() or 1


def verify_step(run: Run, recipe: Recipe) -> dict[str, Any]:
    """Every artifact against its source on the test split; stops the run when one differs too much."""

    def work() -> dict[str, Any]:
        facts = {}
        for name, proof in verify_artifacts(run, artifact_sources(recipe)):
            if proof["failure"]:
                raise CheckFailed(proof["failure"])
            facts[name] = proof
            if not proof["cases"]:
                say(f"  {name}: {proof['proof']}")
                continue
            say(
                f"  {name}: equal to its source within tolerance in {len(proof['cases'])} cases; on the test "
                f"split max abs error {proof['max_abs_error']:.2g}, cosine {proof['cosine']:.5f}, "
                f"label flips {proof['flip_rate']:.2%}"
                + ("" if proof["proof"] == "run" else f" ({proof['proof']})")
            )
        return facts

    made_from = {"form": FORM, **recorded(run, "data", "teacher", "student", "export")}
    return do_step(run, "verify", made_from, (), work)


def verify_artifacts(
    run: Run, sources: dict[str, str], threads: int = VERIFY_THREADS, artifacts: Path | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compare artifacts with the model folders they were made from; "failure" is "" when one holds.

    sources: artifact name -> model folder in the run. artifacts: where they lie, if not in the run's own
    folder of them. One that nothing here can open has no cases.
    """
    from stillroom.artifact import load_artifact
    from stillroom.benchmarks.quality import quality
    from stillroom.export.targets import TARGETS, opens_here
    from stillroom.export.verify import failure, feedings, verify
    from stillroom.student import load_student

    made: dict[tuple[str, int], Any] = {}  # (source, max_length) -> feedings, labels

    def fed_for(source: str, task: TaskSpec) -> Any:
        key = (source, task.max_length)
        if key not in made:
            folder = run.folder / source
            tokens, texts = encode(run, folder, task, "test")
            whole = load_student(folder).task.max_length == task.max_length
            saved = folder / "test_logits.npy"
            known = np.load(saved, allow_pickle=False) if whole and saved.is_file() else None
            made[key] = feedings(folder, task, tokens, texts, known), tokens.labels
        return made[key]

    for name, source in sources.items():
        artifact = load_artifact((artifacts or run.folder / "artifacts") / name)
        proof = TARGETS[artifact.target].proof
        if not opens_here(artifact.target):
            yield name, {"proof": proof, "cases": [], "failure": ""}
            continue
        fed, labels = fed_for(source, artifact.task)
        found = verify(name, artifact, fed, threads)
        whole = found.cases[0].agreement  # the test split as it is
        scores = all_scores(artifact.task.kind, found.logits, labels)
        of_source = all_scores(artifact.task.kind, fed[0].wanted, labels)
        others = {**known_answers(run), source: fed[0].wanted}
        yield (
            name,
            {
                "scores": scores,
                "quality": quality(
                    artifact.task.kind, artifact.task.labels, found.logits, labels, others, source
                ),
                "score_change": {score: value - of_source[score] for score, value in scores.items()},
                "flip_rate": whole.flip_rate,
                "max_abs_error": whole.max_abs_error,
                "cosine": whole.cosine,
                "proof": proof,
                "cases": found.facts(),
                "failure": failure(found, artifact.tolerance),
            },
        )


def known_answers(run: Run) -> dict[str, np.ndarray]:
    """The teacher's and the student's logits on the test split, as their steps saved them."""
    paths = {name: run.folder / name / "test_logits.npy" for name in ("teacher", "student")}
    return {name: np.load(path, allow_pickle=False) for name, path in paths.items() if path.is_file()}


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
        threads = max(1, VERIFY_THREADS // jobs)
        calls = [(folder, name, source, threads) for name, source in sources.items()]
        proofs = dict(apart(_verify_one, calls, jobs))
    else:
        proofs = dict(verify_artifacts(run, sources))
    return passed_table(proofs), proofs


def _verify_one(folder: Path, name: str, source: str, threads: int) -> tuple[str, dict[str, Any]]:
    (found,) = verify_artifacts(Run(folder), {name: source}, threads)
    return found


def verify_bundle(folder: Path) -> tuple[str, dict[str, Any]]:
    """Replay a bundle's golden vectors, then feed them in other ways that should not change the answers.

    The same table as of a run, of the files alone. Raises CheckFailed when an answer is out of tolerance.
    """
    from stillroom.export.bundle import load_bundle, read_goldens, replay_goldens
    from stillroom.export.verify import failure, golden_feedings, verify
    from stillroom.text import Row
    from stillroom.tokens import encode_rows

    bundle = load_bundle(folder)
    golden, goldens = bundle.manifest["golden"], read_goldens(bundle)
    error = replay_goldens(bundle)
    rows = [Row(entry["text"], entry.get("pair"), "") for entry in goldens]
    tokens = encode_rows(bundle.tokenizer, rows, bundle.task, bundle.manifest["pad_id"])
    logits = np.array([entry["logits"] for entry in goldens], dtype=np.float32)
    fed = golden_feedings(bundle.task, tokens, [row.text for row in rows], logits)
    artifact = bundle.artifact
    found = verify(f"{artifact.target}-{artifact.scheme}", artifact, fed, VERIFY_THREADS)
    proof = {"proof": artifact.proof, "cases": found.facts(), "failure": failure(found, artifact.tolerance)}
    table = passed_table({found.artifact: proof})
    line = (
        f"{folder}: checksums hold; {golden['count']} golden vectors replayed, same token ids, "
        f"max abs error {error:.2g} (allowed {golden['max_abs_error']:g})"
    )
    return f"{table}\n{line}", {
        "goldens": golden["count"], "max_abs_error": error, "allowed": golden["max_abs_error"],
        found.artifact: proof,
    }  # fmt: skip


def passed_table(proofs: dict[str, dict[str, Any]]) -> str:
    """The table of artifacts that all hold. Raises CheckFailed, after showing it, when one does not."""
    table = proof_table(proofs)
    for proof in proofs.values():
        if proof["failure"]:
            say(table)
            raise CheckFailed(proof["failure"])
    return table


def proof_table(proofs: dict[str, dict[str, Any]]) -> str:
    """Artifacts x cases; the change of the score that counts, where it is known, beside the first."""
    width = max(len(name) for name in ("artifact", *proofs)) + 2
    scored = any("score_change" in proof for proof in proofs.values())
    head = f"{'artifact':<{width}}{'case':<30}{'max abs error':>14}{'cosine':>10}{'flips':>9}"
    lines = [f"{head}{'score':>9}  result" if scored else f"{head}  result"]
    for name, proof in proofs.items():
        changes = iter(f"{100 * change:+.2f}" for change in proof.get("score_change", {}).values())
        first = next(changes, "")
        for at, case in enumerate(proof["cases"]):
            found = case["agreement"]
            change = f"{'' if at else first:>9}" if scored else ""
            lines.append(
                f"{name:<{width}}{case['name']:<30}{found['max_abs_error']:>14.3g}{found['cosine']:>10.5f}"
                f"{found['flip_rate']:>9.2%}{change}  {'ok' if case['passed'] else 'FAILED'}"
            )
        if proof["proof"] != "run":
            lines.append(f"{name:<{width}}{proof['proof']}")
    if scored:
        lines.append("score: change against the source on the test split, in hundredths of the score")
    return "\n".join(lines)
