"""The task contract comes back from JSON as it was, and nothing else passes for one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import UsageError
from stillroom.task import INPUT_NAMES, TaskSpec, task_from_dict

GOOD: dict[str, Any] = TaskSpec(("bad", "good"), 128, INPUT_NAMES[:2]).to_dict()

tasks = st.builds(
    TaskSpec,
    labels=st.lists(st.text(max_size=8), min_size=2, max_size=5).map(tuple),
    max_length=st.integers(2, 512),
    inputs=st.sampled_from([INPUT_NAMES[:2], INPUT_NAMES]),
    pair=st.booleans(),
)


@given(tasks)
def test_round_trip_through_json(task: TaskSpec) -> None:
    assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_a_task_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TaskSpec(("a", "b"), 8, INPUT_NAMES).max_length = 9  # type: ignore[misc]


@pytest.mark.parametrize("key", GOOD)
def test_every_key_is_needed(key: str) -> None:
    assert task_from_dict(GOOD).to_dict() == GOOD
    with pytest.raises(UsageError, match=f"not a task description.*{key}"):
        task_from_dict({name: value for name, value in GOOD.items() if name != key})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": ["input_ids"]}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": ["attention_mask", "input_ids"]}, "inputs"),
        ({"inputs": ["input_ids", "token_type_ids"]}, "inputs"),
        ({"inputs": [*INPUT_NAMES, "position_ids"]}, "inputs"),
        ({"labels": ["only one"]}, "at least 2 labels"),
        ({"labels": []}, "at least 2 labels"),
        ({"labels": [], "kind": "multi-label", "metric": "micro_f1"}, "at least 1 labels"),
        ({"kind": "poetry"}, "expected one of text-classification, multi-label, regression"),
        ({"kind": "regression"}, "metric"),
        ({"labels": 7}, "not a task description"),
        ({"labels": None}, "not a task description"),
        ({"max_length": 1}, "max_length of at least 2"),
        ({"max_length": -5}, "max_length of at least 2"),
        ({"max_length": "long"}, "not a task description"),
        ({"max_length": None}, "not a task description"),
        ({"max_length": float("nan")}, "not a task description"),
        ({"max_length": float("inf")}, "not a task description"),  # json.loads reads Infinity
    ],
)
def test_what_is_no_task(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        task_from_dict({**GOOD, **change})


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(junk | st.fixed_dictionaries({key: junk | st.just(value) for key, value in GOOD.items()}))
def test_any_json_is_a_task_or_refused(value: Any) -> None:
    try:
        task = task_from_dict(value)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert task.inputs in (INPUT_NAMES[:2], INPUT_NAMES)
    assert len(task.labels) >= 2 and task.max_length >= 2
    assert all(isinstance(label, str) for label in task.labels)
    json.dumps(task.to_dict(), allow_nan=False)
