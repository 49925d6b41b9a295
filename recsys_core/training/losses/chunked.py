"""A loss over the full catalogue that never holds positions × items logits at once.

The forward pass computes the logits of a few positions, overwrites them with their gradient and
multiplies that into the gradients of states and item vectors. Peak memory is that of one chunk and
does not depend on the batch size.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from recsys_core.training.losses.seen import Seen

_CHUNK_POSITIONS = 512  # on a CPU: logits over some thousand items just fit into its cache
_GPU_CHUNK_NUMBERS = 2**27  # half a gigabyte: a GPU is fast on few large products

LossAndGradient = Callable[[Tensor, slice], Tensor]
"""Given the logits of some positions and which positions they are, return the loss of each position
and overwrite the logits with its gradient."""


def chunked_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items dim"],
    loss_and_gradient: LossAndGradient,
    *,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Weighted mean over positions of a loss on the logits `states @ item_vectors.T`.

    Args:
        states: The model's state at each position.
        item_vectors: Vectors of the candidates, without padding.
        loss_and_gradient: The loss on logits `[chunk, items]`, see `LossAndGradient`.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Raises:
        ValueError: There are no positions, or there is not one weight per position.
    """
    check_positions(states, weights)
    return cast(
        "Tensor",
        _ChunkedLoss.apply(  # pyright: ignore[reportUnknownMemberType]
            states, item_vectors, loss_and_gradient, weights, seen, chunk_positions
        ),
    )


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        item_vectors: Tensor,
        loss_and_gradient: LossAndGradient,
        weights: Tensor | None,
        seen: Seen | None,
        chunk_positions: int | None,
    ) -> Tensor:
        states, item_vectors = states.detach().float(), item_vectors.detach().float()
        total = states.new_zeros(())
        states_gradient = torch.empty_like(states)
        items_gradient = torch.zeros_like(item_vectors)
        for rows, logits in chunks(states, len(item_vectors), chunk_positions):
            torch.mm(states[rows], item_vectors.T, out=logits)
            if seen is not None:
                seen.mask(logits, rows)
            total += weighted_sum_(logits, rows, loss_and_gradient, weights)
            torch.mm(logits, item_vectors, out=states_gradient[rows])
            items_gradient.addmm_(logits.T, states[rows])
        mass = total_weight(states, weights)
        ctx.save_for_backward(states_gradient / mass, items_gradient / mass)
        return total / mass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, items_gradient = ctx.saved_tensors
        rest = (None,) * 4
        return states_gradient * gradients[0], items_gradient * gradients[0], *rest


def chunks(
    states: Float[Tensor, "positions dim"], n_items: int, size: int | None, *, n_others: int = 0
) -> Iterator[tuple[slice, Float[Tensor, "chunk items"]]]:
    """Slices that cover all positions, each with the same buffer for its logits.

    Args:
        states: Its length is the number of positions; the buffer is on its device.
        n_items: Width of the logits.
        size: Positions in a slice; None: a default for the device.
        n_others: Numbers that the caller holds for each position of a slice beside its logits.
    """
    if size is None:
        fitting = _GPU_CHUNK_NUMBERS // (n_items + n_others)
        on_cpu = states.device.type == "cpu"
        size = _CHUNK_POSITIONS if on_cpu else max(_CHUNK_POSITIONS, fitting)
    buffer = states.new_empty(min(size, len(states)), n_items)
    for start in range(0, len(states), size):
        rows = slice(start, min(start + size, len(states)))
        yield rows, buffer[: rows.stop - start]


def weighted_sum_(
    logits: Float[Tensor, "chunk items"],
    rows: slice,
    loss_and_gradient: LossAndGradient,
    weights: Float[Tensor, " positions"] | None,
) -> Float[Tensor, ""]:
    """Sum of the weighted losses of a chunk; overwrites the logits with its gradient."""
    losses = loss_and_gradient(logits, rows)
    if weights is None:
        return losses.sum()
    logits *= weights[rows, None]
    return (losses * weights[rows]).sum()


def total_weight(states: Tensor, weights: Tensor | None) -> Tensor:
    """The divisor of a weighted mean over positions; never 0."""
    if weights is None:
        return states.new_tensor(float(len(states)))
    return weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def check_positions(states: Tensor, weights: Tensor | None) -> None:
    """Refuse a batch without positions, and weights that broadcasting would spread over it.

    Raises:
        ValueError: There are no positions, or there is not one weight per position.
    """
    if not len(states):
        msg = "The loss needs at least one position; the batch holds none."
        raise ValueError(msg)
    if weights is not None and len(weights) != len(states):
        msg = f"Every position needs its weight: {len(states)} states, {len(weights)} weights."
        raise ValueError(msg)


def check_targets(targets: Tensor, states: Tensor) -> None:
    """Refuse targets that broadcasting would pair with other positions.

    Raises:
        ValueError: There is not one target per state.
    """
    if len(targets) != len(states):
        msg = f"Every position needs its target: {len(states)} states, {len(targets)} targets."
        raise ValueError(msg)
