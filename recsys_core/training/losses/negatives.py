"""A loss on a position's target and on negatives that are shared by the whole batch.

As in `chunked`, the forward pass computes gradients for a few positions at a time, so positions ×
negatives logits never exist at once.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.accidental_hits import AccidentalHits
from recsys_core.training.losses.chunked import (
    check_positions,
    check_targets,
    chunks,
    total_weight,
)
from recsys_core.training.losses.seen import Seen

PairLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Given the negatives' logits of some positions and their targets' logits, return the loss of each
position, its derivative by the target's logit and a factor. Overwrite the negatives' logits with
the loss's derivative by them divided by that factor."""


def negatives_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    negatives: Int[Tensor, " negatives"],
    pair_loss: PairLoss,
    *,
    shift: Float[Tensor, " negatives"],
    weights: Float[Tensor, " positions"] | None,
    seen: Seen | None,
    chunk_positions: int | None,
) -> Float[Tensor, ""]:
    """Weighted mean over positions of a loss on the target's logit and the negatives' logits.

    Args:
        states: The model's state at each position.
        item_vectors: Row 0 is padding.
        targets: Row of the next item, from 1.
        negatives: Rows of the drawn items; the same negatives for all positions.
        pair_loss: The loss, see `PairLoss`.
        shift: Added to the negatives' logits.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Raises:
        ValueError: There are no positions, or there is not one target or weight per position.
    """
    check_positions(states, weights)
    check_targets(targets, states)
    target_logits = (states * item_vectors[targets]).sum(dim=1)
    return cast(
        "Tensor",
        _NegativesLoss.apply(  # pyright: ignore[reportUnknownMemberType]
            states,
            target_logits,
            item_vectors[negatives],
            pair_loss,
            AccidentalHits(targets[:, None], negatives),
            shift,
            weights,
            seen,
            chunk_positions,
        ),
    )


class _NegativesLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        target_logits: Tensor,
        negatives: Tensor,
        pair_loss: PairLoss,
        hits: AccidentalHits,
        shift: Tensor,
        weights: Tensor | None,
        seen: Seen | None,
        chunk_positions: int | None,
    ) -> Tensor:
        states, negatives = states.detach().float(), negatives.detach().float()
        total = states.new_zeros(())
        states_gradient, targets_gradient = torch.empty_like(states), torch.empty_like(states[:, 0])
        negatives_gradient = torch.zeros_like(negatives)
        for rows, logits in chunks(states, len(negatives), chunk_positions):
            torch.addmm(shift, states[rows], negatives.T, out=logits)
            hits.mask(logits, rows)
            if seen is not None:
                seen.mask(logits, rows)
            losses, by_target, factor = pair_loss(logits, target_logits[rows].detach())
            if weights is not None:
                losses, by_target, factor = (x * weights[rows] for x in (losses, by_target, factor))
            total += losses.sum()
            targets_gradient[rows] = by_target
            torch.mm(logits, negatives, out=states_gradient[rows])
            states_gradient[rows] *= factor[:, None]
            negatives_gradient.addmm_(logits.T, states[rows] * factor[:, None])
        mass = total_weight(states, weights)
        ctx.save_for_backward(
            states_gradient / mass, targets_gradient / mass, negatives_gradient / mass
        )
        return total / mass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rest = (None,) * 6
        return (*(saved * gradients[0] for saved in ctx.saved_tensors), *rest)
