"""Which losses are left out between which models, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stillroom.distill
from stillroom.distill import distill
from stillroom.distill.objective import DEFAULT_WEIGHTS, LossWeights, objective
from stillroom.errors import UsageError

ALL = LossWeights(temperature=3.0, soft=0.7, hard=0.2, cosine=0.4, hidden=0.5, relation=0.6)


def test_one_name_for_the_weights_everywhere() -> None:
    assert stillroom.distill.LossWeights is distill.LossWeights is LossWeights


def test_between_models_alike_all_are_used() -> None:
    found = objective(ALL, 384, 384, 12)
    assert found.weights == replace(ALL, relation_heads=12) and found.left_out == ()
    assert objective(DEFAULT_WEIGHTS, 384, 384, 12).weights == DEFAULT_WEIGHTS


def test_a_narrower_student_has_no_cosine() -> None:
    found = objective(ALL, 192, 384, 6)
    assert found.weights == replace(ALL, cosine=0.0, relation_heads=6)
    assert found.left_out == (
        "the cosine loss is left out: the student is 192 wide, the teacher 384; hidden_weight projects",
    )


def test_another_tokenizer_leaves_answers_only() -> None:
    found = objective(ALL, 192, 384, 6, same_tokenizer=False)
    assert found.weights == replace(ALL, cosine=0.0, hidden=0.0, relation=0.0)
    assert found.left_out == tuple(
        f"the {name} loss is left out: the teacher has another tokenizer, so its states are of other tokens"
        for name in ("cosine", "hidden", "relation")
    )


def test_several_teachers_leave_answers_only() -> None:
    found = objective(ALL, 384, 384, 12, same_tokenizer=False, teachers=3)
    assert found.weights == replace(ALL, cosine=0.0, hidden=0.0, relation=0.0)
    assert found.left_out == tuple(
        f"the {name} loss is left out: 3 teachers teach through their answers only"
        for name in ("cosine", "hidden", "relation")
    )


def test_nothing_is_said_of_what_was_not_asked_for() -> None:
    asked = LossWeights(cosine=0.0, relation_heads=7)  # heads of a loss without weight do not matter
    found = objective(asked, 192, 384, 6, same_tokenizer=False, teachers=2)
    assert found.weights == replace(asked, relation_heads=0) and found.left_out == ()


def test_no_loss_left() -> None:
    with pytest.raises(UsageError) as raised:
        objective(LossWeights(soft=0.0, hard=0.0), 192, 384, 6)
    assert str(raised.value) == (
        "no loss is left to train with: expected student.soft_weight or hard_weight above 0; "
        "the cosine loss is left out: the student is 192 wide, the teacher 384; hidden_weight projects"
    )
    with pytest.raises(UsageError, match=r"above 0$"):
        objective(LossWeights(soft=0.0, hard=0.0, cosine=0.0), 384, 384, 12)


@pytest.mark.parametrize(
    ("asked", "student", "teacher", "heads", "wanted"),
    [
        (0, 192, 384, 6, 6),
        (48, 768, 768, 12, 48),
        (0, 312, 768, 12, 12),
        (0, 312, 768, 13, 12),
        (1, 7, 5, 7, 1),
    ],
)
def test_relation_heads(asked: int, student: int, teacher: int, heads: int, wanted: int) -> None:
    weights = LossWeights(relation=1.0, relation_heads=asked)
    assert objective(weights, student, teacher, heads).weights.relation_heads == wanted


@pytest.mark.parametrize(("asked", "nearest"), [(5, 4), (64, 24), (-1, 1)])
def test_relation_heads_that_do_not_divide(asked: int, nearest: int) -> None:
    with pytest.raises(UsageError) as raised:
        objective(LossWeights(relation=1.0, relation_heads=asked), 312, 768, 12)
    assert str(raised.value) == (
        f"student.relation_heads {asked}: expected a divisor of the student's width, 312, and of the "
        f"teacher's, 768, as {nearest} is"
    )


weights_asked = st.builds(
    LossWeights,
    soft=st.sampled_from([0.0, 1.0]),
    hard=st.just(0.5),
    cosine=st.sampled_from([0.0, 1.0]),
    hidden=st.sampled_from([0.0, 2.0]),
    relation=st.sampled_from([0.0, 3.0]),
)


@given(weights_asked, st.integers(1, 1024), st.integers(1, 1024), st.integers(1, 16), st.booleans(),
       st.integers(1, 3))  # fmt: skip
def test_a_weight_stays_or_goes_with_a_line(
    asked: LossWeights, student: int, teacher: int, heads: int, same: bool, teachers: int
) -> None:
    found = objective(asked, student, teacher, heads, same_tokenizer=same, teachers=teachers)
    assert (found.weights.soft, found.weights.hard) == (asked.soft, asked.hard)
    gone = [name for name in ("cosine", "hidden", "relation")
            if getattr(found.weights, name) != getattr(asked, name)]  # fmt: skip
    assert [line.split()[1] for line in found.left_out] == gone
    assert all(getattr(found.weights, name) == 0.0 for name in gone)
    assert not found.weights.cosine or (student == teacher and same and teachers == 1)
    if found.weights.relation:
        assert student % found.weights.relation_heads == teacher % found.weights.relation_heads == 0
    again = objective(found.weights, student, teacher, heads, same_tokenizer=same, teachers=teachers)
    assert again.weights == found.weights and again.left_out == ()
