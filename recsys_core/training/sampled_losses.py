"""Losses for large catalogues: a position's target against negatives drawn for the whole batch.

As in the chunked softmax, gradients are made in the forward pass, a few positions at a time, so
positions × negatives never exists.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses import (
    CHUNK_POSITIONS,
    check_positions,
    check_targets,
    chunks,
    total_weight,
)

PairLoss = Callable[[Tensor, Tensor, slice], tuple[Tensor, Tensor]]
"""Given the logits of some positions for the negatives, those of their targets, and which positions
they are: the loss of each and its gradient by the target's logit; the negatives' logits are
overwritten with the gradient."""


def sampled_softmax(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    negatives: Int[Tensor, " negatives"],
    log_expected: Float[Tensor, " negatives"],
    weights: Float[Tensor, " positions"] | None = None,
    chunk_positions: int = CHUNK_POSITIONS,
) -> Float[Tensor, ""]:
    """Softmax cross-entropy whose normaliser is estimated from a sample.

    exp(target) + Σ exp(negative − log expected count) estimates the full normaliser without bias:
    the target, which is always there, needs no correction, and where it was drawn too it is left
    out of the sum.

    Args:
        states: What the model says of each position.
        item_vectors: Row 0 is padding.
        targets: Row of the next item, from 1.
        negatives: Rows of the items drawn, with repetitions.
        log_expected: Of each drawn item, log(number of draws × its probability).
        weights: How much each position counts; None: all alike.
        chunk_positions: How many positions' logits are held at once.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or not a target or weight for each.

    Source: Bengio and Senécal 2008; the uncorrected target: Khrylchenko et al. 2025,
    arXiv:2507.09331.
    """

    def pair_loss(logits: Tensor, target_logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        logits -= log_expected
        logits.masked_fill_(targets[rows, None] == negatives, -torch.inf)
        normalizers = torch.logaddexp(torch.logsumexp(logits, dim=1), target_logits)
        logits.sub_(normalizers[:, None]).exp_()
        losses = normalizers - target_logits
        return losses, torch.expm1(-losses)

    return _sampled_loss(
        states, item_vectors, targets, negatives, pair_loss, weights, chunk_positions
    )


def gbce(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    negatives: Int[Tensor, " negatives"],
    n_items: int,
    calibration: float = 0.75,
    weights: Float[Tensor, " positions"] | None = None,
    chunk_positions: int = CHUNK_POSITIONS,
) -> Float[Tensor, ""]:
    """Generalised binary cross-entropy: −β·log σ(target) − Σ log(1 − σ(negative)).

    The power β undoes the overconfidence that comes of seeing few negatives. A target that was
    drawn too is no negative of its position.

    Args:
        states: What the model says of each position.
        item_vectors: Row 0 is padding.
        targets: Row of the next item, from 1.
        negatives: Rows of the items drawn, uniformly.
        n_items: Items that they were drawn from.
        calibration: From 0 (plain cross-entropy) to 1 (scores are probabilities).
        weights: How much each position counts; None: all alike.
        chunk_positions: How many positions' logits are held at once.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or not a target or weight for each.

    Source: Petrov and Macdonald 2023 (gSASRec), arXiv:2308.07192, equation 13.
    """
    rate = min(1.0, len(negatives) / max(1, n_items - 1))
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)

    def pair_loss(logits: Tensor, target_logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        logits.masked_fill_(targets[rows, None] == negatives, -torch.inf)
        losses = F.softplus(logits).sum(dim=1) + beta * F.softplus(-target_logits)
        logits.sigmoid_()
        return losses, -beta * torch.sigmoid(-target_logits)

    return _sampled_loss(
        states, item_vectors, targets, negatives, pair_loss, weights, chunk_positions
    )


def _sampled_loss(
    states: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    negatives: Tensor,
    pair_loss: PairLoss,
    weights: Tensor | None,
    chunk_positions: int,
) -> Tensor:
    check_positions(states, weights)
    check_targets(targets, states)
    target_logits = (states * item_vectors[targets]).sum(dim=1)
    return cast(
        "Tensor",
        _SampledLoss.apply(  # pyright: ignore[reportUnknownMemberType]
            states, target_logits, item_vectors[negatives], pair_loss, weights, chunk_positions
        ),
    )


class _SampledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        target_logits: Tensor,
        negatives: Tensor,
        pair_loss: PairLoss,
        weights: Tensor | None,
        chunk_positions: int,
    ) -> Tensor:
        states, negatives = states.detach().float(), negatives.detach().float()
        total = states.new_zeros(())
        states_gradient, targets_gradient = torch.empty_like(states), torch.empty_like(states[:, 0])
        negatives_gradient = torch.zeros_like(negatives)
        for rows in chunks(len(states), chunk_positions):
            logits = states[rows] @ negatives.T
            losses, targets_gradient[rows] = pair_loss(logits, target_logits[rows].detach(), rows)
            if weights is not None:
                losses = losses * weights[rows]
                logits *= weights[rows, None]
                targets_gradient[rows] *= weights[rows]
            total += losses.sum()
            torch.mm(logits, negatives, out=states_gradient[rows])
            negatives_gradient.addmm_(logits.T, states[rows])
        mass = total_weight(states, weights)
        ctx.save_for_backward(
            states_gradient / mass, targets_gradient / mass, negatives_gradient / mass
        )
        return total / mass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * gradients[0] for saved in ctx.saved_tensors), None, None, None)
