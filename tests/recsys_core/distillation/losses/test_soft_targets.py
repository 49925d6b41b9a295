"""Distillation losses against torch's own, and every way in which they could fail silently."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.training.losses.full_softmax import next_item_cross_entropy

POSITIONS, ITEMS, DIM, TEACHER_DIM = 7, 11, 5, 6


class Problem(NamedTuple):
    states: torch.Tensor
    item_vectors: torch.Tensor
    targets: torch.Tensor
    teacher_states: torch.Tensor
    teacher_item_vectors: torch.Tensor

    def loss(
        self, *, kd_weight: float = 0.7, temperature: float = 2.0, chunk_positions: int = 3
    ) -> torch.Tensor:
        return distillation_loss(
            self.states,
            self.item_vectors,
            self.targets,
            teacher_states=self.teacher_states,
            teacher_item_vectors=self.teacher_item_vectors,
            kd_weight=kd_weight,
            temperature=temperature,
            chunk_positions=chunk_positions,
        )

    def reference(self, *, kd_weight: float, temperature: float) -> torch.Tensor:
        """By torch's own functions, all logits at once, in the precision of the tensors."""
        logits = self.states @ self.item_vectors[1:].T
        hard = F.cross_entropy(logits, self.targets - 1)
        labelled = ~self.teacher_states.isnan().any(dim=1)
        teacher = self.teacher_states[labelled] @ self.teacher_item_vectors[1:].T / temperature
        student = logits[labelled] / temperature
        divergence = F.kl_div(student.log_softmax(dim=1), teacher.softmax(dim=1), reduction="sum")
        return hard + kd_weight * temperature**2 * divergence / len(labelled)

    def doubled(self) -> "Problem":
        return Problem(
            self.states.detach().double().requires_grad_(),
            self.item_vectors.detach().double().requires_grad_(),
            self.targets,
            self.teacher_states.double(),
            self.teacher_item_vectors.double(),
        )


def _problem(*, scale: float = 1.0, unlabelled: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(4)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    teacher_states = scale * randn(POSITIONS, TEACHER_DIM)
    teacher_states[:unlabelled] = torch.nan
    return Problem(
        (scale * randn(POSITIONS, DIM)).requires_grad_(),
        randn(ITEMS + 1, DIM).requires_grad_(),
        torch.randint(1, ITEMS + 1, (POSITIONS,), generator=generator),
        teacher_states,
        randn(ITEMS + 1, TEACHER_DIM),
    )


@pytest.mark.parametrize("chunk_positions", [1, 3, 1024])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(
    "problem",
    [
        _problem(),
        _problem(unlabelled=3),
    ],
    ids=["plain", "unlabelled rows"],
)
def test_value_and_gradient_are_torchs(
    problem: Problem, temperature: float, chunk_positions: int
) -> None:
    exact = problem.doubled()
    problem = problem._replace(
        states=problem.states.detach().clone().requires_grad_(),
        item_vectors=problem.item_vectors.detach().clone().requires_grad_(),
    )
    given = [values.clone() for values in problem]
    loss = problem.loss(kd_weight=0.7, temperature=temperature, chunk_positions=chunk_positions)
    loss.backward()
    expected = exact.reference(kd_weight=0.7, temperature=temperature)
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    for name in ("states", "item_vectors"):
        found = getattr(problem, name).grad.double()
        torch.testing.assert_close(found, getattr(exact, name).grad, rtol=1e-4, atol=1e-6)
    for before, after in zip(given, problem, strict=True):
        torch.testing.assert_close(after, before, atol=0, rtol=0, equal_nan=True)


def test_without_weight_or_labels_the_cross_entropy_remains() -> None:
    problem = _problem()
    hard = next_item_cross_entropy(problem.states, problem.item_vectors, problem.targets)
    torch.testing.assert_close(problem.loss(kd_weight=0.0), hard)
    torch.testing.assert_close(_problem(unlabelled=POSITIONS).loss(kd_weight=5.0), hard)


def test_a_student_that_equals_its_teacher_has_no_divergence() -> None:
    problem = _problem()
    twin = problem._replace(
        teacher_states=problem.states.detach(),
        teacher_item_vectors=problem.item_vectors.detach(),
    )
    torch.testing.assert_close(twin.loss(kd_weight=1000.0), twin.loss(kd_weight=0.0))


def _divergence(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """The distillation loss without its cross-entropy; states that are the logits themselves."""
    items = F.pad(torch.eye(student_logits.shape[1]), (0, 0, 1, 0))
    problem = Problem(
        student_logits,
        items,
        torch.ones(len(student_logits), dtype=torch.int64),
        teacher_logits,
        items,
    )
    with_teacher, alone = (problem.loss(kd_weight=w, temperature=temperature) for w in (1.0, 0.0))
    return with_teacher - alone


def test_the_divergence_by_hand_and_which_side_is_which() -> None:
    sure, even = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    forward = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    backward = 0.5 * torch.tensor(2 / 3).log() + 0.5 * torch.tensor(2.0).log()
    torch.testing.assert_close(_divergence(even, sure, temperature=1.0), forward)
    torch.testing.assert_close(_divergence(sure, even, temperature=1.0), backward)


def test_gradients_keep_their_size_across_temperatures() -> None:
    """Hinton et al., section 2: that is what the factor temperature² is for."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (0.1 * torch.randn(50, 20, generator=generator) for _ in range(2))
    norms: list[float] = []
    for temperature in (1.0, 10.0, 100.0):
        leaf = student.clone().requires_grad_()
        _divergence(leaf, teacher, temperature=temperature).backward()
        assert leaf.grad is not None
        norms.append(float(leaf.grad.norm()))
    assert norms == pytest.approx([norms[0]] * 3, rel=0.05)
    by_nine = _divergence(student / 3, teacher / 3, temperature=1.0).item() * 9
    assert by_nine == pytest.approx(_divergence(student, teacher, temperature=3.0).item(), rel=1e-3)


def test_huge_scores_neither_overflow_nor_vanish() -> None:
    problem = _problem(scale=1e4)
    exact = problem.doubled()
    loss = problem.loss(kd_weight=1.0, temperature=0.5)
    loss.backward()
    expected = exact.reference(kd_weight=1.0, temperature=0.5)
    assert loss.isfinite()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=0)
    assert problem.states.grad is not None
    assert problem.states.grad.isfinite().all()


def test_a_broken_teacher_table_is_not_hidden() -> None:
    problem = _problem()
    problem.teacher_item_vectors[3, 0] = torch.nan
    assert problem.loss().isnan()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        _problem().loss(temperature=temperature)


@pytest.mark.usefixtures("production_checks")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"teacher_states": torch.zeros(6, TEACHER_DIM)}, "labels for 6 positions over 12 items"),
        ({"teacher_states": torch.zeros(7, TEACHER_DIM - 1)}, "cannot be multiplied"),
        (
            {"teacher_item_vectors": torch.zeros(ITEMS, TEACHER_DIM)},
            "over 11 items do not fit 7 positions over 12 items",
        ),
        (
            {
                "teacher_item_vectors": torch.zeros(2, TEACHER_DIM),
                "item_vectors": torch.zeros(2, DIM),
            },
            "two or more items",
        ),
        ({"targets": torch.ones(1, dtype=torch.int64)}, "7 states, 1 targets"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    changes: dict[str, torch.Tensor], sentence: str
) -> None:
    with pytest.raises((ValueError, RuntimeError), match=sentence):
        _problem()._replace(**changes).loss()


@pytest.mark.usefixtures("production_checks")
def test_no_positions_are_refused() -> None:
    problem = _problem()
    with pytest.raises(ValueError, match="at least one position"):
        problem._replace(
            states=problem.states[:0],
            targets=problem.targets[:0],
            teacher_states=problem.teacher_states[:0],
        ).loss()
