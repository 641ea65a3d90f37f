"""The losses against plain numpy in float64, their gradients against differences of it, and their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stillroom.distill.losses import hard_label_loss, hidden_cosine_loss, soft_target_loss

Array = np.ndarray


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def soft_reference(student: Array, teacher: Array, temperature: float) -> float:
    total = 0.0
    for mine, wanted in zip(student.astype(np.float64), teacher.astype(np.float64), strict=True):
        log_q, log_p = log_softmax(mine / temperature), log_softmax(wanted / temperature)
        total += float((np.exp(log_p) * (log_p - log_q)).sum())
    return temperature**2 * total / len(student)


def hard_reference(student: Array, labels: Array) -> float:
    rows = [-log_softmax(row.astype(np.float64))[label] for row, label in zip(student, labels, strict=True)]
    return float(np.mean(rows))


def cosine_reference(student: Array, teacher: Array, mask: Array) -> float:
    found = []
    for row, token in np.argwhere(mask == 1):
        left, right = student[row, token].astype(np.float64), teacher[row, token].astype(np.float64)
        found.append(1 - left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
    return float(np.mean(found)) if found else 0.0


def tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values))


def differences(function: Callable[[Array], float], at: Array) -> Array:
    """The gradient of a plain function by central differences, in float64."""
    point = at.astype(np.float64)
    gradient = np.zeros_like(point)
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


logits_pairs = st.tuples(st.integers(1, 5), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=st.floats(-20, 20, width=32))] * 2)
)
small_pairs = st.tuples(st.integers(1, 4), st.integers(2, 5)).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=st.floats(-2, 2, width=32))] * 2)
)


@st.composite
def hidden_states(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """Student and teacher states and a mask that is 1 up to each row's length, which may be 0."""
    batch, length, size = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(2, 8))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    student, teacher = (generator.normal(0, 3, (batch, length, size)).astype(np.float32) for _ in "st")
    lengths = draw(st.lists(st.integers(0, length), min_size=batch, max_size=batch))
    return student, teacher, (np.arange(length) < np.array(lengths)[:, None]).astype(np.int64)


@given(logits_pairs, st.floats(0.5, 8))
def test_soft_target_loss_is_the_reference(logits: tuple[Array, Array], temperature: float) -> None:
    student, teacher = logits
    found = soft_target_loss(tensor(student), tensor(teacher), temperature)
    assert found.shape == ()
    wanted = soft_reference(student, teacher, temperature)
    assert float(found) == pytest.approx(wanted, rel=1e-5, abs=1e-5 * max(1, temperature**2))


@given(logits_pairs, st.data())
def test_hard_label_loss_is_the_reference(logits: tuple[Array, Array], data: st.DataObject) -> None:
    student = logits[0]
    choices = st.lists(st.integers(0, student.shape[1] - 1), min_size=len(student), max_size=len(student))
    labels = np.array(data.draw(choices), dtype=np.int64)
    found = hard_label_loss(tensor(student), tensor(labels))
    assert float(found) == pytest.approx(hard_reference(student, labels), rel=1e-5, abs=1e-5)


@given(hidden_states())
def test_hidden_cosine_loss_is_the_reference(states: tuple[Array, Array, Array]) -> None:
    student, teacher, mask = states
    found = hidden_cosine_loss(tensor(student), tensor(teacher), tensor(mask))
    assert found.shape == ()
    assert float(found) == pytest.approx(cosine_reference(student, teacher, mask), abs=1e-5)


# torch.autograd.gradcheck moves its input by 1e-6, which the losses' cast to float32 rounds away. The
# gradients are compared with differences of the float64 reference instead.


@settings(max_examples=25)
@given(small_pairs, st.floats(1, 4))
def test_gradient_of_the_soft_target_loss(logits: tuple[Array, Array], temperature: float) -> None:
    student, teacher = logits
    found = autograd(lambda it: soft_target_loss(it, tensor(teacher), temperature), student)
    wanted = differences(lambda it: soft_reference(it, teacher, temperature), student)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@settings(max_examples=25)
@given(small_pairs)
def test_gradient_of_the_hard_label_loss(logits: tuple[Array, Array]) -> None:
    student, other = logits
    labels = other.argmax(axis=1)
    found = autograd(lambda it: hard_label_loss(it, tensor(labels)), student)
    np.testing.assert_allclose(found, differences(lambda it: hard_reference(it, labels), student), atol=1e-5)


@settings(max_examples=25)
@given(hidden_states())
def test_gradient_of_the_hidden_cosine_loss(states: tuple[Array, Array, Array]) -> None:
    student, teacher, mask = states
    found = autograd(lambda it: hidden_cosine_loss(it, tensor(teacher), tensor(mask)), student)
    wanted = differences(lambda it: cosine_reference(it, teacher, mask), student)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert not found[mask == 0].any()


@given(small_pairs)
def test_temperature_one_is_plain_kl(logits: tuple[Array, Array]) -> None:
    student, teacher = (row.astype(np.float64) for row in logits)
    p, q = (np.exp(row) / np.exp(row).sum(axis=1, keepdims=True) for row in (teacher, student))
    found = soft_target_loss(tensor(logits[0]), tensor(logits[1]), 1.0)
    assert float(found) == pytest.approx(float((p * np.log(p / q)).sum(axis=1).mean()), abs=1e-5)


@given(small_pairs)
def test_a_high_temperature_compares_the_logits_themselves(logits: tuple[Array, Array]) -> None:
    # Hinton et al., section 2.1: T^2 KL tends to half the mean squared difference of centred logits.
    student, teacher = (row.astype(np.float64) for row in logits)
    difference = student - teacher
    wanted = 0.5 * (difference - difference.mean(axis=1, keepdims=True)).__pow__(2).mean(axis=1).mean()
    found = soft_target_loss(tensor(logits[0]), tensor(logits[1]), 100.0)
    assert float(found) == pytest.approx(float(wanted), rel=0.1, abs=1e-2)


@given(logits_pairs, hidden_states(), st.floats(0.5, 8))
def test_a_student_like_its_teacher_has_no_loss(
    logits: tuple[Array, Array], states: tuple[Array, Array, Array], temperature: float
) -> None:
    same, hidden, mask = tensor(logits[0]), tensor(states[0]), tensor(states[2])
    assert float(soft_target_loss(same, same.clone(), temperature)) == 0.0
    assert float(hidden_cosine_loss(hidden, hidden.clone(), mask)) == pytest.approx(0.0, abs=1e-6)
    assert float(hidden_cosine_loss(-hidden, hidden, torch.ones_like(mask))) == pytest.approx(2.0, abs=1e-6)


@given(hidden_states(), st.floats(-1e4, 1e4))
def test_padding_content_does_not_matter(states: tuple[Array, Array, Array], filling: float) -> None:
    student, teacher, mask = states
    wanted = hidden_cosine_loss(tensor(student), tensor(teacher), tensor(mask))
    padded = mask[:, :, None] == 0
    left, right = np.where(padded, np.float32(filling), student), np.where(padded, np.float32(0), teacher)
    assert torch.equal(hidden_cosine_loss(tensor(left), tensor(right), tensor(mask)), wanted)


def test_padded_rows_do_not_count() -> None:
    generator = np.random.default_rng(1)
    student, teacher = (generator.normal(size=(3, 4, 5)).astype(np.float32) for _ in "st")
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    found = hidden_cosine_loss(tensor(student), tensor(teacher), tensor(mask))
    kept = hidden_cosine_loss(tensor(student[[0, 2]]), tensor(teacher[[0, 2]]), tensor(mask[[0, 2]]))
    assert float(found) == pytest.approx(float(kept), abs=1e-7)


def test_nothing_but_padding_is_no_loss_and_no_gradient() -> None:
    student = torch.zeros(2, 3, 4, requires_grad=True)
    loss = hidden_cosine_loss(student, torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None and not student.grad.any()


def test_half_precision_states_are_compared_in_single() -> None:
    # The cache keeps the teacher's states in float16, whose own products would overflow.
    generator = np.random.default_rng(2)
    student, teacher = (generator.normal(0, 200, (2, 3, 64)).astype(np.float16) for _ in "st")
    mask = np.ones((2, 3), dtype=np.int64)
    found = hidden_cosine_loss(tensor(student), tensor(teacher), tensor(mask))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(cosine_reference(student, teacher, mask), abs=1e-5)
    logits = soft_target_loss(tensor(student[0]), tensor(teacher[0]), 2.0)
    assert logits.dtype == torch.float32
    assert float(logits) == pytest.approx(soft_reference(student[0], teacher[0], 2.0), rel=1e-5)


@given(logits_pairs)
def test_losses_are_means_over_rows(logits: tuple[Array, Array]) -> None:
    student, teacher = logits
    twice = (tensor(np.concatenate([student] * 2)), tensor(np.concatenate([teacher] * 2)))
    once = soft_target_loss(tensor(student), tensor(teacher), 2.0)
    assert float(soft_target_loss(*twice, 2.0)) == pytest.approx(float(once), rel=1e-5, abs=1e-6)
