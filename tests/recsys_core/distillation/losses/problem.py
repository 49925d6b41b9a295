"""A distillation problem with all that complicates one, and its dense float64 reference."""

import math
from collections.abc import Callable

import torch

from recsys_core.distillation.losses.hard_and_soft import (
    SoftLoss,
    SoftTerm,
    hard_and_soft_loss,
)
from recsys_core.training.losses.seen import NO_CANDIDATE

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of states and item vectors."""

SoftReference = Callable[[torch.Tensor, torch.Tensor, list[int], int], torch.Tensor]
"""Of all items' scores by the student and by the teacher, the columns of the items that compete,
and the position."""

POSITIONS, ITEMS, DIM, TEACHER_DIM = 8, 13, 5, 4
KD_WEIGHT = 0.7


class SeenMask:
    """Seen items as a mask `[positions, items]`."""

    def __init__(self, is_seen: torch.Tensor) -> None:
        self.is_seen = is_seen

    def mask(self, logits: torch.Tensor, rows: slice) -> None:
        logits.masked_fill_(self.is_seen[rows], NO_CANDIDATE)


def _values(*shape: int, seed: int) -> torch.Tensor:
    return 1.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


STATES = _values(POSITIONS, DIM, seed=1)
VECTORS = _values(ITEMS + 1, DIM, seed=2)
TEACHER_STATES = _values(POSITIONS, TEACHER_DIM, seed=3)
TEACHER_STATES[[1, 6]] = torch.nan
LABELLED = ~TEACHER_STATES.isnan().any(dim=1)
TEACHER_VECTORS = _values(ITEMS + 1, TEACHER_DIM, seed=4)
TARGETS = torch.tensor([1, 5, 13, 2, 9, 4, 10, 12])
WEIGHTS = torch.linspace(0.5, 2.0, POSITIONS)
SEEN = SeenMask(_values(POSITIONS, ITEMS, seed=5) > 1.0)
SEEN.is_seen[torch.arange(POSITIONS), TARGETS - 1] = False
SEEN.is_seen[3, 2:9] = True  # six items are left


def reference(soft: SoftReference, weight: float = KD_WEIGHT, *, seen: bool = True) -> Loss:
    """The cross-entropy of the targets plus weight × soft, position by position."""

    def loss(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        losses: list[torch.Tensor] = []
        for position, state in enumerate(states):
            scores = vectors[1:] @ state
            competing = ~(SEEN.is_seen[position] & seen)
            losses.append(scores[competing].logsumexp(0) - scores[TARGETS[position] - 1])
            if LABELLED[position]:
                teacher = TEACHER_VECTORS[1:].double() @ TEACHER_STATES[position].double()
                columns = competing.nonzero()[:, 0].tolist()
                losses[-1] = losses[-1] + weight * soft(scores, teacher, columns, position)
        weights = WEIGHTS.double()
        return (torch.stack(losses) * weights).sum() / weights.sum()

    return loss


def ranking_reference(drawn: torch.Tensor, n_top: int) -> SoftReference:
    """Relaxed ranking distillation in loops."""

    def soft(
        student: torch.Tensor, teacher: torch.Tensor, columns: list[int], position: int
    ) -> torch.Tensor:
        ranking = sorted(columns, key=lambda column: -teacher[column].item())[:n_top]
        rest = set(columns) - set(ranking)
        others = [column for column in (drawn[position] - 1).tolist() if column in rest]
        loss = student.new_zeros(())
        for k, item in enumerate(ranking):
            loss = loss - student[item] + student[ranking[k:] + others].exp().sum().log()
        return loss

    return soft


def closure_reference(drawn: torch.Tensor, n_top: int, overlap_decay: float) -> SoftReference:
    """Rejuvenated cross-entropy in loops."""

    def soft(
        student: torch.Tensor, teacher: torch.Tensor, columns: list[int], position: int
    ) -> torch.Tensor:
        def top(scores: torch.Tensor) -> set[int]:
            return set(sorted(columns, key=lambda column: -scores[column].item())[:n_top])

        def cross_entropy(part: set[int]) -> torch.Tensor:
            loss = student.new_zeros(())
            items = sorted(part)
            for item in items:
                p = teacher[item].exp() / teacher[items].exp().sum()
                loss = loss - p * (student[item] - student[items].exp().sum().log())
            return loss

        own, taught = top(student), top(teacher)
        sampled = set((drawn[position] - 1).tolist()) & set(columns)
        gamma = math.exp(-overlap_decay * len(own & taught) / len(taught))
        others = cross_entropy((taught - own) | sampled)
        return (1 - gamma) * cross_entropy(own) + gamma * others

    return soft


def with_soft(soft: SoftLoss, *, chunk_positions: int) -> Loss:
    """The cross-entropy of the targets plus `KD_WEIGHT` × a soft loss, as training computes it."""

    def loss(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return hard_and_soft_loss(
            states,
            vectors,
            TARGETS,
            [SoftTerm(soft, KD_WEIGHT)],
            teacher_states=TEACHER_STATES,
            teacher_item_vectors=TEACHER_VECTORS,
            weights=WEIGHTS,
            seen=SEEN,
            chunk_positions=chunk_positions,
        )

    return loss


def of_one_position(
    soft: SoftLoss, student_scores: torch.Tensor, teacher_scores: torch.Tensor
) -> torch.Tensor:
    """A soft loss by itself: item vectors that are the scores, without the cross-entropy."""
    loss = hard_and_soft_loss(
        torch.ones(1, 1),
        torch.cat([torch.zeros(1), student_scores])[:, None],
        torch.tensor([1]),
        [SoftTerm(soft, 1.0)],
        teacher_states=torch.ones(1, 1),
        teacher_item_vectors=torch.cat([torch.zeros(1), teacher_scores])[:, None],
    )
    return loss - (student_scores.logsumexp(0) - student_scores[0])


def assert_same_value_and_gradients(loss: Loss, expected: Loss) -> None:
    """The loss in float32 beside its reference in float64."""
    for found, exact in zip(
        _with_gradients(loss, torch.float32), _with_gradients(expected, torch.float64), strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def _with_gradients(loss: Loss, dtype: torch.dtype) -> list[torch.Tensor]:
    states = STATES.to(dtype, copy=True).requires_grad_()
    vectors = VECTORS.to(dtype, copy=True).requires_grad_()
    value = loss(states, vectors)
    value.backward()
    assert states.grad is not None
    assert vectors.grad is not None
    return [value.detach().double(), states.grad.double(), vectors.grad.double()]
