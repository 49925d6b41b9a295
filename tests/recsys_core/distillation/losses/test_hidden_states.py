"""Hidden-state matching against a loop in float64, and what it must refuse."""

import pytest
import torch

from recsys_core.distillation.losses.hidden_states import hidden_state_matching

POSITIONS, DIM, TEACHER_DIM = 6, 3, 5


def _values(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


STATES = _values(POSITIONS, DIM, seed=1)
PROJECTION = _values(DIM, TEACHER_DIM, seed=2)
TEACHER_STATES = _values(POSITIONS, TEACHER_DIM, seed=3)
TEACHER_STATES[[0, 4]] = torch.nan
WEIGHTS = torch.linspace(0.5, 2.0, POSITIONS)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal weights", "weights"])
def test_value_and_gradient_are_those_of_a_loop(weights: torch.Tensor | None) -> None:
    found = [x.clone().requires_grad_() for x in (STATES, PROJECTION)]
    exact = [x.double().requires_grad_() for x in (STATES, PROJECTION)]
    loss = hidden_state_matching(found[0], found[1], TEACHER_STATES, weights=weights)
    loss.backward()
    shares = torch.ones(POSITIONS) if weights is None else weights
    total = torch.zeros((), dtype=torch.float64)
    for position in (1, 2, 3, 5):
        student, teacher = exact[0][position] @ exact[1], TEACHER_STATES[position].double()
        cosine = student @ teacher / (student.norm() * teacher.norm())
        total = total + shares[position].double() * (2 - 2 * cosine)
    total = total / shares.double().sum()
    total.backward()
    torch.testing.assert_close(loss.double(), total, rtol=1e-5, atol=1e-6)
    for one, other in zip(found, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-6)


def test_only_directions_count() -> None:
    states, identity = _values(4, DIM, seed=4), torch.eye(DIM)
    same = hidden_state_matching(states, identity, 100 * states)
    opposite = hidden_state_matching(states, identity, -0.01 * states)
    assert same.item() == pytest.approx(0.0, abs=1e-6)
    assert opposite.item() == pytest.approx(4.0, rel=1e-6)


def test_the_teacher_gets_no_gradient_and_stays_as_it_is() -> None:
    teacher = TEACHER_STATES.clone().requires_grad_()
    hidden_state_matching(STATES.clone().requires_grad_(), PROJECTION, teacher).backward()
    assert teacher.grad is None
    torch.testing.assert_close(teacher.detach(), TEACHER_STATES, atol=0, rtol=0, equal_nan=True)


def test_without_labels_there_is_neither_loss_nor_gradient() -> None:
    states = STATES.clone().requires_grad_()
    loss = hidden_state_matching(states, PROJECTION, torch.full_like(TEACHER_STATES, torch.nan))
    loss.backward()
    assert loss.item() == 0.0
    assert states.grad is not None
    assert not states.grad.any()


@pytest.mark.usefixtures("production_checks")
def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="labels for 5 positions do not fit 6"):
        hidden_state_matching(STATES, PROJECTION, TEACHER_STATES[1:])
    with pytest.raises(ValueError, match="6 states, 5 weights"):
        hidden_state_matching(STATES, PROJECTION, TEACHER_STATES, weights=WEIGHTS[1:])
    with pytest.raises(ValueError, match="at least one position"):
        hidden_state_matching(STATES[:0], PROJECTION, TEACHER_STATES[:0])
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        hidden_state_matching(STATES, PROJECTION[1:], TEACHER_STATES)
