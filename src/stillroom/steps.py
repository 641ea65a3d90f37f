"""Steps of a run: each is done once, recorded with what it was made from, and redone when that changes."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.files import read_json, sha256_file, sha256_folder, sha256_json, write_json
from stillroom.processes import is_first, told_by_first, wait_for_first
from stillroom.progress import say

STATE = ".stillroom"  # step records, checkpoints and caches, inside the run folder


@dataclass(frozen=True)
class Run:
    """A run folder that this process has locked."""

    folder: Path

    @property
    def work(self) -> Path:
        """Folder for what only an unfinished step needs."""
        return self.folder / STATE / "work"

    def record(self, name: str) -> Path:
        return self.folder / STATE / "steps" / f"{name}.json"

    def facts(self, name: str) -> dict[str, Any]:
        """What a finished step recorded. Raises UsageError when it is not finished."""
        if not self.record(name).is_file():
            raise UsageError(f"{self.folder} has no finished step {name!r}: stillroom run first")
        return dict(read_json(self.record(name))["facts"])


# Folders that steps write
OUTPUTS = ("data", "corpus", "transfer", "teacher", "student", "baseline", "artifacts", "bundle", "report")


@contextmanager
def open_run(folder: Path, *, fresh: bool = False) -> Iterator[Run]:
    """Lock a run folder, making it if needed; fresh empties it first.

    Raises UsageError when the folder holds something else, or another process is at work in it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: --out needs a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STATE).is_dir():
        raise UsageError(f"{folder} is not empty and not a stillroom run: choose another --out")
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    if not is_first():
        yield Run(folder)  # the first process has the lock, for all of them
        return
    with (folder / STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"another stillroom is at work in {folder}: wait for it, or choose another --out"
            ) from None
        if fresh:
            more_teachers = (path.name for path in folder.glob("teacher-[0-9]*"))
            for name in (*OUTPUTS, *more_teachers):
                shutil.rmtree(folder / name, ignore_errors=True)
            for name in ("steps", "work"):
                shutil.rmtree(folder / STATE / name, ignore_errors=True)
        yield Run(folder)


def fingerprint(path: Path) -> str:
    """sha256 of a file, or of a folder's names and contents; "" when there is nothing."""
    if path.is_dir():
        return sha256_folder(path)
    return sha256_file(path) if path.is_file() else ""


def do_step(
    run: Run,
    name: str,
    made_from: dict[str, Any],
    outputs: tuple[str, ...],
    work: Callable[[], dict[str, Any]],
    *,
    together: bool = False,
) -> dict[str, Any]:
    """Do a step, or keep its result when it was made from the same things and its outputs are untouched.

    made_from: JSON values; a change is named to the user. outputs: paths in the run folder, each written
    whole by work. work returns the facts that later steps and the report need. together: of several
    processes all do the work, and the first alone writes; otherwise the others wait for the first.
    """
    if not is_first():
        if told_by_first(None) and together:
            work()
        wait_for_first()
        return run.facts(name)
    needed = _is_needed(run, name, made_from, outputs)
    told_by_first(needed)
    if not needed:
        wait_for_first()
        return run.facts(name)
    start = time.monotonic()
    facts = work()
    seconds = time.monotonic() - start
    write_json(
        run.record(name),
        {
            "made_from": made_from,
            "outputs": {path: fingerprint(run.folder / path) for path in outputs},
            "facts": facts,
            "seconds": round(seconds, 1),
        },
    )
    shutil.rmtree(run.work / name, ignore_errors=True)  # checkpoints and caches: their step is done
    say(f"{name}: done in {seconds:.0f} s")
    wait_for_first()
    return facts


def _is_needed(run: Run, name: str, made_from: dict[str, Any], outputs: tuple[str, ...]) -> bool:
    """Whether a step is to be done, said to the user; a record that no longer holds is removed."""
    if run.record(name).is_file():
        record = read_json(run.record(name))
        changed = _changes(record["made_from"], made_from)
        touched = [path for path in outputs if fingerprint(run.folder / path) != record["outputs"].get(path)]
        if not changed and not touched:
            say(f"{name}: done before, kept")
            return False
        reason = "; ".join(changed) if changed else f"{', '.join(touched)} changed on disk or is missing"
        say(f"{name}: done again, because {reason}")
        run.record(name).unlink()
    else:
        say(f"{name} ...")
    return True


def recorded(run: Run, *names: str) -> dict[str, str]:
    """Fingerprints of finished steps, for the made_from of a step that builds on them."""
    return {name: sha256_json(read_json(run.record(name))["outputs"]) for name in names}


def _changes(before: Any, now: Any, place: str = "") -> list[str]:
    """Human lines for what differs between two JSON values: recipe.student.epochs 3 -> 4."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in sorted({*before, *now}):
            lines += _changes(before.get(key), now.get(key), f"{place}.{key}" if place else key)
        return lines
    if before == now or (isinstance(before, list) and isinstance(now, tuple) and before == list(now)):
        return []
    shown = [str(value)[:12] + "..." if len(str(value)) == 64 else str(value)[:80] for value in (before, now)]
    return [f"{place} changed ({shown[0]} -> {shown[1]})"]
