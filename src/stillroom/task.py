"""What is asked of a model: its kind, labels, longest input, input names and metric."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stillroom.errors import UsageError

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")  # int64, [batch, length] each


@dataclass(frozen=True)
class TaskSpec:
    """The contract every file of a run keeps.

    labels: index in the logits -> name. max_length: tokens, special tokens included.
    inputs: names in calling order, a prefix of INPUT_NAMES. pair: two texts per row.
    """

    labels: tuple[str, ...]
    max_length: int
    inputs: tuple[str, ...]
    pair: bool = False
    kind: str = "text-classification"
    metric: str = "accuracy"

    def to_dict(self) -> dict[str, Any]:
        """As JSON: lists for tuples."""
        return {**asdict(self), "labels": list(self.labels), "inputs": list(self.inputs)}


def task_from_dict(value: Any) -> TaskSpec:
    """Read a TaskSpec back from JSON. Raises UsageError on anything that is not one."""
    try:
        task = TaskSpec(
            labels=tuple(str(label) for label in value["labels"]),
            max_length=int(value["max_length"]),
            inputs=tuple(str(name) for name in value["inputs"]),
            pair=bool(value["pair"]),
            kind=str(value["kind"]),
            metric=str(value["metric"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"not a task description ({error!r})") from None
    if task.inputs != INPUT_NAMES[: len(task.inputs)] or len(task.inputs) < 2:
        raise UsageError(f"inputs {task.inputs}: expected {INPUT_NAMES[:2]} or {INPUT_NAMES}")
    if len(task.labels) < 2 or task.max_length < 2:
        raise UsageError("a task needs at least two labels and a max_length of at least 2")
    return task
