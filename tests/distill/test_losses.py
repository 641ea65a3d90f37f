"""The losses against plain numpy in float64, their gradients against differences of it, and their limits."""

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

from stillroom.distill.losses import (
    binary_label_loss,
    binary_soft_target_loss,
    hard_label_loss,
    hidden_cosine_loss,
    hidden_mse_loss,
    relation_loss,
    soft_target_loss,
    squared_error_loss,
)

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


# Yes-or-no labels, and numbers


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
def test_a_student_like_its_teacher_has_no_loss_of_yes_or_no(
    logits: tuple[Array, Array], temperature: float
) -> None:
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
def test_losses_are_means_over_rows_of_yes_or_no(logits: tuple[Array, Array]) -> None:
    one, two = (tensor(np.concatenate([part] * 2)) for part in logits)
    once = binary_soft_target_loss(tensor(logits[0]), tensor(logits[1]), 2.0)
    assert float(binary_soft_target_loss(one, two, 2.0)) == pytest.approx(float(once), rel=1e-5, abs=1e-6)


def test_half_precision_is_computed_in_single_of_yes_or_no() -> None:
    generator = np.random.default_rng(2)
    student, teacher = (generator.normal(0, 20, (3, 64)).astype(np.float16) for _ in "st")
    found = binary_soft_target_loss(tensor(student), tensor(teacher), 2.0)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(binary_soft_reference(student, teacher, 2.0), rel=1e-5)
    assert binary_label_loss(tensor(student), tensor(teacher > 0)).dtype == torch.float32
    assert squared_error_loss(tensor(student), tensor(teacher)).dtype == torch.float32


def test_shapes_that_do_not_fit_of_yes_or_no() -> None:
    one, other = torch.zeros(2, 3), torch.zeros(2, 4)
    for loss in (lambda a, b: binary_soft_target_loss(a, b, 1.0), binary_label_loss, squared_error_loss):
        with pytest.raises(ValueError, match=r"\[2, 3\] and \[2, 4\]"):
            loss(one, other)
    with pytest.raises(ValueError, match=r"\[2, 1\] and \[3, 1\]"):
        squared_error_loss(torch.zeros(2), torch.zeros(3, 1))


# Hidden states, and relations between tokens


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
def test_a_student_like_its_teacher_has_no_loss_of_states(drawn: Any) -> None:
    (a, b, _, _), mask = drawn
    assert float(hidden_mse_loss(tensor(a), tensor(a), tensor(mask))) == 0.0
    assert float(relations_of((a, b, a, b), mask, 3)) == 0.0


@given(masked_states(), st.sampled_from([-1e4, 1e4, float("inf")]))
def test_padding_content_does_not_matter_of_states(drawn: Any, filling: float) -> None:
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


def test_nothing_but_padding_is_no_loss_and_no_gradient_of_states() -> None:
    student, mask = torch.ones(2, 3, 4, requires_grad=True), torch.zeros(2, 3, dtype=torch.int64)
    loss = hidden_mse_loss(student, torch.zeros(2, 3, 4), mask)
    loss = loss + relation_loss(student, student, torch.randn(2, 3, 8), torch.randn(2, 3, 8), mask, 2)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None and not student.grad.any()


def test_half_precision_is_computed_in_single_of_states() -> None:
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


def test_shapes_that_do_not_fit_of_states() -> None:
    states, wider, mask = torch.zeros(2, 3, 6), torch.zeros(2, 3, 8), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"\[2, 3, 6\] and \[2, 3, 8\]"):
        hidden_mse_loss(states, wider, mask)
    with pytest.raises(ValueError, match=r"\[2, 3, 6\] and \[2, 3, 8\]"):
        relation_loss(states, wider, states, states, mask, 2)
    with pytest.raises(ValueError, match=r"\[2, 3, 6\] do not fit mask \[2, 3\] and 4 relation heads"):
        relation_loss(states, states, states, states, mask, 4)
    with pytest.raises(ValueError, match=r"do not fit mask \[2, 4\]"):
        relation_loss(states, states, states, states, torch.ones(2, 4), 2)
