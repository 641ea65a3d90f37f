"""Losses of tasks of yes and no, and of numbers, as test_losses.py has those of one label of several."""

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

from stillroom.distill.losses import binary_label_loss, binary_soft_target_loss, squared_error_loss

Array = np.ndarray


def log_sigmoid(number: float) -> float:
    return -math.log1p(math.exp(-number)) if number > 0 else number - math.log1p(math.exp(number))


def binary_soft_reference(student: Array, teacher: Array, temperature: float) -> float:
    total = 0.0
    for mine, wanted in zip(student.ravel() / temperature, teacher.ravel() / temperature, strict=True):
        for sign in (1, -1):
            log_q, log_p = log_sigmoid(sign * float(mine)), log_sigmoid(sign * float(wanted))
            total += math.exp(log_p) * (log_p - log_q)
    return temperature**2 * total / student.size


def binary_label_reference(logits: Array, labels: Array) -> float:
    pairs = zip(logits.ravel(), labels.ravel(), strict=True)
    return float(np.mean([-log_sigmoid(float(logit) if label else -float(logit)) for logit, label in pairs]))


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


def pairs(size: float) -> st.SearchStrategy[tuple[Array, Array]]:
    numbers = st.floats(-size, size, width=32)
    return st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(
        lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=numbers)] * 2)
    )


@given(pairs(20), st.floats(0.5, 8))
def test_binary_soft_target_loss_is_the_reference(logits: tuple[Array, Array], temperature: float) -> None:
    found = binary_soft_target_loss(tensor(logits[0]), tensor(logits[1]), temperature)
    assert found.shape == ()
    wanted = binary_soft_reference(*logits, temperature)
    assert float(found) == pytest.approx(wanted, rel=1e-5, abs=1e-5 * max(1, temperature**2))


@given(pairs(20))
def test_binary_label_loss_is_the_reference(logits: tuple[Array, Array]) -> None:
    labels = (logits[1] > 0).astype(np.float32)
    found = binary_label_loss(tensor(logits[0]), tensor(labels))
    assert float(found) == pytest.approx(binary_label_reference(logits[0], labels), rel=1e-5, abs=1e-5)


@given(pairs(20), st.booleans())
def test_squared_error_loss_is_the_reference(values: tuple[Array, Array], flat: bool) -> None:
    student, target = values[0][:, :1], values[1][:, 0] if flat else values[1][:, :1]
    wanted = np.mean((student[:, 0].astype(np.float64) - values[1][:, 0]) ** 2)
    for one, other in ((student, target), (target, student)):
        assert float(squared_error_loss(tensor(one), tensor(other))) == pytest.approx(wanted, rel=1e-5)


# As in test_losses.py, torch.autograd.gradcheck moves too little for a cast to float32.


@settings(max_examples=25)
@given(pairs(2), st.floats(1, 4))
def test_gradients_of_the_losses_on_answers(logits: tuple[Array, Array], temperature: float) -> None:
    student, teacher = logits
    found = autograd(lambda it: binary_soft_target_loss(it, tensor(teacher), temperature), student)
    wanted = differences(lambda it: binary_soft_reference(it, teacher, temperature), student)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    labels = (teacher > 0).astype(np.float32)
    found = autograd(lambda it: binary_label_loss(it, tensor(labels)), student)
    np.testing.assert_allclose(
        found, differences(lambda it: binary_label_reference(it, labels), student), atol=1e-5
    )
    found = autograd(lambda it: squared_error_loss(it, tensor(teacher[:, 0])), student[:, :1])
    wanted = differences(lambda it: float(np.mean((it[:, 0] - teacher[:, 0]) ** 2)), student[:, :1])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@given(pairs(20), st.floats(0.5, 8))
def test_a_student_like_its_teacher_has_no_loss(logits: tuple[Array, Array], temperature: float) -> None:
    same = tensor(logits[0])
    assert float(binary_soft_target_loss(same, same.clone(), temperature)) == 0.0
    assert float(squared_error_loss(same[:, 0], same[:, :1])) == 0.0


@given(pairs(2))
def test_the_limits_of_the_temperature(logits: tuple[Array, Array]) -> None:
    student, teacher = (row.astype(np.float64) for row in logits)
    p, q = (1 / (1 + np.exp(-row)) for row in (teacher, student))
    plain = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    found = binary_soft_target_loss(tensor(logits[0]), tensor(logits[1]), 1.0)
    assert float(found) == pytest.approx(float(plain), abs=1e-5)
    # sigmoid(x) is 1/2 + x/4 near 0, and there KL is twice the squared difference of probabilities.
    found = binary_soft_target_loss(tensor(logits[0]), tensor(logits[1]), 100.0)
    assert float(found) == pytest.approx(float(((student - teacher) ** 2).mean() / 8), rel=0.1, abs=1e-2)


@given(pairs(20))
def test_losses_are_means_over_rows(logits: tuple[Array, Array]) -> None:
    one, two = (tensor(np.concatenate([part] * 2)) for part in logits)
    once = binary_soft_target_loss(tensor(logits[0]), tensor(logits[1]), 2.0)
    assert float(binary_soft_target_loss(one, two, 2.0)) == pytest.approx(float(once), rel=1e-5, abs=1e-6)


def test_half_precision_is_computed_in_single() -> None:
    generator = np.random.default_rng(2)
    student, teacher = (generator.normal(0, 20, (3, 64)).astype(np.float16) for _ in "st")
    found = binary_soft_target_loss(tensor(student), tensor(teacher), 2.0)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(binary_soft_reference(student, teacher, 2.0), rel=1e-5)
    assert binary_label_loss(tensor(student), tensor(teacher > 0)).dtype == torch.float32
    assert squared_error_loss(tensor(student), tensor(teacher)).dtype == torch.float32


def test_shapes_that_do_not_fit() -> None:
    one, other = torch.zeros(2, 3), torch.zeros(2, 4)
    for loss in (lambda a, b: binary_soft_target_loss(a, b, 1.0), binary_label_loss, squared_error_loss):
        with pytest.raises(ValueError, match=r"\[2, 3\] and \[2, 4\]"):
            loss(one, other)
    with pytest.raises(ValueError, match=r"\[2, 1\] and \[3, 1\]"):
        squared_error_loss(torch.zeros(2), torch.zeros(3, 1))
