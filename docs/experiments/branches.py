"""A run of `stillroom distill`, and others that keep its data and teacher: for full_recipe, transfer."""

import shutil
import sys
from pathlib import Path
from typing import Any

from stillroom.cli import main as stillroom
from stillroom.files import read_json


def distilled(
    recipe: str, seed: int, run: Path, trunk: Path, options: list[str]
) -> dict[str, dict[str, Any]]:
    """Records of a run's steps "teacher" and "student". Where it is not trunk itself, it starts as a copy."""
    if not run.exists() and run != trunk:
        partial = run.parent / f".{run.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(trunk, partial)  # data and teacher are kept, the student is made again
        partial.rename(run)
    if code := stillroom(["distill", recipe, "--seed", str(seed), "--out", str(run), *options]):
        sys.exit(code)
    return {step: read_json(run / ".stillroom" / "steps" / f"{step}.json") for step in ("teacher", "student")}
