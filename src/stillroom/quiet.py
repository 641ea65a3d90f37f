"""Silence the chatter of other libraries."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings of theirs, no progress bars, nothing printed; errors still raise."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        silenced = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(silenced),
            contextlib.redirect_stdout(silenced),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
