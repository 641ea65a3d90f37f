"""The inputs that are timed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stillroom.benchmarks.workload import Workload, inputs_at, inputs_of
from stillroom.errors import UsageError

WORKLOAD = Workload(
    token_ids=(101, 7, 8, 9, 102), lengths=(2, 4), rounds=1, samples=1, warmup=0, threads=1, batch_size=3
)


def test_inputs_are_the_first_ids_in_the_asked_order() -> None:
    inputs = inputs_at(WORKLOAD, 4, ("input_ids", "attention_mask", "token_type_ids"))
    assert list(inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(value.dtype == np.int64 and value.shape == (3, 4) for value in inputs.values())
    assert inputs["input_ids"].tolist() == [[101, 7, 8, 9]] * 3
    assert inputs["attention_mask"].all() and not inputs["token_type_ids"].any()
    assert list(inputs_at(WORKLOAD, 2, ("input_ids", "attention_mask"))) == ["input_ids", "attention_mask"]


def test_inputs_of_one_text_are_a_batch_of_one() -> None:
    inputs = inputs_of((101, 7, 102), ("input_ids", "attention_mask", "token_type_ids"))
    assert {name: value.tolist() for name, value in inputs.items()} == {
        "input_ids": [[101, 7, 102]],
        "attention_mask": [[1, 1, 1]],
        "token_type_ids": [[0, 0, 0]],
    }


def test_the_facts_that_are_kept_hold_no_ids() -> None:
    facts = replace(WORKLOAD, evaluation=((101, 5, 102), (101, 102))).to_dict()
    assert facts == {
        "lengths": [2, 4],
        "rounds": 1,
        "samples": 1,
        "warmup": 0,
        "threads": 1,
        "batch_size": 3,
        "evaluation_rows": 2,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": (2, 6)},
        {"lengths": ()},
        {"lengths": (2, 2)},
        {"lengths": (0,)},
        {"rounds": 0},
        {"samples": 0},
        {"warmup": -1},
        {"threads": 0},
        {"batch_size": 0},
        {"token_ids": (1, 2, 3, -1, 5)},
        {"evaluation": ((1, 2), ())},
        {"evaluation": ((1, -2),)},
    ],
)
def test_impossible_workloads_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(WORKLOAD, **change)


def test_unknown_inputs_and_lengths_are_refused() -> None:
    with pytest.raises(UsageError, match="position_ids"):
        inputs_at(WORKLOAD, 2, ("input_ids", "position_ids"))
    with pytest.raises(UsageError, match="length 6"):
        inputs_at(WORKLOAD, 6, ("input_ids",))
