"""The sampled losses against float64 references, and against what they estimate."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from recsys_core.training.losses.gbce import gbce
from recsys_core.training.losses.sampled_softmax import sampled_softmax

N_ITEMS, POSITIONS, DIM = 13, 9, 5
NEGATIVES = torch.tensor([4, 1, 4, 9, 2, 13])
LOG_EXPECTED = torch.tensor([0.3, -1.2, 0.3, -0.7, 0.1, -2.0])

Loss = Callable[..., torch.Tensor]


def _problem(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    states = scale * torch.randn(POSITIONS, DIM, generator=generator)
    vectors = torch.randn(N_ITEMS + 1, DIM, generator=generator)
    targets = torch.randint(1, N_ITEMS + 1, (POSITIONS,), generator=generator)
    targets[0], targets[1] = 4, 9  # drawn as negatives, too
    return states.requires_grad_(), vectors.requires_grad_(), targets


def _softmax(states: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Position by position, with the target's accidental hits left out."""
    losses: list[torch.Tensor] = []
    for state, target in zip(states, targets, strict=True):
        terms = [state @ vectors[target]]
        for negative, log_expected in zip(NEGATIVES, LOG_EXPECTED.double(), strict=True):
            if negative != target:
                terms.append(state @ vectors[negative] - log_expected)
        losses.append(torch.logsumexp(torch.stack(terms), 0) - terms[0])
    return torch.stack(losses)


def _gbce(states: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    rate = len(NEGATIVES) / (N_ITEMS - 1)
    beta = rate * (0.75 * (1 - 1 / rate) + 1 / rate)
    losses: list[torch.Tensor] = []
    for state, target in zip(states, targets, strict=True):
        loss = -beta * F.logsigmoid(state @ vectors[target])
        for negative in NEGATIVES[target != NEGATIVES]:
            loss = loss - F.logsigmoid(-(state @ vectors[negative]))
        losses.append(loss)
    return torch.stack(losses)


CASES: list[tuple[Loss, Loss]] = [
    (
        lambda *a, **k: sampled_softmax(*a, negatives=NEGATIVES, log_expected=LOG_EXPECTED, **k),
        _softmax,
    ),
    (lambda *a, **k: gbce(*a, negatives=NEGATIVES, n_items=N_ITEMS, **k), _gbce),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk_positions", [1, 4, 512])
@pytest.mark.parametrize(("loss", "reference"), CASES)
def test_value_and_gradient_are_the_references(
    loss: Loss, reference: Loss, chunk_positions: int, weighted: bool
) -> None:
    states, vectors, targets = _problem()
    weights = torch.linspace(0, 2, POSITIONS) if weighted else torch.ones(POSITIONS)
    found = loss(
        states,
        vectors,
        targets,
        weights=weights if weighted else None,
        chunk_positions=chunk_positions,
    )
    (2 * found).backward()
    exact_states = states.detach().double().requires_grad_()
    exact_vectors = vectors.detach().double().requires_grad_()
    each = reference(exact_states, exact_vectors, targets)
    expected = (each * weights.double()).sum() / weights.double().sum()
    (2 * expected).backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    for got, exact in ((states, exact_states), (vectors, exact_vectors)):
        assert got.grad is not None
        assert exact.grad is not None
        torch.testing.assert_close(got.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_a_sample_of_everything_is_the_full_softmax() -> None:
    states, vectors, targets = _problem()
    full = next_item_cross_entropy(states, vectors, targets)
    sampled = sampled_softmax(
        states,
        vectors,
        targets,
        negatives=torch.arange(1, N_ITEMS + 1),
        log_expected=torch.zeros(N_ITEMS),
    )
    torch.testing.assert_close(sampled, full)


@pytest.mark.usefixtures("production_checks")  # their cost is that of thousands of calls
def test_the_normaliser_is_unbiased_under_a_skewed_proposal() -> None:
    states, vectors, targets = _problem(0.3)
    rng = np.random.default_rng(0)
    proposal = rng.dirichlet(np.full(N_ITEMS, 2.0))
    full = (states @ vectors[1:].T).exp().sum(dim=1)
    n_draws = 5
    estimates: list[torch.Tensor] = []
    for _ in range(4000):
        drawn = rng.choice(N_ITEMS, n_draws, p=proposal)
        loss = sampled_softmax(
            states[:1],
            vectors,
            targets[:1],
            negatives=torch.from_numpy(drawn + 1),
            log_expected=torch.from_numpy(np.log(n_draws * proposal[drawn])).float(),
        )
        estimates.append(loss.detach())
    target_logit = (states[0] * vectors[targets[0]]).sum()
    normaliser = (torch.stack(estimates) + target_logit.detach()).exp().mean()
    torch.testing.assert_close(normaliser, full[0].detach(), rtol=0.02, atol=0)


@pytest.mark.parametrize(("loss", "reference"), CASES)
def test_huge_scores_stay_finite(loss: Loss, reference: Loss) -> None:
    states, vectors, targets = _problem(1e4)
    found = loss(states, vectors, targets)
    found.backward()
    exact = reference(states.detach().double(), vectors.detach().double(), targets).mean()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)
    assert states.grad is not None
    assert states.grad.isfinite().all()


@pytest.mark.usefixtures("production_checks")
@pytest.mark.parametrize(("loss", "reference"), CASES)
def test_what_does_not_fit_is_refused(loss: Loss, reference: Loss) -> None:
    del reference
    states, vectors, targets = _problem()
    with pytest.raises(ValueError, match="at least one position"):
        loss(states[:0], vectors, targets[:0])
    with pytest.raises(ValueError, match="9 states, 2 weights"):
        loss(states, vectors, targets, weights=torch.ones(2))
