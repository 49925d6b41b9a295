"""Next-item losses over the full catalogue that never hold positions × items at once.

The logits of a few positions at a time are made, turned into their gradient in place and multiplied
out into the gradients of states and item vectors, all in the forward pass. Peak memory is that of
one chunk, whatever the batch.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_POSITIONS = 512
"""Their logits over some thousand items just fit into a processor's cache."""

LossAndGradient = Callable[[Tensor, slice], Tensor]
"""Given the logits of some positions and which positions they are, return the summed loss and
overwrite the logits with its gradient."""


def chunked_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items dim"],
    loss_and_gradient: LossAndGradient,
    *,
    chunk_positions: int = CHUNK_POSITIONS,
) -> Float[Tensor, ""]:
    """Mean over positions of a loss on `states @ item_vectors.T`.

    Args:
        states: What the model says of each position.
        item_vectors: Vectors of the items that compete, without padding.
        loss_and_gradient: The loss on logits `[chunk, items]`, see `LossAndGradient`.
        chunk_positions: How many positions' logits are held at once.

    Raises:
        ValueError: There are no positions.
    """
    if not len(states):
        msg = "The loss needs at least one position; the batch holds none."
        raise ValueError(msg)
    return cast(
        "Tensor",
        _ChunkedLoss.apply(states, item_vectors, loss_and_gradient, chunk_positions),  # pyright: ignore[reportUnknownMemberType]
    )


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        item_vectors: Tensor,
        loss_and_gradient: LossAndGradient,
        chunk_positions: int,
    ) -> Tensor:
        states, item_vectors = states.detach().float(), item_vectors.detach().float()
        total = states.new_zeros(())
        states_gradient = torch.empty_like(states)
        items_gradient = torch.zeros_like(item_vectors)
        room = states.new_empty(min(chunk_positions, len(states)), len(item_vectors))
        for start in range(0, len(states), chunk_positions):
            rows = slice(start, min(start + chunk_positions, len(states)))
            logits = room[: rows.stop - start]
            torch.mm(states[rows], item_vectors.T, out=logits)
            total += loss_and_gradient(logits, rows)
            torch.mm(logits, item_vectors, out=states_gradient[rows])
            items_gradient.addmm_(logits.T, states[rows])
        ctx.save_for_backward(states_gradient / len(states), items_gradient / len(states))
        return total / len(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, items_gradient = ctx.saved_tensors
        return states_gradient * gradients[0], items_gradient * gradients[0], None, None


def next_item_cross_entropy(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    chunk_positions: int = CHUNK_POSITIONS,
) -> Float[Tensor, ""]:
    """Cross-entropy of each position's next item under a softmax over the whole catalogue.

    Args:
        targets: item_idx of the next item, from 1.

    Returns:
        Mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or not a target for each.
    """
    check_targets(targets, states)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        return cross_entropy_to_gradient(logits, targets[rows] - 1)

    return chunked_loss(
        states, item_vectors[1:], loss_and_gradient, chunk_positions=chunk_positions
    )


def check_targets(targets: Tensor, states: Tensor) -> None:
    """Refuse targets that would pair up with other positions by broadcasting.

    Raises:
        ValueError: There are not as many targets as states.
    """
    if len(targets) != len(states):
        msg = f"Every position needs its target: {len(states)} states, {len(targets)} targets."
        raise ValueError(msg)


def cross_entropy_to_gradient(
    logits: Float[Tensor, "positions items"], targets: Int[Tensor, " positions"]
) -> Float[Tensor, ""]:
    """Summed cross-entropy; the logits become its gradient, softmax − onehot."""
    targets = targets[:, None]
    target_logits = logits.gather(1, targets)[:, 0]
    largest = logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    normalizers = largest - logits.amax(dim=1).log()  # the largest probability never underflows
    logits.scatter_add_(1, targets, logits.new_full(targets.shape, -1.0))
    return (normalizers - target_logits).sum()
