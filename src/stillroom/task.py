"""What is asked of a model: its kind, labels, longest input, input names and metric."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stillroom.errors import UsageError
from stillroom.kinds import kind_of

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")  # int64, [batch, length] each


@dataclass(frozen=True)
class TaskSpec:
    """The contract every file of a run keeps.

    labels: index in the logits -> name. max_length: tokens, special tokens included.
    inputs: names in calling order, a prefix of INPUT_NAMES. pair: two texts per row. kind: of kinds.KINDS.
    """

    labels: tuple[str, ...]
    max_length: int
    inputs: tuple[str, ...]
    pair: bool = False
    kind: str = "text-classification"

    @property
    def metric(self) -> str:
        """The score that retention is measured in."""
        return kind_of(self.kind).metric

    def to_dict(self) -> dict[str, Any]:
        """As JSON: lists for tuples."""
        return {
            **asdict(self), "labels": list(self.labels), "inputs": list(self.inputs), "metric": self.metric
        }  # fmt: skip


def task_from_dict(value: Any) -> TaskSpec:
    """Read a TaskSpec back from JSON. Raises UsageError on anything that is not one."""
    try:
        task = TaskSpec(
            labels=tuple(str(label) for label in value["labels"]),
            max_length=int(value["max_length"]),
            inputs=tuple(str(name) for name in value["inputs"]),
            pair=bool(value["pair"]),
            kind=str(value["kind"]),
        )
        metric = str(value["metric"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"not a task description ({error!r})") from None
    if task.metric != metric:
        raise UsageError(f"not a task description: the metric of {task.kind} is {task.metric}, not {metric}")
    if task.inputs != INPUT_NAMES[: len(task.inputs)] or len(task.inputs) < 2:
        raise UsageError(f"inputs {task.inputs}: expected {INPUT_NAMES[:2]} or {INPUT_NAMES}")
    fewest = kind_of(task.kind).fewest_labels
    if len(task.labels) < fewest or task.max_length < 2:
        raise UsageError(f"a {task.kind} task needs at least {fewest} labels and a max_length of at least 2")
    return task
