"""What brings a narrow student's hidden states to the teacher's width, where they can be compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stillroom.distill.narrow import hidden_dimensions


class StudentWithProjections(nn.Module):
    """A student that, asked for hidden states, gives them in the teacher's width; all else is the student's.

    projections: linear maps, one for the embeddings and one for each layer. They are trained and kept in
    checkpoints with the student, and are no part of it: after training, .student is the result.
    """

    def __init__(self, student: nn.Module, projections: nn.ModuleList) -> None:
        super().__init__()
        self.student, self.projections = student, projections

    def forward(self, **inputs: Any) -> Any:
        """The student's own output, hidden_states [batch, length, teacher's width] where it has them."""
        output = self.student(**inputs)
        if output.hidden_states is not None:
            pairs = zip(self.projections, output.hidden_states, strict=True)
            output.hidden_states = tuple(projection(states) for projection, states in pairs)
        return output


def with_projections(student: Any, teacher: Any) -> Any:
    """The student, in StudentWithProjections where the teacher is wider (https://arxiv.org/abs/1909.10351).

    A projection starts by putting each of the student's dimensions where narrow_student took it from, and 0
    elsewhere, with no chance in it. Every one must be used in every step, as a checkpoint holds the
    optimizer's state of every weight: so without a loss on hidden states there should be none.
    """
    narrow, wide = int(student.config.hidden_size), int(teacher.config.hidden_size)
    if narrow == wide:
        return student
    weight = torch.zeros(wide, narrow)
    weight[hidden_dimensions(teacher, narrow), torch.arange(narrow)] = 1.0
    projections = nn.ModuleList()
    for _ in range(int(student.config.num_hidden_layers) + 1):
        projection = nn.Linear(narrow, wide)
        projection.load_state_dict({"weight": weight, "bias": torch.zeros(wide)})
        projections.append(projection)
    return StudentWithProjections(student, projections)
