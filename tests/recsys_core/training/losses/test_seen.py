"""Losses in which seen items don't compete, against dense float64 references without them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from recsys_core.training.losses.gbce import gbce
from recsys_core.training.losses.sampled_softmax import sampled_softmax
from recsys_core.training.losses.seen import SeenItems, SeenNegatives

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of states and item vectors."""

ITEMS, DIM = 9, 5
HISTORY = torch.tensor([[3, 1, 3, 5], [2, 7, 0, 0], [4, 6, 8, 0]])
TARGETS = torch.tensor([[1, 0, 5, 9], [7, 4, 0, 0], [6, 8, 2, 0]])
EARLIER = torch.tensor([[0, 0], [6, 0], [9, 9]])
SEEN = [{3}, {3, 1}, {3, 1, 5}, {2, 6}, {2, 6, 7}, {4, 9}, {4, 6, 9}, {4, 6, 8, 9}]
"""What is in the history at each position that has a target."""
NEXT = TARGETS[TARGETS > 0]
NEGATIVES = torch.tensor([1, 4, 4, 9, 6, 2])
LOG_EXPECTED = torch.linspace(-1.0, 0.5, len(NEGATIVES))
WEIGHTS = torch.linspace(0.5, 2.0, len(NEXT))


SEEN_ITEMS = SeenItems(HISTORY, TARGETS, EARLIER)
SEEN_NEGATIVES = SeenNegatives(HISTORY, TARGETS, EARLIER, NEGATIVES, n_rows=ITEMS + 1)


def _values(*shape: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


STATES = _values(len(SEEN), DIM, seed=1)
VECTORS = _values(ITEMS + 1, DIM, seed=2)
TEACHER_STATES = _values(len(SEEN), 4, seed=3)
TEACHER_VECTORS = _values(ITEMS + 1, 4, seed=4)


def _competing(position: int, rows: torch.Tensor) -> torch.Tensor:
    """Which of these rows compete at a position: not its target, and nothing seen."""
    barred = SEEN[position] | {int(NEXT[position])}
    return torch.tensor([int(row) not in barred for row in rows])


def _mean(losses: list[torch.Tensor]) -> torch.Tensor:
    weights = WEIGHTS.double()
    return (torch.stack(losses) * weights).sum() / weights.sum()


def _full(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    losses: list[torch.Tensor] = []
    for position, state in enumerate(states):
        scores = vectors @ state
        others = scores[1:][_competing(position, torch.arange(1, ITEMS + 1))]
        target = scores[NEXT[position]]
        losses.append(torch.cat([others, target[None]]).logsumexp(0) - target)
    return _mean(losses)


def _sampled(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    losses: list[torch.Tensor] = []
    for position, state in enumerate(states):
        competing = _competing(position, NEGATIVES)
        others = (vectors @ state)[NEGATIVES[competing]] - LOG_EXPECTED[competing].double()
        target = vectors[NEXT[position]] @ state
        losses.append(torch.cat([others, target[None]]).logsumexp(0) - target)
    return _mean(losses)


def _gbce(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    rate = len(NEGATIVES) / (20 - 1)
    beta = rate * (0.75 * (1 - 1 / rate) + 1 / rate)
    losses: list[torch.Tensor] = []
    for position, state in enumerate(states):
        others = (vectors @ state)[NEGATIVES[_competing(position, NEGATIVES)]]
        hit = F.logsigmoid(vectors[NEXT[position]] @ state)
        losses.append(-beta * hit - F.logsigmoid(-others).sum())
    return _mean(losses)


def _distillation(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The KL is over what the user has not had, the target included."""
    losses: list[torch.Tensor] = []
    for position, state in enumerate(states):
        rows = torch.tensor([row for row in range(1, ITEMS + 1) if row not in SEEN[position]])
        teacher = (TEACHER_VECTORS.double() @ TEACHER_STATES[position].double())[rows] / 2
        student = (vectors @ state)[rows] / 2
        losses.append(F.kl_div(student.log_softmax(0), teacher.softmax(0), reduction="sum"))
    return _full(states, vectors) + 3 * 4 * _mean(losses)


def _by_chunks_of(chunk: int) -> dict[str, Loss]:
    common = {"weights": WEIGHTS, "chunk_positions": chunk}
    sampled = {"negatives": NEGATIVES, "seen": SEEN_NEGATIVES, **common}
    return {
        "full": lambda states, vectors: next_item_cross_entropy(
            states, vectors, NEXT, seen=SEEN_ITEMS, **common
        ),
        "sampled": lambda states, vectors: sampled_softmax(
            states, vectors, NEXT, log_expected=LOG_EXPECTED, **sampled
        ),
        "gbce": lambda states, vectors: gbce(states, vectors, NEXT, n_items=20, **sampled),
        "distillation": lambda states, vectors: distillation_loss(
            states,
            vectors,
            NEXT,
            teacher_states=TEACHER_STATES,
            teacher_item_vectors=TEACHER_VECTORS,
            kd_weight=3.0,
            temperature=2.0,
            seen=SEEN_ITEMS,
            **common,
        ),
    }


REFERENCES: dict[str, Loss] = {
    "full": _full,
    "sampled": _sampled,
    "gbce": _gbce,
    "distillation": _distillation,
}


def _with_gradients(loss: Loss, dtype: torch.dtype) -> list[torch.Tensor]:
    states = STATES.to(dtype, copy=True).requires_grad_()
    vectors = VECTORS.to(dtype, copy=True).requires_grad_()
    value = loss(states, vectors)
    value.backward()
    assert states.grad is not None
    assert vectors.grad is not None
    return [value.detach().double(), states.grad.double(), vectors.grad.double()]


@pytest.mark.parametrize("chunk_positions", [1, 3, 1024])
@pytest.mark.parametrize("name", REFERENCES)
def test_value_and_gradient_are_those_without_the_seen_items(
    name: str, chunk_positions: int
) -> None:
    found = _with_gradients(_by_chunks_of(chunk_positions)[name], torch.float32)
    expected = _with_gradients(REFERENCES[name], torch.float64)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_score_of_a_seen_item_gets_no_gradient(name: str) -> None:
    """Item 3 occurs at the first user's positions only, and is seen at all of them."""
    mask = torch.zeros(len(SEEN), dtype=torch.bool)
    mask[:3] = True
    states = STATES.clone()
    states[~mask] = 0.0  # the other users' states give no item a gradient
    vectors = VECTORS.clone().requires_grad_()
    _by_chunks_of(3)[name](states.requires_grad_(), vectors).backward()
    assert vectors.grad is not None
    assert not vectors.grad[3].any()
    assert vectors.grad[9].any()


def test_a_position_that_has_seen_all_but_its_target_has_no_loss() -> None:
    history = torch.arange(1, ITEMS)[None]
    targets = torch.zeros_like(history)
    targets[0, -1] = ITEMS
    seen = SeenItems(history, targets, history[:, :0])
    loss = next_item_cross_entropy(STATES[:1], VECTORS, torch.tensor([ITEMS]), seen=seen)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
