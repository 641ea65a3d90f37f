"""What can go wrong, in one line each: the value seen, the value wanted, the next command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_SHOWN_CHARACTERS = 60


class StillroomError(Exception):
    """A mistake the user can mend. The command line prints its text and nothing else."""

    exit_code = 2


class UsageError(StillroomError):
    """Bad usage or bad input (exit code 2)."""


class CheckFailed(StillroomError):
    """A check was made and failed (exit code 1)."""

    exit_code = 1


class Terminated(StillroomError):
    """SIGTERM came, and what was done is saved (exit code 143, as the shell has it for this signal)."""

    exit_code = 143


def first_line(error: Exception) -> str:
    """What another library says went wrong, cut to one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def shown(value: object) -> str:
    """A value seen in a file, as one line of bounded length for a message."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the known name nearest to word, "" when none is near."""
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""
