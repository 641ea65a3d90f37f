"""Work in processes of its own: what a library keeps in memory, or breaks, ends with the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from stillroom.errors import UsageError


def apart(work: Callable[..., Any], calls: Sequence[tuple[Any, ...]], jobs: int = 1) -> Iterator[Any]:
    """What work(*call) returns for each call, in order, each in a new process, so many at a time.

    work: a function of a module, so that another process finds it. Raises what it raises, and UsageError when
    its process was killed.
    """
    try:
        with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
            for waiting in [pool.submit(work, *call) for call in calls]:
                yield waiting.result()
    except BrokenProcessPool:
        raise UsageError(
            f"a process that did {work.__name__} was killed, most likely for memory: free some and run the "
            "same command again"
        ) from None
