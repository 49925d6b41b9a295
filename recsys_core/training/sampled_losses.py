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
    check_positions,
    check_targets,
    chunks,
    total_weight,
)

PairLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Given the logits of some positions for the negatives and those of their targets: the loss of each
position, its gradient by the target's logit, and a factor for its negatives' gradient, which the
negatives' logits are overwritten with but for that factor."""

_NO_NEGATIVE = -1e30
"""The logit of a drawn item that is the position's target: finite, as all of them may be."""


def sampled_softmax(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    *,
    negatives: Int[Tensor, " negatives"],
    log_expected: Float[Tensor, " negatives"],
    weights: Float[Tensor, " positions"] | None = None,
    chunk_positions: int | None = None,
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
        chunk_positions: How many positions' logits are held at once; None: as suits the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or not a target or weight for each.

    Source: Bengio and Senécal 2008; the uncorrected target: Khrylchenko et al. 2025,
    arXiv:2507.09331.
    """

    def pair_loss(logits: Tensor, target_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        largest = logits.amax(dim=1)
        torch.softmax(logits, dim=1, out=logits)
        of_negatives = largest - logits.amax(dim=1).log()
        normalizers = torch.logaddexp(of_negatives, target_logits)
        losses = normalizers - target_logits
        return losses, torch.expm1(-losses), torch.exp(of_negatives - normalizers)

    return _sampled_loss(
        states,
        item_vectors,
        targets,
        negatives,
        pair_loss,
        shift=-log_expected,
        weights=weights,
        chunk_positions=chunk_positions,
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
    chunk_positions: int | None = None,
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
        chunk_positions: How many positions' logits are held at once; None: as suits the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: There are no positions, or not a target or weight for each.

    Source: Petrov and Macdonald 2023 (gSASRec), arXiv:2308.07192, equation 13.
    """
    rate = min(1.0, len(negatives) / max(1, n_items - 1))
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)

    def pair_loss(logits: Tensor, target_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        losses = F.softplus(logits).sum(dim=1) + beta * F.softplus(-target_logits)
        logits.sigmoid_()
        return losses, -beta * torch.sigmoid(-target_logits), torch.ones_like(losses)

    return _sampled_loss(
        states,
        item_vectors,
        targets,
        negatives,
        pair_loss,
        shift=states.new_zeros(len(negatives)),
        weights=weights,
        chunk_positions=chunk_positions,
    )


def _sampled_loss(
    states: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    negatives: Tensor,
    pair_loss: PairLoss,
    *,
    shift: Tensor,
    weights: Tensor | None,
    chunk_positions: int | None,
) -> Tensor:
    """The mean of a pair loss; `shift` is added to the negatives' logits."""
    check_positions(states, weights)
    check_targets(targets, states)
    target_logits = (states * item_vectors[targets]).sum(dim=1)
    return cast(
        "Tensor",
        _SampledLoss.apply(  # pyright: ignore[reportUnknownMemberType]
            states,
            target_logits,
            item_vectors[negatives],
            pair_loss,
            _Hits(targets, negatives),
            shift,
            weights,
            chunk_positions,
        ),
    )


class _Hits:
    """Where a drawn item is the target of a position, which are few places of many.

    Args:
        targets: Of each position.
        negatives: The items drawn.
    """

    def __init__(self, targets: Tensor, negatives: Tensor) -> None:
        ordered, order = torch.sort(negatives)
        first = torch.searchsorted(ordered, targets)
        counts = torch.searchsorted(ordered, targets, right=True) - first
        self._ends = counts.cumsum(0)
        self._positions = torch.repeat_interleave(counts)
        within = torch.arange(len(self._positions), device=targets.device)
        within -= (self._ends - counts)[self._positions]
        self._columns = order[first[self._positions] + within]

    def erase(self, logits: Tensor, rows: slice) -> None:
        """Set the logits of these positions' hits so low that they count nothing."""
        begin = int(self._ends[rows.start - 1]) if rows.start else 0
        hits = slice(begin, int(self._ends[rows.stop - 1]))
        logits[self._positions[hits] - rows.start, self._columns[hits]] = _NO_NEGATIVE


class _SampledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        target_logits: Tensor,
        negatives: Tensor,
        pair_loss: PairLoss,
        hits: _Hits,
        shift: Tensor,
        weights: Tensor | None,
        chunk_positions: int | None,
    ) -> Tensor:
        states, negatives = states.detach().float(), negatives.detach().float()
        total = states.new_zeros(())
        states_gradient, targets_gradient = torch.empty_like(states), torch.empty_like(states[:, 0])
        negatives_gradient = torch.zeros_like(negatives)
        for rows, logits in chunks(states, len(negatives), chunk_positions):
            torch.addmm(shift, states[rows], negatives.T, out=logits)
            hits.erase(logits, rows)
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
        rest = (None,) * 5
        return (*(saved * gradients[0] for saved in ctx.saved_tensors), *rest)
