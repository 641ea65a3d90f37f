"""The soft loss of the likeliest labels: as plain numpy has it, never above the whole one, finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.distill.losses import LEAST_LOG_MASS, soft_target_loss, top_k_of, top_k_soft_loss


def normal(rows: int, labels: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, labels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("k", "temperature"), [(1, 1.0), (5, 2.0), (19, 0.7), (20, 3.0)])
def test_top_k_against_plain_numpy(k: int, temperature: float) -> None:
    teacher, student = 3 * normal(6, 20, 0), 3 * normal(6, 20, 1)
    losses = []
    for wanted, mine in zip(teacher.double().numpy(), student.double().numpy(), strict=True):
        p, q = (np.exp(one / temperature) / np.exp(one / temperature).sum() for one in (wanted, mine))
        best = np.argsort(-p)[:k]
        others = np.setdiff1d(np.arange(20), best)
        loss = (p[best] * np.log(p[best] / q[best])).sum()
        if len(others):
            loss += p[others].sum() * np.log(p[others].sum() / q[others].sum())
        losses.append(loss)
    top, labels, rest = top_k_of(teacher, k, temperature)
    assert labels[:, 0].tolist() == teacher.argmax(dim=-1).tolist()
    found = top_k_soft_loss(student, top, labels, rest, temperature)
    assert found.item() == pytest.approx(temperature**2 * np.mean(losses), rel=1e-4)
    if k < 20:
        assert (top.exp().sum(-1) + rest.exp()).tolist() == pytest.approx([1.0] * 6, abs=1e-5)


def test_gradients_are_those_of_the_divergence() -> None:
    top, labels, rest = top_k_of(3 * normal(3, 12, 0), 4, 2.0)
    student = normal(3, 12, 1).requires_grad_()
    loss = top_k_soft_loss(student, top, labels, rest, 2.0)
    (gradient,) = torch.autograd.grad(loss, student)
    for row, label in ((0, 3), (1, 7), (2, 0)):
        step = torch.zeros(3, 12)
        step[row, label] = 1e-2
        ends = [top_k_soft_loss(student.detach() + sign * step, top, labels, rest, 2.0) for sign in (1, -1)]
        assert gradient[row, label].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-2, abs=1e-3)


@given(
    st.integers(2, 40).flatmap(lambda labels: st.tuples(st.just(labels), st.integers(1, labels))),
    st.floats(0.5, 8),
    st.floats(0, 20),
    st.integers(0, 2**31),
)
def test_top_k_is_a_lower_bound_and_equal_for_all(
    sizes: tuple[int, int], temperature: float, spread: float, seed: int
) -> None:
    labels, k = sizes
    teacher, student = (spread * normal(5, labels, seed + one) for one in (0, 1))
    full = soft_target_loss(student, teacher, temperature).item()
    part = top_k_soft_loss(student, *top_k_of(teacher, k, temperature), temperature).item()
    assert -1e-4 * temperature**2 <= part <= full * (1 + 1e-4) + 1e-4 * temperature**2
    everything = top_k_soft_loss(student, *top_k_of(teacher, labels, temperature), temperature).item()
    assert everything == pytest.approx(full, rel=1e-4, abs=1e-4 * temperature**2)


@pytest.mark.parametrize("k", [1, 5, 199, 200])
def test_sure_teachers_and_students_have_finite_gradients(k: int) -> None:
    sure = torch.full((2, 200), -1000.0)
    sure[:, 3] = 1000.0
    top, labels, rest = top_k_of(sure, k, 1.0)
    assert (rest >= LEAST_LOG_MASS).all()
    for start in (sure, 3 * normal(2, 200, 0), torch.zeros(2, 200)):
        student = start.clone().requires_grad_()
        loss = top_k_soft_loss(student, top.half(), labels, rest, 1.0)
        loss.backward()
        assert torch.isfinite(loss) and student.grad is not None and torch.isfinite(student.grad).all()
