"""SIGTERM while training: the step under way is finished and saved, then the process leaves."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, NoReturn

from stillroom.errors import Terminated


class Termination:
    """A with-block in which SIGTERM only sets asked. Elsewhere than in the main thread it changes nothing."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def leave(self, line: str) -> NoReturn:
        """Raise Terminated, with a line for the user."""
        raise Terminated(f"{line}; the same command goes on from here")
