"""Distillation on drawn candidates: what is estimated, how biased it is, and the classic error."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys_core.distillation.factorized_selection import SoftWeights, factorized_distillation
from recsys_core.distillation.losses.divergences import (
    Divergence,
    forward_kl,
    jensen_shannon,
    reverse_kl,
)
from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.training.batch import Batch
from recsys_core.training.losses.sampled_candidates import SampledCandidates
from recsys_core.training.negative_sampling import SampledNegatives
from recsys_core.training.sparse_batch import SparseBatch
from tests.recsys_core.distillation.losses.problem import (
    ITEMS,
    STATES,
    TARGETS,
    TEACHER_DIM,
    TEACHER_STATES,
    VECTORS,
    WEIGHTS,
)

DRAWN = torch.tensor([3, 1, 3, 9, 12, 5, 13, 1])
"""Repeated items, and targets of some positions."""
LOG_EXPECTED = torch.tensor([0.3, -1.2, 0.3, -0.7, 0.1, -2.0, 0.8, -1.2])
POSITIVES = torch.cat(
    [TARGETS[:, None], (TARGETS[:, None] + torch.tensor([4, 7])) % ITEMS + 1], dim=1
)
POSITIVES[[2, 5], 1] = 0
TEACHER_VECTORS = 1.5 * torch.randn(
    ITEMS + 1, TEACHER_DIM, generator=torch.Generator().manual_seed(4)
)
DIVERGENCES: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}
KD_WEIGHT, TEMPERATURE = 0.7, 2.0


def _divergence(name: str, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Of log-probabilities, by torch's own function, KL(target ‖ input)."""
    if name == "forward_kl":
        return F.kl_div(student, teacher, reduction="sum", log_target=True)
    if name == "reverse_kl":
        return F.kl_div(teacher, student, reduction="sum", log_target=True)
    mixture = ((student.exp() + teacher.exp()) / 2).log()
    halves = (_divergence("forward_kl", mixture, side) for side in (student, teacher))
    return sum(halves, student.new_zeros(())) / 2


def _reference(name: str, states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Position by position: positives as they are, draws of other items corrected."""
    losses: list[torch.Tensor] = []
    for position, state in enumerate(states):
        positives = [row for row in POSITIVES[position].tolist() if row]
        is_other = torch.tensor([row not in positives for row in DRAWN.tolist()])
        rows = torch.cat([torch.tensor(positives), DRAWN[is_other]])
        expected = torch.cat([torch.zeros(len(positives)), LOG_EXPECTED[is_other]]).double()
        scores = vectors[rows] @ state
        losses.append(-(scores - expected).log_softmax(0)[0])
        if not TEACHER_STATES[position].isnan().any():
            of_teacher = TEACHER_VECTORS[rows].double() @ TEACHER_STATES[position].double()
            sides = (
                (side / TEMPERATURE - expected).log_softmax(0) for side in (scores, of_teacher)
            )
            losses[-1] = losses[-1] + KD_WEIGHT * TEMPERATURE**2 * _divergence(name, *sides)
    weights = WEIGHTS.double()
    return (torch.stack(losses) * weights).sum() / weights.sum()


@pytest.mark.parametrize("chunk_positions", [1, 3, 1024])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_value_and_gradient_are_those_of_the_corrected_logits(
    name: str, chunk_positions: int
) -> None:
    states, vectors = STATES.clone().requires_grad_(), VECTORS.clone().requires_grad_()
    loss = distillation_loss(
        states,
        vectors,
        torch.ones_like(TARGETS),
        teacher_states=TEACHER_STATES,
        teacher_item_vectors=TEACHER_VECTORS,
        kd_weight=KD_WEIGHT,
        temperature=TEMPERATURE,
        divergence=DIVERGENCES[name],
        weights=WEIGHTS,
        candidates=SampledCandidates(POSITIVES, DRAWN, LOG_EXPECTED),
        chunk_positions=chunk_positions,
    )
    loss.backward()
    exact = [side.double().requires_grad_() for side in (STATES, VECTORS)]
    expected = _reference(name, *exact)
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    for found, side in zip((states, vectors), exact, strict=True):
        assert found.grad is not None
        assert side.grad is not None
        torch.testing.assert_close(found.grad.double(), side.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_student_that_equals_its_teacher_is_left_alone(name: str, temperature: float) -> None:
    """The classic error: one side is corrected, and a perfect student is pulled away."""

    def gradient(kd_weight: float) -> torch.Tensor:
        states = STATES.clone().requires_grad_()
        distillation_loss(
            states,
            VECTORS,
            torch.ones_like(TARGETS),
            teacher_states=STATES,
            teacher_item_vectors=VECTORS,
            kd_weight=kd_weight,
            temperature=temperature,
            divergence=DIVERGENCES[name],
            candidates=SampledCandidates(TARGETS[:, None], DRAWN, LOG_EXPECTED),
        ).backward()
        assert states.grad is not None
        return states.grad

    torch.testing.assert_close(gradient(100.0), gradient(0.0), rtol=0, atol=1e-4)


PROPOSAL = torch.tensor([0.35, 0.0, 0.65])
"""Of three items; the target is item 2."""


def _outcomes(n_draws: int) -> Iterator[tuple[torch.Tensor, float]]:
    """Everything that n draws can be, in any order, and how likely that is."""
    for n_first in range(n_draws + 1):
        drawn = torch.tensor([0] * n_first + [2] * (n_draws - n_first))
        likelihood = float(PROPOSAL.double()[drawn].prod())
        yield drawn, math.comb(n_draws, n_first) * likelihood


@pytest.mark.usefixtures("production_checks")  # their cost is that of a hundred calls
@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_bias_of_the_gradient_falls_with_the_number_of_draws(name: str) -> None:
    """The expected gradient over all outcomes of the draws, against that of the whole catalogue."""
    scores, taught = torch.tensor([[0.4, -0.7, 1.0]]), torch.tensor([[-0.5, 0.8, 0.3]])
    items = F.pad(torch.eye(3), (0, 0, 1, 0))  # the states are the scores

    exact = scores.double().requires_grad_()
    student, teacher = exact.log_softmax(1)[0], taught.double().log_softmax(1)[0]
    (_divergence(name, student, teacher) - student[1]).backward()
    assert exact.grad is not None

    def bias(n_draws: int) -> float:
        mean = torch.zeros(1, 3, dtype=torch.float64)
        for drawn, probability in _outcomes(n_draws):
            states = scores.clone().requires_grad_()
            distillation_loss(
                states,
                items,
                torch.tensor([1]),
                teacher_states=taught,
                teacher_item_vectors=items,
                kd_weight=1.0,
                temperature=1.0,
                divergence=DIVERGENCES[name],
                candidates=SampledCandidates(
                    torch.tensor([[2]]), drawn + 1, (n_draws * PROPOSAL[drawn]).log()
                ),
            ).backward()
            assert states.grad is not None
            mean += probability * states.grad.double()
        assert exact.grad is not None
        return float((mean - exact.grad).norm() / exact.grad.norm())

    assert sum(probability for _, probability in _outcomes(8)) == pytest.approx(1)
    biases = [bias(n_draws) for n_draws in (16, 32, 64)]
    assert biases[0] < 0.005, "of the gradient's length"
    for larger, smaller in pairwise(biases):
        assert larger / smaller == pytest.approx(2, rel=0.05), "twice the draws, half the bias"


@pytest.mark.usefixtures("production_checks")
def test_the_teachers_top_items_are_taught_whatever_was_drawn() -> None:
    """50 draws of 2,000 items: an item by itself is drawn in 2.5 % of the steps.

    The teacher gives ten items 90 % of its probability, and the student scores all alike.
    """
    n_items, n_draws, likely = 2000, 50, torch.arange(100, 110)
    taught = torch.zeros(n_items + 1)
    taught[likely] = math.log(0.9 / 10) - math.log(0.1 / (n_items - 10))
    loss, hard = (
        factorized_distillation(
            taught[:, None].numpy(),
            SoftWeights(divergence=weight),
            divergence="forward_kl",
            temperature=1.0,
            on_device=None,
        )
        for weight in (1.0, 0.0)
    )
    listed = SparseBatch(torch.cat([likely, torch.arange(1, 23)])[None])
    batch = Batch(torch.tensor([[1]]), torch.tensor([[50]]), torch.ones(1, 1), sparse_labels=listed)
    candidates = SampledNegatives(np.ones(n_items + 1, np.int64), n_negatives=n_draws, uniform=True)
    every_item = F.pad(torch.eye(n_items), (0, 0, 1, 0))  # the states are the scores

    def gradient(seed: int) -> torch.Tensor:
        restricted = candidates.restrict(batch, (seed,))
        assert restricted.items is not None
        states, vectors = torch.zeros(1, n_items, requires_grad=True), every_item[restricted.items]
        value = loss(states, vectors, restricted) - hard(states, vectors, restricted)
        (found,) = torch.autograd.grad(value, states)
        return found[0, likely - 1]

    mean = torch.stack([gradient(seed) for seed in range(30)]).mean(dim=0)
    exact = 1 / n_items - 0.9 / 10
    assert mean.min() > 1.1 * exact
    assert mean.max() < 0.5 * exact
