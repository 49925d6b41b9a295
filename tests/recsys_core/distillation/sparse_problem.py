"""A small problem for losses on sparse labels: positions with short lists, repeats and no label."""

from collections.abc import Callable, Sequence

import torch

from recsys_core.training.losses.seen import NO_CANDIDATE

POSITIONS, ITEMS, DIM, TOP_K = 7, 11, 5, 4
TOP_IDS = torch.tensor(
    [
        [3, 1, 9, 2],
        [4, 0, 0, 0],
        [0, 0, 0, 0],
        [7, 2, 0, 0],
        [1, 2, 3, 4],
        [5, 9, 10, 0],
        [11, 10, 9, 8],
    ]
)
"""Rows of listed items; position 2 has no label, and item 0 is padding."""
TARGETS = torch.tensor([1, 5, 3, 2, 8, 10, 6])
SEEN = [{5}, {4}, {1}, {7, 8}, {1, 2, 3}, set[int](), set(range(1, 12)) - {11, 9, 6}]
"""Rows that don't compete. All that position 1 lists is seen, and position 6 has few others."""
WEIGHTS = torch.linspace(0.5, 2.0, POSITIONS)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of states and item vectors."""


class SeenRows:
    """Seen items, listed by position."""

    def mask(self, logits: torch.Tensor, rows: slice) -> None:
        for row, seen in zip(logits, SEEN[rows], strict=True):
            row[[item - 1 for item in seen]] = NO_CANDIDATE


def values(*shape: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


STATES, VECTORS = values(POSITIONS, DIM, seed=1), values(ITEMS + 1, DIM, seed=2)
TEACHER_LOGITS = values(POSITIONS, ITEMS + 1, seed=3).half().float()
"""By row, exact in float16; row 0 is padding."""


def listed_logits() -> torch.Tensor:
    """The teacher's logits of the listed items."""
    return TEACHER_LOGITS.gather(1, TOP_IDS)


def competing(position: int, *, with_seen: bool) -> list[int]:
    """The rows that compete at a position."""
    barred: set[int] = SEEN[position] if with_seen else set()
    return [row for row in range(1, ITEMS + 1) if row not in barred]


def reference(
    divergence: Callable[[int, torch.Tensor, list[int]], torch.Tensor],
    *,
    kd_weight: float,
    with_seen: bool,
) -> Loss:
    """Cross-entropy and a divergence in plain torch, position by position.

    Args:
        divergence: Of a position, the logits of all rows, and the rows that compete.
        kd_weight: Its weight.
        with_seen: Whether seen rows don't compete.
    """

    def loss(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        losses: list[torch.Tensor] = []
        for position, state in enumerate(states):
            logits, rows = vectors @ state, competing(position, with_seen=with_seen)
            hard = logits[rows].logsumexp(0) - logits[TARGETS[position]]
            losses.append(hard + kd_weight * divergence(position, logits, rows))
        weights = WEIGHTS.double()
        return (torch.stack(losses) * weights).sum() / weights.sum()

    return loss


def with_gradients(loss: Loss, dtype: torch.dtype, *, scale: float = 1.0) -> list[torch.Tensor]:
    """The value and the gradients of states and item vectors, in float64."""
    states = (scale * STATES).to(dtype, copy=True).requires_grad_()
    vectors = VECTORS.to(dtype, copy=True).requires_grad_()
    value = loss(states, vectors)
    value.backward()
    assert states.grad is not None
    assert vectors.grad is not None
    return [value.detach().double(), states.grad.double(), vectors.grad.double()]


def assert_equal(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Equal to the precision of float32."""
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
