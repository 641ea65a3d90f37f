"""The losses on projected hidden states and on relations, as test_losses.py has that on directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillroom.distill.losses import hidden_mse_loss, relation_loss

Array = np.ndarray


def mse_reference(student: Array, teacher: Array, mask: Array) -> float:
    found = [
        (float(student[(*at, width)]) - float(teacher[(*at, width)])) ** 2
        for at in map(tuple, np.argwhere(mask))
        for width in range(student.shape[2])
    ]
    return float(np.mean(found)) if found else 0.0


def relation(a: Array, b: Array, keys: Array, heads: int, head: int, query: int) -> Array:
    """Log-probabilities over the real keys of one row, for one query and head."""
    size = a.shape[1] // heads
    part = slice(head * size, (head + 1) * size)
    scores = b[keys, part].astype(np.float64) @ a[query, part].astype(np.float64) / math.sqrt(size)
    shifted: Array = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())


def relation_reference(states: tuple[Array, Array, Array, Array], mask: Array, heads: int) -> float:
    found = []
    for row, query in np.argwhere(mask):
        keys = np.flatnonzero(mask[row])
        for head in range(heads):
            log_q, log_p = (
                relation(a[row], b[row], keys, heads, head, query) for a, b in (states[:2], states[2:])
            )
            found.append((np.exp(log_p) * (log_p - log_q)).sum())
    return float(np.mean(found)) if found else 0.0


def tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values))


def differences(function: Callable[[Array], float], at: Array) -> Array:
    """The gradient of a plain function by central differences, in float64."""
    point, gradient = at.astype(np.float64), np.zeros(at.shape)
    for index in np.ndindex(*point.shape):
        for sign in (1, -1):
            moved = point.copy()
            moved[index] += sign * 1e-5
            gradient[index] += sign * function(moved) / 2e-5
    return gradient


def autograd(function: Callable[[torch.Tensor], torch.Tensor], at: Array) -> Array:
    student = tensor(at).requires_grad_()
    function(student).backward()
    assert student.grad is not None
    return student.grad.numpy()


@st.composite
def masked_states(
    draw: st.DrawFn, student_width: int = 6, teacher_width: int = 6
) -> tuple[tuple[Array, Array, Array, Array], Array]:
    """Two states of a student and two of a teacher, and a mask: any, holes and rows of padding among them."""
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    widths = (student_width, student_width, teacher_width, teacher_width)
    a, b, c, d = (generator.normal(0, 1.5, (batch, length, width)).astype(np.float32) for width in widths)
    mask = draw(hnp.arrays(np.int64, (batch, length), elements=st.integers(0, 1)))
    return (a, b, c, d), mask


def relations_of(states: Any, mask: Array, heads: int) -> torch.Tensor:
    student_a, student_b, teacher_a, teacher_b = (tensor(one) for one in states)
    return relation_loss(student_a, student_b, teacher_a, teacher_b, tensor(mask), heads)


@given(masked_states())
def test_hidden_mse_loss_is_the_reference(drawn: Any) -> None:
    (student, _, teacher, _), mask = drawn
    found = hidden_mse_loss(tensor(student), tensor(teacher), tensor(mask))
    assert found.shape == ()
    assert float(found) == pytest.approx(mse_reference(student, teacher, mask), rel=1e-5, abs=1e-5)


@given(masked_states(student_width=6, teacher_width=12), st.sampled_from([1, 2, 3, 6]))
def test_relation_loss_is_the_reference(drawn: Any, heads: int) -> None:
    states, mask = drawn
    found = relations_of(states, mask, heads)
    assert found.shape == ()
    assert float(found) == pytest.approx(relation_reference(states, mask, heads), rel=1e-5, abs=1e-5)


# As in test_losses.py, torch.autograd.gradcheck moves too little for a cast to float32.


@settings(max_examples=15)
@given(masked_states(student_width=4, teacher_width=6))
def test_gradients_of_the_losses_on_states(drawn: Any) -> None:
    (a, b, c, d), mask = drawn
    found = autograd(lambda it: hidden_mse_loss(it, tensor(b), tensor(mask)), a)
    np.testing.assert_allclose(found, differences(lambda it: mse_reference(it, b, mask), a), atol=1e-5)
    assert not found[mask == 0].any()
    found = autograd(lambda it: relation_loss(it, *map(tensor, (b, c, d, mask)), heads=2), a)
    wanted = differences(lambda it: relation_reference((it, b, c, d), mask, 2), a)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert not found[mask == 0].any()
    # The same states on both sides, as for MiniLM's value relation.
    found = autograd(lambda it: relation_loss(it, it, *map(tensor, (c, d, mask)), heads=2), a)
    wanted = differences(lambda it: relation_reference((it, it, c, d), mask, 2), a)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@given(masked_states())
def test_a_student_like_its_teacher_has_no_loss(drawn: Any) -> None:
    (a, b, _, _), mask = drawn
    assert float(hidden_mse_loss(tensor(a), tensor(a), tensor(mask))) == 0.0
    assert float(relations_of((a, b, a, b), mask, 3)) == 0.0


@given(masked_states(), st.sampled_from([-1e4, 1e4, float("inf")]))
def test_padding_content_does_not_matter(drawn: Any, filling: float) -> None:
    states, mask = drawn
    filled = [np.where(mask[:, :, None] == 0, np.float32(filling), one) for one in states]
    wanted = hidden_mse_loss(*map(tensor, (states[0], states[2], mask)))
    assert torch.equal(hidden_mse_loss(*map(tensor, (filled[0], filled[2], mask))), wanted)
    assert torch.equal(relations_of(filled, mask, 2), relations_of(states, mask, 2))


@given(masked_states(), st.integers(1, 3))
def test_rows_and_columns_of_padding_do_not_count(drawn: Any, more: int) -> None:
    states, mask = drawn
    wider = [np.pad(one, ((0, more), (0, more), (0, 0)), constant_values=1.0) for one in states]
    padded = np.pad(mask, ((0, more), (0, more)))
    once = hidden_mse_loss(*map(tensor, (states[0], states[2], mask)))
    again = hidden_mse_loss(*map(tensor, (wider[0], wider[2], padded)))
    assert float(again) == pytest.approx(float(once), rel=1e-5, abs=1e-6)
    assert float(relations_of(wider, padded, 2)) == pytest.approx(
        float(relations_of(states, mask, 2)), rel=1e-5, abs=1e-6
    )


def test_one_token_relates_to_itself_alone() -> None:
    states = np.random.default_rng(0).normal(size=(4, 3, 1, 8)).astype(np.float32)
    assert float(relations_of(states, np.ones((3, 1), dtype=np.int64), 4)) == 0.0


def test_nothing_but_padding_is_no_loss_and_no_gradient() -> None:
    student, mask = torch.ones(2, 3, 4, requires_grad=True), torch.zeros(2, 3, dtype=torch.int64)
    loss = hidden_mse_loss(student, torch.zeros(2, 3, 4), mask)
    loss = loss + relation_loss(student, student, torch.randn(2, 3, 8), torch.randn(2, 3, 8), mask, 2)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None and not student.grad.any()


def test_half_precision_is_computed_in_single() -> None:
    generator = np.random.default_rng(2)
    states = [generator.normal(0, 3, (2, 3, 64)).astype(np.float16) for _ in range(4)]
    mask = np.ones((2, 3), dtype=np.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = relations_of(states, mask, 4)
    assert found.dtype == torch.float32
    wanted = relation_reference((states[0], states[1], states[2], states[3]), mask, 4)
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    large, other = (one * np.float16(100) for one in states[:2])  # their squares overflow float16
    found = hidden_mse_loss(tensor(large), tensor(other), tensor(mask))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(mse_reference(large, other, mask), rel=1e-5)


def test_shapes_that_do_not_fit() -> None:
    states, wider, mask = torch.zeros(2, 3, 6), torch.zeros(2, 3, 8), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"\[2, 3, 6\] and \[2, 3, 8\]"):
        hidden_mse_loss(states, wider, mask)
    with pytest.raises(ValueError, match=r"\[2, 3, 6\] and \[2, 3, 8\]"):
        relation_loss(states, wider, states, states, mask, 2)
    with pytest.raises(ValueError, match=r"\[2, 3, 6\] do not fit mask \[2, 3\] and 4 relation heads"):
        relation_loss(states, states, states, states, mask, 4)
    with pytest.raises(ValueError, match=r"do not fit mask \[2, 4\]"):
        relation_loss(states, states, states, states, torch.ones(2, 4), 2)
