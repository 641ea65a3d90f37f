"""Numbers to predict may have any unit, a head learns best in standard deviations: so it is trained in them.

While it trains, a regression head answers (score - mean) / deviation; afterwards its last layer is folded
back, and the model answers in the scores' own unit. The two are the same function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stillroom.families import family_of
from stillroom.tokens import Tokens


@dataclass(frozen=True)
class ScoreScale:
    """mean and deviation of the training rows' scores; 0 and 1 for every other kind of task."""

    mean: float = 0.0
    deviation: float = 1.0

    def standardised(self, values: torch.Tensor) -> torch.Tensor:
        """Scores in standard deviations from the mean; any shape."""
        return (values - self.mean) / self.deviation


def score_scale(tokens: Tokens, kind: str) -> ScoreScale:
    """The scale of the rows' scores; rows without one (nan) do not count."""
    if kind != "regression":
        return ScoreScale()
    scores = tokens.labels[np.isfinite(tokens.labels)].astype(np.float64)
    return ScoreScale(float(scores.mean()), float(scores.std()) or 1.0)


def last_linear(model: Any) -> Any:
    """The layer that gives the logits of a ...ForSequenceClassification model."""
    return model.get_submodule(family_of(model.config.model_type).answer)


@contextlib.contextmanager
def trained_in(scale: ScoreScale, model: Any, *, new_head: bool = False) -> Iterator[None]:
    """Inside, the model answers in standard deviations from the mean; outside, in the scores' own unit.

    new_head: its answers mean nothing yet, so they are near the mean from the start.
    """
    if scale == ScoreScale():
        yield
        return
    head = last_linear(model)
    if not new_head:
        with torch.no_grad():
            head.weight.div_(scale.deviation)
            head.bias.sub_(scale.mean).div_(scale.deviation)
    yield
    with torch.no_grad():
        head.weight.mul_(scale.deviation)
        head.bias.mul_(scale.deviation).add_(scale.mean)
