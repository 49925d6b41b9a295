"""The chunked losses against torch's own, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

from recsys_core.training.losses.chunked import chunked_loss
from recsys_core.training.losses.full_softmax import (
    cross_entropy_to_gradient,
    next_item_cross_entropy,
)


def _problem(
    positions: int = 7, items: int = 11, dim: int = 5, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(positions * items)
    states = scale * torch.randn(positions, dim, generator=generator)
    vectors = torch.randn(items + 1, dim, generator=generator)
    targets = torch.randint(1, items + 1, (positions,), generator=generator)
    return states.requires_grad_(), vectors.requires_grad_(), targets


@pytest.mark.parametrize("chunk_positions", [1, 3, 7, 1024])
@pytest.mark.parametrize("positions", [1, 7])
def test_value_and_gradient_are_torchs(positions: int, chunk_positions: int) -> None:
    states, vectors, targets = _problem(positions)
    loss = next_item_cross_entropy(states, vectors, targets, chunk_positions=chunk_positions)
    (3 * loss).backward()
    exact_states = states.detach().double().requires_grad_()
    exact_vectors = vectors.detach().double().requires_grad_()
    exact = F.cross_entropy(exact_states @ exact_vectors[1:].T, targets - 1)
    (3 * exact).backward()
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)
    for found, expected in ((states, exact_states), (vectors, exact_vectors)):
        assert found.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)
    assert vectors.grad is not None
    assert not vectors.grad[0].any()


def test_weights_are_shares_of_the_mean() -> None:
    states, vectors, targets = _problem()
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0, 0.0, 0.0])
    loss = next_item_cross_entropy(states, vectors, targets, weights=weights, chunk_positions=2)
    loss.backward()
    one, other = (
        next_item_cross_entropy(states[i : i + 1], vectors, targets[i : i + 1]) for i in (1, 3)
    )
    torch.testing.assert_close(loss, (one + 3 * other) / 4)
    assert states.grad is not None
    assert (states.grad.abs().sum(dim=1) > 0).tolist() == (weights > 0).tolist()


def test_the_gradient_is_that_of_finite_differences() -> None:
    states, vectors, targets = _problem(3, 4, 3)
    next_item_cross_entropy(states, vectors, targets, chunk_positions=2).backward()
    assert states.grad is not None
    assert vectors.grad is not None
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        to_states, to_vectors = (
            torch.randn(values.shape, generator=generator) for values in (states, vectors)
        )
        with torch.no_grad():
            ahead, behind = (
                next_item_cross_entropy(
                    states + step * to_states, vectors + step * to_vectors, targets
                )
                for step in (1e-2, -1e-2)
            )
        slope = (states.grad * to_states).sum() + (vectors.grad * to_vectors).sum()
        torch.testing.assert_close(slope, (ahead - behind) / 2e-2, rtol=1e-2, atol=1e-3)


def test_huge_scores_neither_overflow_nor_underflow() -> None:
    states, vectors, targets = _problem(scale=1e4)
    loss = next_item_cross_entropy(states, vectors, targets)
    loss.backward()
    exact = F.cross_entropy(states.detach().double() @ vectors.detach().double()[1:].T, targets - 1)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
    assert states.grad is not None
    assert states.grad.isfinite().all()


def test_a_sure_and_right_model_has_no_loss() -> None:
    states = 100 * torch.eye(3)
    vectors = torch.cat([torch.zeros(1, 3), torch.eye(3)])
    assert next_item_cross_entropy(states, vectors, torch.tensor([1, 2, 3])).item() == 0
    assert next_item_cross_entropy(states, vectors, torch.tensor([2, 3, 1])).item() == 100


def test_nan_is_not_hidden() -> None:
    states, vectors, targets = _problem()
    with torch.no_grad():
        vectors[4, 0] = torch.nan
    assert next_item_cross_entropy(states, vectors, targets).isnan()


def test_no_positions_are_refused() -> None:
    _, vectors, _ = _problem()
    with pytest.raises(ValueError, match="at least one position"):
        next_item_cross_entropy(torch.zeros(0, 5), vectors, torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one position"):
        chunked_loss(torch.zeros(0, 5), vectors, lambda logits, _: logits.sum())


@pytest.mark.parametrize("target", [0, 12])
def test_a_target_outside_of_the_catalogue_is_refused(target: int) -> None:
    states, vectors, targets = _problem()
    targets[3] = target
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        next_item_cross_entropy(states, vectors, targets)


@pytest.mark.usefixtures("production_checks")
def test_a_single_target_is_not_spread_over_all_positions() -> None:
    """The shapes would broadcast: every position would learn the same target."""
    states, vectors, targets = _problem()
    with pytest.raises(ValueError, match="7 states, 1 targets"):
        next_item_cross_entropy(states, vectors, targets[:1])
    with pytest.raises(ValueError, match="7 states, 1 weights"):
        next_item_cross_entropy(states, vectors, targets, weights=torch.ones(1))


def test_the_logits_become_the_gradient() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    loss = cross_entropy_to_gradient(logits, torch.tensor([2]))
    torch.testing.assert_close(loss, torch.tensor([4.0]).log())
    torch.testing.assert_close(logits, torch.tensor([[0.25, 0.25, -0.75, 0.25]]))
