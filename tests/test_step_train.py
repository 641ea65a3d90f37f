"""What is said of a trained model."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillroom.step_train import learned_nothing
from stillroom.steps import do_step, open_run


@pytest.mark.parametrize(("accuracy", "said"), [(0.4, True), (0.5, True), (0.51, False)])
def test_a_model_that_one_fixed_answer_equals_is_told(tmp_path: Path, accuracy: float, said: bool) -> None:
    counts = {"fixed_answer": "good", "fixed_answer_score": 0.5}
    with open_run(tmp_path / "run") as run:
        do_step(run, "data", {}, (), lambda: {"counts": counts})
        found = learned_nothing(run, {"test": {"accuracy": accuracy}})
    assert bool(found) == said
    assert not said or ("always answering 'good' (50.0% on test)" in found and "epochs" in found)
