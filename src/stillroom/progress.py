"""Progress bars with time left, on standard error, so that --json owns standard output."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from stillroom.processes import is_first


def progress_bar(total: int, description: str, unit: str) -> tqdm[Any]:
    """A bar that shows time left; in a log file it prints at most a line every ten seconds.

    description: "" for no bar.
    """
    interactive = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=f"  {description}",
        unit=unit,
        file=sys.stderr,
        dynamic_ncols=interactive,
        mininterval=0.2 if interactive else 10.0,
        leave=True,
        disable=not description or not is_first(),
    )


def say(line: str) -> None:
    """Tell the user one line, on standard error. Of several processes only the first speaks."""
    if is_first():
        print(line, file=sys.stderr, flush=True)
