"""The loss of ranked lists against a float64 reference, and by hand."""

from functools import partial
from typing import Any

import pytest
import torch

from recsys_core.distillation.losses.listed import listed_loss
from recsys_core.distillation.losses.ranked_list import ranked_list
from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from tests.recsys_core.distillation.sparse_problem import (
    STATES,
    TARGETS,
    TOP_IDS,
    VECTORS,
    WEIGHTS,
    SeenRows,
    assert_equal,
    reference,
    with_gradients,
)


def _plackett_luce(position: int, logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    listed = [row for row in TOP_IDS[position].tolist() if row in rows]
    left, total = list(rows), logits.new_zeros(())
    for row in listed:
        total = total + logits[left].logsumexp(0) - logits[row]
        left.remove(row)
    return total / max(1, len(listed))


@pytest.mark.parametrize("with_seen", [False, True])
@pytest.mark.parametrize("chunk_positions", [1, 3, 1024])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_value_and_gradient_are_the_references(
    with_seen: bool, chunk_positions: int, scale: float
) -> None:
    loss = partial(
        listed_loss,
        targets=TARGETS,
        term=ranked_list(),
        ids=TOP_IDS,
        kd_weight=3.0,
        weights=WEIGHTS,
        seen=SeenRows() if with_seen else None,
        chunk_positions=chunk_positions,
    )
    expected = reference(_plackett_luce, kd_weight=3.0, with_seen=with_seen)
    found = with_gradients(loss, torch.float32, scale=scale)
    dense = with_gradients(expected, torch.float64, scale=scale)
    for one, other in zip(found, dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale**0.5)


def test_three_even_items_by_hand() -> None:
    """A list of two of three items: −ln ⅓ for the first and −ln ½ for the second, on average."""
    loss = listed_loss(
        torch.zeros(1, 2),
        torch.ones(4, 2),
        torch.tensor([1]),
        ranked_list(),
        ids=torch.tensor([[3, 1]]),
        kd_weight=1.0,
    )
    expected = torch.tensor(3.0).log() + torch.tensor(6.0).log() / 2
    torch.testing.assert_close(loss, expected)


def test_a_list_of_the_target_is_the_cross_entropy_again() -> None:
    hard = with_gradients(
        lambda states, vectors: 2 * next_item_cross_entropy(states, vectors, TARGETS),
        torch.float32,
    )
    loss = partial(
        listed_loss, targets=TARGETS, term=ranked_list(), ids=TARGETS[:, None], kd_weight=1.0
    )
    assert_equal(with_gradients(loss, torch.float32), hard)


def test_a_list_of_all_items_orders_them() -> None:
    """Steps down the gradient end at the listed order, although no item is without a rank."""
    order = torch.tensor([[4, 2, 5, 1, 3]])
    items = torch.cat([torch.zeros(1, 5), torch.eye(5)])
    state = torch.zeros(1, 5, requires_grad=True)
    for _ in range(100):
        loss = listed_loss(state, items, torch.tensor([4]), ranked_list(), ids=order, kd_weight=5.0)
        (gradient,) = torch.autograd.grad(loss, state)
        state = (state - 0.5 * gradient).detach().requires_grad_()
    assert state[0].argsort(descending=True).tolist() == [3, 1, 4, 0, 2]


def test_without_weight_or_labels_the_cross_entropy_remains() -> None:
    hard = next_item_cross_entropy(STATES, VECTORS, TARGETS)
    given = partial(listed_loss, STATES, VECTORS, TARGETS, ranked_list())
    torch.testing.assert_close(given(ids=TOP_IDS, kd_weight=0.0), hard)
    torch.testing.assert_close(given(ids=torch.zeros_like(TOP_IDS), kd_weight=9.0), hard)


@pytest.mark.usefixtures("production_checks")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ids": TOP_IDS[:6]}, "7 positions need a row of items each"),
        ({"targets": TARGETS[:1]}, "7 states, 1 targets"),
        ({"kd_weight": -1.0}, "kd_weight must be finite and not negative"),
        ({"kd_weight": float("nan")}, "kd_weight must be finite and not negative"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"targets": TARGETS, "ids": TOP_IDS, "kd_weight": 1.0} | changes
    with pytest.raises(ValueError, match=sentence):
        listed_loss(STATES, VECTORS, term=ranked_list(), **given)
