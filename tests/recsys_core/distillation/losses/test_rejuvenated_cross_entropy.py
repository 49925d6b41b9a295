"""Rejuvenated cross-entropy against loops in float64, and what it must refuse."""

import math

import pytest
import torch

from recsys_core.distillation.losses.rejuvenated_cross_entropy import rce_closure
from tests.recsys_core.distillation.losses import problem

# Drawn with repetitions, among them top items and seen items.
SAMPLED = torch.randint(
    1, problem.ITEMS + 1, (problem.POSITIONS, 4), generator=torch.Generator().manual_seed(6)
)


def _rce(
    student_scores: torch.Tensor,
    teacher_scores: torch.Tensor,
    sampled: list[int],
    n_top: int,
    overlap_decay: float = 3.0,
) -> torch.Tensor:
    """The loss of one position by itself."""
    drawn = torch.tensor([sampled], dtype=torch.int64)
    soft = rce_closure(drawn, n_top=n_top, overlap_decay=overlap_decay)
    return problem.of_one_position(soft, student_scores, teacher_scores)


@pytest.mark.parametrize("chunk_positions", [1, 3, 1024])
@pytest.mark.parametrize(("n_top", "overlap_decay"), [(1, 3.0), (3, 3.0), (3, 0.5), (100, 3.0)])
def test_value_and_gradient_are_those_of_loops(
    n_top: int, overlap_decay: float, chunk_positions: int
) -> None:
    found = problem.with_soft(
        rce_closure(SAMPLED, n_top=n_top, overlap_decay=overlap_decay),
        chunk_positions=chunk_positions,
    )
    expected = problem.closure_reference(SAMPLED, n_top, overlap_decay)
    problem.assert_same_value_and_gradients(found, problem.reference(expected))


def test_by_hand() -> None:
    """S = {1, 2}, T = {2, 3}, sampled 1: overlap 1/2, U = {1, 3}."""
    student = torch.tensor([3.0, 2.0, 1.0]).log()
    teacher = torch.tensor([1.0, 4.0, 3.0]).log()
    gamma = math.exp(-3 / 2)
    on_top = -(1 / 5 * math.log(3 / 5) + 4 / 5 * math.log(2 / 5))
    on_others = -(1 / 4 * math.log(3 / 4) + 3 / 4 * math.log(1 / 4))
    expected = (1 - gamma) * on_top + gamma * on_others
    assert _rce(student, teacher, [1, 1], n_top=2).item() == pytest.approx(expected, rel=1e-5)


def test_a_student_that_equals_its_teacher_learns_nothing_more() -> None:
    scores = torch.tensor([0.4, -1.0, 2.0, 0.1]).requires_grad_()
    _rce(scores, scores.detach(), [2, 4], n_top=2).backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.zeros(4), atol=1e-6, rtol=0)


def test_equal_tops_and_nothing_sampled_leave_the_first_part() -> None:
    student, teacher = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([5.0, 5.0, 0.0])
    without = _rce(student, teacher, [], n_top=2)
    entropies = -0.5 * student[:2].log_softmax(0).sum()
    torch.testing.assert_close(without, (1 - math.exp(-3)) * entropies)


def test_huge_scores_neither_overflow_nor_vanish() -> None:
    scores = torch.tensor([3e4, -3e4, 1e4, 0.0]).requires_grad_()
    loss = _rce(scores, -scores.detach(), [4], n_top=2)
    loss.backward()
    assert loss.isfinite()
    assert loss > 1e4
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


@pytest.mark.usefixtures("production_checks")
def test_what_does_not_belong_together_is_refused() -> None:
    scores = torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="n_top must be 1 or more, found 0"):
        _rce(scores, scores, [1], n_top=0)
    for decay in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="overlap_decay must be 0 or more and finite"):
            _rce(scores, scores, [1], n_top=1, overlap_decay=decay)
    with pytest.raises(ValueError, match="8 states, 7 rows"):
        problem.with_soft(rce_closure(SAMPLED[1:]), chunk_positions=1024)(
            problem.STATES, problem.VECTORS
        )


def test_the_logits_stay_as_they_are() -> None:
    """Other losses of the same positions read them afterwards."""
    student, teacher = torch.arange(6.0).reshape(1, 6), torch.arange(6.0).flip(0).reshape(1, 6)
    before = student.clone(), teacher.clone()
    rce_closure(torch.tensor([[1, 3]]), n_top=2)(student, teacher, slice(0, 1))
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])
