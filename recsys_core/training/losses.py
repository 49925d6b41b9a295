"""The chunked softmax: a loss over the full catalogue that never holds positions × items at once.

The logits of a few positions at a time are made, turned into their gradient in place and multiplied
out into the gradients of states and item vectors, all in the forward pass. Peak memory is that of
one chunk, whatever the batch.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK_POSITIONS = 512  # on a CPU: logits over some thousand items just fit into its cache
_GPU_CHUNK_LOGITS = 2**27  # half a gigabyte: a GPU is fast on few large products

LossAndGradient = Callable[[Tensor, slice], Tensor]
"""Given the logits of some positions and which positions they are, return the loss of each and
overwrite the logits with its gradient."""


def chunked_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items dim"],
    loss_and_gradient: LossAndGradient,
    *,
    weights: Float[Tensor, " positions"] | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Weighted mean over positions of a loss on `states @ item_vectors.T`.

    Args:
        states: What the model says of each position.
        item_vectors: Vectors of the items that compete, without padding.
        loss_and_gradient: The loss on logits `[chunk, items]`, see `LossAndGradient`.
        weights: How much each position counts; None: all alike.
        chunk_positions: How many positions' logits are held at once; None: as suits the device.

    Raises:
        ValueError: There are no positions, or not a weight for each.
    """
    check_positions(states, weights)
    return cast(
        "Tensor",
        _ChunkedLoss.apply(states, item_vectors, loss_and_gradient, weights, chunk_positions),  # pyright: ignore[reportUnknownMemberType]
    )


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        item_vectors: Tensor,
        loss_and_gradient: LossAndGradient,
        weights: Tensor | None,
        chunk_positions: int | None,
    ) -> Tensor:
        states, item_vectors = states.detach().float(), item_vectors.detach().float()
        total = states.new_zeros(())
        states_gradient = torch.empty_like(states)
        items_gradient = torch.zeros_like(item_vectors)
        for rows, logits in chunks(states, len(item_vectors), chunk_positions):
            torch.mm(states[rows], item_vectors.T, out=logits)
            losses = loss_and_gradient(logits, rows)
            if weights is not None:
                losses = losses * weights[rows]
                logits *= weights[rows, None]
            total += losses.sum()
            torch.mm(logits, item_vectors, out=states_gradient[rows])
            items_gradient.addmm_(logits.T, states[rows])
        mass = total_weight(states, weights)
        ctx.save_for_backward(states_gradient / mass, items_gradient / mass)
        return total / mass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, items_gradient = ctx.saved_tensors
        return states_gradient * gradients[0], items_gradient * gradients[0], None, None, None


def next_item_cross_entropy(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    weights: Float[Tensor, " positions"] | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of each position's next item under a softmax over all items given.

    Args:
        states: What the model says of each position.
        item_vectors: Vectors of the items that compete; row 0 is padding.
        targets: Row of the next item, from 1.
        weights: How much each position counts; None: all alike.
        chunk_positions: How many positions' logits are held at once; None: as suits the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or not a target or weight for each.
    """
    check_targets(targets, states)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        return cross_entropy_to_gradient(logits, targets[rows] - 1)

    return chunked_loss(
        states,
        item_vectors[1:],
        loss_and_gradient,
        weights=weights,
        chunk_positions=chunk_positions,
    )


def chunks(
    states: Float[Tensor, "positions dim"], n_items: int, size: int | None
) -> Iterator[tuple[slice, Float[Tensor, "chunk items"]]]:
    """Slices that together are all positions, each with the same room for its logits.

    Args:
        states: The positions, and where the room is.
        n_items: Width of the logits.
        size: Positions in a slice; None: as suits the device.
    """
    if size is None:
        on_cpu = states.device.type == "cpu"
        size = _CHUNK_POSITIONS if on_cpu else max(_CHUNK_POSITIONS, _GPU_CHUNK_LOGITS // n_items)
    room = states.new_empty(min(size, len(states)), n_items)
    for start in range(0, len(states), size):
        rows = slice(start, min(start + size, len(states)))
        yield rows, room[: rows.stop - start]


def total_weight(states: Tensor, weights: Tensor | None) -> Tensor:
    """What a weighted sum over positions is divided by; never 0."""
    if weights is None:
        return states.new_tensor(float(len(states)))
    return weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def check_positions(states: Tensor, weights: Tensor | None) -> None:
    """Refuse a batch without positions, and weights that would be spread over all of them.

    Raises:
        ValueError: There are no positions, or not a weight for each.
    """
    if not len(states):
        msg = "The loss needs at least one position; the batch holds none."
        raise ValueError(msg)
    if weights is not None and len(weights) != len(states):
        msg = f"Every position needs its weight: {len(states)} states, {len(weights)} weights."
        raise ValueError(msg)


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
) -> Float[Tensor, " positions"]:
    """Cross-entropy of each position; the logits become its gradient, softmax − onehot."""
    targets = targets[:, None]
    target_logits = logits.gather(1, targets)[:, 0]
    largest = logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    normalizers = largest - logits.amax(dim=1).log()  # the largest probability never underflows
    logits.scatter_add_(1, targets, logits.new_full(targets.shape, -1.0))
    return normalizers - target_logits
