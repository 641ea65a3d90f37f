"""Real text as the inputs that static schemes measure their ranges on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stillroom.tokens import Tokens, padded_inputs, spread_rows

ROWS = 128  # more change the ranges by less than another draw of as many does


def calibration_of(
    tokens: Tokens, inputs: Sequence[str], rows: int = ROWS
) -> tuple[tuple[np.ndarray, ...], ...]:
    """So many rows, evenly spread, one by one at their own length: padding is not part of any range."""
    chosen = spread_rows(len(tokens), rows)
    return tuple(tuple(padded_inputs(tokens, [row], inputs).values()) for row in chosen)
