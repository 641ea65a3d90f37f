"""Which teacher layers the student starts from and which it imitates, and the student built from them."""

from __future__ import annotations

import copy
from typing import Any

from stillroom.errors import UsageError
from stillroom.families import family_of

CHOICES = ("every-other", "first-last", "top")  # ways to choose a number of layers


def choose_layers(
    wanted: str | int | tuple[int, ...], teacher_layers: int, choice: str = "every-other"
) -> tuple[int, ...]:
    """Indices of the teacher layers to keep, from 0.

    "half": half as many as the teacher has. An integer: that many. A tuple: those, whatever the choice.
    choice: "every-other" spreads them evenly, the first and the last among them; for 6 of 12 that is
    DistilBERT's 0, 2, 4, 7, 9, 11 (https://arxiv.org/abs/1910.01108). "first-last" takes them from both
    ends, "top" from the end. Raises UsageError for an index or a count the teacher does not have.
    """
    if choice not in CHOICES:
        raise UsageError(f"student.layer_choice {choice!r}: expected one of {', '.join(CHOICES)}")
    if isinstance(wanted, tuple):
        wrong = [index for index in wanted if not 0 <= index < teacher_layers]
        if wrong or not wanted or list(wanted) != sorted(set(wanted)):
            raise UsageError(
                f"student.layers {list(wanted)}: expected increasing indices from 0 to {teacher_layers - 1}, "
                f"the teacher has {teacher_layers} layers"
            )
        return wanted
    if isinstance(wanted, str) and wanted != "half":
        raise UsageError(
            f'student.layers {wanted!r}: expected "half", a number of layers, or a list of indices'
        )
    count = max(1, teacher_layers // 2) if isinstance(wanted, str) else wanted
    if not 1 <= count <= teacher_layers:
        raise UsageError(f"student.layers {count}: the teacher has {teacher_layers} layers")
    if choice == "first-last":
        first = (count + 1) // 2
        return (*range(first), *range(teacher_layers - count + first, teacher_layers))
    if choice == "top":
        return tuple(range(teacher_layers - count, teacher_layers))
    if count == 1:
        return (0,)
    return tuple(round(index * (teacher_layers - 1) / (count - 1)) for index in range(count))


def layer_map(kept: tuple[int, ...], teacher_layers: int) -> tuple[int, ...]:
    """For each student layer, from 0, the teacher layer whose output it imitates; the last has the last.

    kept: the layers the student starts from, of which only the number counts. A student layer does the work
    of several teacher layers, so what it is to give is what the last of them gives: TinyBERT's uniform map
    (https://arxiv.org/abs/1909.10351), where the j-th of m layers imitates the (j n / m)-th of n. Layer 0 of
    a student of 0, 2, 4 starts as the teacher's layer 0 and learns to give what its layer 1 gives. The
    embeddings imitate the embeddings.
    """
    count = len(kept)
    return tuple(max(0, round(index * teacher_layers / count) - 1) for index in range(1, count + 1))


def layer_map_words(imitated: tuple[int, ...]) -> str:
    """What layer_map gave, as one line."""
    pairs = (f"{index}->{teacher_index}" for index, teacher_index in enumerate(imitated))
    return ", ".join(["hidden states: embeddings", *pairs])


def layer_list(model: Any) -> Any:
    """The ModuleList of encoder layers of a ...ForSequenceClassification model."""
    family = family_of(model.config.model_type)
    place = getattr(model, family.base)
    for name in family.layers.split("."):
        place = getattr(place, name)
    return place


def student_from_teacher(teacher: Any, layers: tuple[int, ...]) -> Any:
    """A shallower copy of the teacher: its embeddings, head and the chosen layers, weights copied."""
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    student = type(teacher)(config)
    family = family_of(config.model_type)
    prefix = f"{family.base}.{family.layers}."
    kept = {str(index): str(position) for position, index in enumerate(layers)}
    weights = {}
    for name, tensor in teacher.state_dict().items():
        if name.startswith(prefix):
            index, rest = name[len(prefix) :].split(".", 1)
            if index not in kept:
                continue
            name = f"{prefix}{kept[index]}.{rest}"
        weights[name] = tensor
    student.load_state_dict(weights, strict=True)
    return student.eval()
