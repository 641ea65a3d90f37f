"""Work in processes of its own: results in order, errors as they were, and a killed process in one line."""

from __future__ import annotations

import os
import signal

import pytest

from stillroom.apart import apart
from stillroom.errors import CheckFailed, UsageError


def answer(number: int) -> tuple[int, int]:
    return number, os.getpid()


def fail(number: int) -> None:
    raise CheckFailed(f"seen {number}, wanted 0")


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_order_from_processes_of_their_own(jobs: int) -> None:
    found = list(apart(answer, [(3,), (1,), (2,)], jobs))
    assert [number for number, _ in found] == [3, 1, 2]
    assert len({process for _, process in found} | {os.getpid()}) == 4


def test_an_error_is_the_one_that_was_raised() -> None:
    with pytest.raises(CheckFailed, match="seen 7, wanted 0"):
        list(apart(fail, [(7,)]))


def test_a_killed_process_is_said_in_one_line() -> None:
    with pytest.raises(UsageError, match="a process that did die was killed, most likely for memory"):
        list(apart(die, [(7,)]))
