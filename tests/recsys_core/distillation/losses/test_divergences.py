"""Divergences by hand, against torch's own, and their gradients against autograd's."""

import math

import pytest
import torch
import torch.nn.functional as F

from recsys_core.distillation.losses.divergences import (
    Divergence,
    forward_kl,
    jensen_shannon,
    reverse_kl,
)
from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.training.losses.seen import NO_CANDIDATE
from tests.recsys_core.distillation.losses import problem

TEACHER = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.1, 0.6, 0.3]])
STUDENT = torch.tensor([[0.3, 0.4, 0.3], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
DIVERGENCES: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}
each_divergence = pytest.mark.parametrize("name", DIVERGENCES)


def _reference(name: str, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Of log-probabilities of one position, by torch's own function, KL(target ‖ input)."""
    if name == "forward_kl":
        return F.kl_div(student, teacher, reduction="sum", log_target=True)
    if name == "reverse_kl":
        return F.kl_div(teacher, student, reduction="sum", log_target=True)
    mixture = ((student.exp() + teacher.exp()) / 2).log()
    return (
        F.kl_div(mixture, student, reduction="sum", log_target=True)
        + F.kl_div(mixture, teacher, reduction="sum", log_target=True)
    ) / 2


@pytest.mark.parametrize(
    ("name", "mean"),
    [("reverse_kl", 0.15785), ("forward_kl", 0.13822), ("jensen_shannon", 0.03543)],
)
def test_the_source_articles_worked_example(name: str, mean: float) -> None:
    """Three distributions of section 4.3 of the article that this pipeline follows.

    The article defines the divergence as KL(student ‖ teacher), which is `reverse_kl`. Its printed
    arithmetic is wrong: the mean over the three positions is 0.15785 nats.
    """
    divergence, _ = DIVERGENCES[name](STUDENT.log(), TEACHER.log())
    assert divergence.mean().item() == pytest.approx(mean, abs=5e-6)


@each_divergence
def test_value_and_gradient_are_those_of_autograd(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    student, teacher = (3 * torch.randn(6, 9, generator=generator) for _ in range(2))
    logits = student.double().requires_grad_()
    exact = torch.stack(
        [
            _reference(name, *pair)
            for pair in zip(logits.log_softmax(1), teacher.double().log_softmax(1), strict=True)
        ]
    )
    exact.sum().backward()
    divergence, gradient = DIVERGENCES[name](student.log_softmax(1), teacher.log_softmax(1))
    torch.testing.assert_close(divergence.double(), exact, rtol=1e-5, atol=1e-6)
    assert logits.grad is not None
    torch.testing.assert_close(gradient.double(), logits.grad, rtol=1e-4, atol=1e-6)


@each_divergence
def test_equal_distributions_have_no_divergence(name: str) -> None:
    divergence, gradient = DIVERGENCES[name](TEACHER.log(), TEACHER.log())
    torch.testing.assert_close(divergence, torch.zeros(3), atol=1e-7, rtol=0)
    torch.testing.assert_close(gradient, torch.zeros(3, 3), atol=1e-7, rtol=0)


@each_divergence
def test_the_arguments_stay_as_they_are(name: str) -> None:
    student, teacher = STUDENT.log(), TEACHER.log()
    DIVERGENCES[name](student, teacher)
    assert torch.equal(student, STUDENT.log())
    assert torch.equal(teacher, TEACHER.log())


def test_jensen_shannon_is_symmetric_and_at_most_ln_2() -> None:
    one, other = TEACHER.log(), STUDENT.log()
    torch.testing.assert_close(jensen_shannon(one, other)[0], jensen_shannon(other, one)[0])
    apart = torch.tensor([[0.0, -200.0]])
    divergence, gradient = jensen_shannon(apart, apart.flip(1))
    assert divergence.item() == pytest.approx(math.log(2))
    assert gradient.isfinite().all()


@each_divergence
def test_an_item_that_does_not_compete_changes_nothing(name: str) -> None:
    erased = torch.full((3, 1), NO_CANDIDATE)
    student, teacher = (torch.cat([p.log(), erased], dim=1) for p in (STUDENT, TEACHER))
    divergence, gradient = DIVERGENCES[name](student, teacher)
    without, gradient_without = DIVERGENCES[name](STUDENT.log(), TEACHER.log())
    torch.testing.assert_close(divergence, without)
    torch.testing.assert_close(gradient[:, :3], gradient_without)
    assert not gradient[:, 3].any()


@pytest.mark.parametrize("chunk_positions", [1, 3, 1024])
@each_divergence
def test_weights_seen_items_and_missing_labels(name: str, chunk_positions: int) -> None:
    temperature = 2.0

    def soft(
        student: torch.Tensor, teacher: torch.Tensor, columns: list[int], _: int
    ) -> torch.Tensor:
        distributions = ((x[columns] / temperature).log_softmax(0) for x in (student, teacher))
        return temperature**2 * _reference(name, *distributions)

    def loss(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return distillation_loss(
            states,
            vectors,
            problem.TARGETS,
            teacher_states=problem.TEACHER_STATES,
            teacher_item_vectors=problem.TEACHER_VECTORS,
            kd_weight=problem.KD_WEIGHT,
            temperature=temperature,
            divergence=DIVERGENCES[name],
            weights=problem.WEIGHTS,
            seen=problem.SEEN,
            chunk_positions=chunk_positions,
        )

    problem.assert_same_value_and_gradients(loss, problem.reference(soft))
