# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""A softmax over a large catalogue, estimated from a position's own items and from drawn ones.

A position's own items, such as its target, are certain to be candidates and count once. An item
drawn for the whole batch stands for 1 / (expected number of its draws) of all items: log expected
is subtracted from its logit (logQ correction). Then Σ exp(logit) over own and drawn items is an
unbiased estimate of Σ exp(logit) over the catalogue, whatever was drawn, and the softmax over these
logits is a self-normalised importance estimate of the softmax over the catalogue. Its bias falls
with 1 / draws. The cost of a step depends on the number of draws, not on that of items.

Sources: Bengio and Senécal 2008; the uncorrected target: Khrylchenko et al. 2025, arXiv:2507.09331.
"""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import (
    LossAndGradient,
    check_positions,
    chunked_loss,
    chunks,
    total_weight,
)
from recsys_core.training.losses.hits import Hits
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen, SeenNegatives


class OwnAndDrawn:
    """The candidates of each position: its own items first, then those drawn for the batch.

    Args:
        own: Rows of each position's own items, distinct; 0 is padding. The target is among them.
        drawn: Rows of the drawn items, from 1, with repetitions. A draw of one of a position's own
            items does not compete there.
        log_expected: log(number of draws × probability of the item) for each drawn item.
        seen: The items that don't compete at each position; None: all compete.

    Attributes:
        correction: What is added to the logit of each column, `[own + drawn]`.
    """

    def __init__(
        self,
        own: Int[Tensor, "positions own"],
        drawn: Int[Tensor, " drawn"],
        log_expected: Float[Tensor, " drawn"],
        seen: SeenNegatives | None = None,
    ) -> None:
        self.own = own if seen is None else own.masked_fill(seen.among(own), 0)
        self.drawn = drawn
        self.correction = torch.cat([log_expected.new_zeros(own.shape[1]), -log_expected])
        self._hits = Hits(self.own, drawn)
        self._seen = seen

    def logits(
        self,
        states: Float[Tensor, "chunk dim"],
        vectors: Float[Tensor, "rows dim"],
        rows: slice,
        out: Float[Tensor, "chunk columns"] | None = None,
    ) -> Float[Tensor, "chunk columns"]:
        """The corrected logits of some positions; `NO_CANDIDATE` where an item doesn't compete.

        Args:
            states: Of these positions.
            vectors: Of all rows.
            rows: Which positions they are.
            out: Overwritten, if given.
        """
        n_own = self.own.shape[1]
        if out is None:
            out = states.new_empty(len(states), n_own + len(self.drawn))
        own, drawn = out[:, :n_own], out[:, n_own:]
        own.copy_(torch.einsum("pd,pkd->pk", states, vectors[self.own[rows]]))
        torch.addmm(self.correction[n_own:], states, vectors[self.drawn].T, out=drawn)
        own.masked_fill_(self.own[rows] == 0, NO_CANDIDATE)
        self._hits.erase(drawn, rows)
        if self._seen is not None:
            self._seen.erase(drawn, rows)
        return out


def catalogue_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    loss_and_gradient: LossAndGradient,
    *,
    candidates: OwnAndDrawn | None,
    weights: Float[Tensor, " positions"] | None,
    seen: Seen | None,
    chunk_positions: int | None,
) -> Float[Tensor, ""]:
    """Weighted mean over positions of a loss on the logits of all items, or on estimates of them.

    Args:
        states: The model's state at each position.
        item_vectors: Row 0 is padding.
        loss_and_gradient: The loss on logits, see `LossAndGradient`.
        candidates: The columns of the logits; None: column c is row c + 1.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete; with candidates those say it.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Raises:
        ValueError: There are no positions, or there is not one weight per position.
    """
    if candidates is None:
        return chunked_loss(
            states,
            item_vectors[1:],
            loss_and_gradient,
            weights=weights,
            seen=seen,
            chunk_positions=chunk_positions,
        )
    check_positions(states, weights)
    return cast(
        "Tensor",
        _OwnAndDrawnLoss.apply(
            states, item_vectors, loss_and_gradient, candidates, weights, chunk_positions
        ),
    )


class _OwnAndDrawnLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        item_vectors: Tensor,
        loss_and_gradient: LossAndGradient,
        candidates: OwnAndDrawn,
        weights: Tensor | None,
        chunk_positions: int | None,
    ) -> Tensor:
        states, item_vectors = states.detach().float(), item_vectors.detach().float()
        drawn_vectors = item_vectors[candidates.drawn]
        n_own = candidates.own.shape[1]
        total = states.new_zeros(())
        states_gradient = torch.empty_like(states)
        items_gradient = torch.zeros_like(item_vectors)
        drawn_gradient = torch.zeros_like(drawn_vectors)
        for rows, logits in chunks(states, len(candidates.correction), chunk_positions):
            candidates.logits(states[rows], item_vectors, rows, out=logits)
            losses = loss_and_gradient(logits, rows)
            if weights is not None:
                losses = losses * weights[rows]
                logits *= weights[rows, None]
            total += losses.sum()
            own, by_own, by_drawn = candidates.own[rows], logits[:, :n_own], logits[:, n_own:]
            torch.mm(by_drawn, drawn_vectors, out=states_gradient[rows])
            states_gradient[rows] += torch.einsum("pk,pkd->pd", by_own, item_vectors[own])
            drawn_gradient.addmm_(by_drawn.T, states[rows])
            of_own = by_own[:, :, None] * states[rows, None]
            items_gradient.index_add_(0, own.flatten(), of_own.flatten(0, 1))
        items_gradient.index_add_(0, candidates.drawn, drawn_gradient)
        mass = total_weight(states, weights)
        ctx.save_for_backward(states_gradient / mass, items_gradient / mass)
        return total / mass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, items_gradient = ctx.saved_tensors
        rest = (None,) * 4
        return states_gradient * gradients[0], items_gradient * gradients[0], *rest
