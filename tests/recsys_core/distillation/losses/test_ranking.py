"""Ranking distillation against loops in float64, and what it must refuse."""

import math

import pytest
import torch

from recsys_core.distillation.losses.ranking import ranking_distillation
from tests.recsys_core.distillation.losses import problem

# Drawn with repetitions, among them top items and seen items.
DRAWN = torch.randint(
    1, problem.ITEMS + 1, (problem.POSITIONS, 6), generator=torch.Generator().manual_seed(6)
)


def _ranking(
    student_scores: torch.Tensor, teacher_scores: torch.Tensor, drawn: torch.Tensor, n_top: int
) -> torch.Tensor:
    """The loss of one position by itself."""
    soft = ranking_distillation(drawn[None], n_top=n_top)
    return problem.of_one_position(soft, student_scores, teacher_scores)


@pytest.mark.parametrize("chunk_positions", [1, 3, 1024])
@pytest.mark.parametrize("n_top", [1, 3, 40])
def test_value_and_gradient_are_those_of_loops(n_top: int, chunk_positions: int) -> None:
    found = problem.with_soft(
        ranking_distillation(DRAWN, n_top=n_top), chunk_positions=chunk_positions
    )
    problem.assert_same_value_and_gradients(
        found, problem.reference(problem.ranking_reference(DRAWN, n_top))
    )


def test_by_hand() -> None:
    """Item 2 first, then item 1, ahead of item 3, drawn twice: 4/(4+1+2+2) · 1/(1+2+2)."""
    loss = _ranking(
        torch.tensor([1.0, 4.0, 2.0]).log(),
        torch.tensor([1.0, 2.0, 0.0]),
        torch.tensor([3, 3]),
        n_top=2,
    )
    assert loss.item() == pytest.approx(-math.log(4 / 9 * 1 / 5), rel=1e-5)


def test_only_the_order_of_the_teachers_scores_counts() -> None:
    student, drawn = torch.tensor([0.3, -1.0, 0.7, 0.1]), torch.tensor([1])
    one = _ranking(student, torch.tensor([0.0, 1.0, 2.0, 3.0]), drawn, n_top=3)
    other = _ranking(student, torch.tensor([-9.0, 1.0, 50.0, 51.0]), drawn, n_top=3)
    assert one == other


def test_without_drawn_items_the_ranking_of_all_is_left() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    loss = _ranking(torch.zeros(3), torch.tensor([0.0, 1.0, 2.0]), nothing, n_top=40)
    assert loss.item() == pytest.approx(math.log(6), rel=1e-5)


def test_huge_scores_neither_overflow_nor_vanish() -> None:
    scores = torch.tensor([3e4, -3e4, 1e4, 0.0]).requires_grad_()
    loss = _ranking(scores, torch.tensor([0.0, 3.0, 2.0, 1.0]), torch.tensor([1]), n_top=3)
    loss.backward()
    assert loss.item() == pytest.approx(6e4 + 2e4 + 3e4)
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([3.0, -1.0, -1.0, -1.0]))


@pytest.mark.usefixtures("production_checks")
def test_what_does_not_belong_together_is_refused() -> None:
    scores = torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="n_top must be 1 or more, found 0"):
        _ranking(scores, scores, torch.tensor([1]), n_top=0)
    with pytest.raises(ValueError, match="8 states, 7 rows"):
        problem.with_soft(ranking_distillation(DRAWN[1:]), chunk_positions=1024)(
            problem.STATES, problem.VECTORS
        )


def test_the_logits_stay_as_they_are() -> None:
    """Other losses of the same positions read them afterwards."""
    student, teacher = torch.arange(6.0).reshape(1, 6), torch.arange(6.0).flip(0).reshape(1, 6)
    before = student.clone(), teacher.clone()
    ranking_distillation(torch.tensor([[1, 3]]), n_top=2)(student, teacher, slice(0, 1))
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])
