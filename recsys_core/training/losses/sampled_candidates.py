# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""A softmax over a large catalogue, estimated from a position's positives and from sampled items.

A position's positives, its target and what its label lists, are certain to be candidates and count
once. An item sampled for the whole batch stands for 1 / (expected number of its draws) of all
items: log expected is subtracted from its logit (logQ correction). Then Σ exp(logit) over positives
and sampled items is an unbiased estimate of Σ exp(logit) over the catalogue, whatever was drawn,
and the softmax over these logits is a self-normalised importance estimate of the softmax over the
catalogue. Its bias falls with 1 / draws for an item that is drawn several times; an item that is
rarely drawn gets at most the probability of being drawn at all. The cost depends on the numbers of
positives and draws, not on that of items.

Sources: Bengio and Senécal 2008; the uncorrected target: Khrylchenko et al. 2025, arXiv:2507.09331.
"""

from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.training.losses.accidental_hits import AccidentalHits
from recsys_core.training.losses.chunked import (
    LossAndGradient,
    check_positions,
    chunked_loss,
    chunks,
    total_weight,
    weighted_sum_,
)
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen, SeenNegatives


class SampledCandidates:
    """The candidates of each position: its positives first, then those sampled for the batch.

    Args:
        positives: Rows of each position's positives, distinct; 0 is padding. The target is among
            them.
        sampled: Rows of the sampled items, from 1, with repetitions. A position's accidental hits,
            which are draws of its positives, do not compete.
        log_expected: log(number of draws × probability of the item) for each sampled item.
        seen: The items that don't compete at each position; None: all compete.

    Attributes:
        correction: What is added to the logit of each column, `[positives + sampled]`.
    """

    def __init__(
        self,
        positives: Int[Tensor, "positions k"],
        sampled: Int[Tensor, " sampled"],
        log_expected: Float[Tensor, " sampled"],
        seen: SeenNegatives | None = None,
    ) -> None:
        is_seen = None if seen is None else seen.among(positives)
        self.positives = positives if is_seen is None else positives.masked_fill(is_seen, 0)
        self.sampled = sampled
        certain = log_expected.new_zeros(positives.shape[1])
        self.correction = torch.cat([certain, -log_expected])
        self._hits = AccidentalHits(self.positives, sampled)
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
        k = self.positives.shape[1]
        if out is None:
            out = states.new_empty(len(states), k + len(self.sampled))
        positives, sampled = out[:, :k], out[:, k:]
        positives.copy_(torch.einsum("pd,pkd->pk", states, vectors[self.positives[rows]]))
        torch.addmm(self.correction[k:], states, vectors[self.sampled].T, out=sampled)
        positives.masked_fill_(self.positives[rows] == 0, NO_CANDIDATE)
        self._hits.mask(sampled, rows)
        if self._seen is not None:
            self._seen.mask(sampled, rows)
        return out

    def columns_of(
        self, of_row: Bool[Tensor, " rows"], rows: slice
    ) -> Bool[Tensor, "chunk columns"]:
        """What is said of each row, at the columns of some positions."""
        of_positives = of_row[self.positives[rows]]
        of_sampled = of_row[self.sampled].expand(len(of_positives), -1)
        return torch.cat([of_positives, of_sampled], dim=1)


def candidate_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    loss_and_gradient: LossAndGradient,
    *,
    candidates: SampledCandidates | None,
    weights: Float[Tensor, " positions"] | None,
    seen: Seen | None,
    chunk_positions: int | None,
) -> Float[Tensor, ""]:
    """Weighted mean over positions of a loss on the logits of the candidates.

    Args:
        states: The model's state at each position.
        item_vectors: Row 0 is padding.
        loss_and_gradient: The loss on logits, see `LossAndGradient`.
        candidates: The columns of the logits; None: all items, column c is row c + 1.
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
        _SampledLoss.apply(
            states, item_vectors, loss_and_gradient, candidates, weights, chunk_positions
        ),
    )


class _SampledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        item_vectors: Tensor,
        loss_and_gradient: LossAndGradient,
        candidates: SampledCandidates,
        weights: Tensor | None,
        chunk_positions: int | None,
    ) -> Tensor:
        states, item_vectors = states.detach().float(), item_vectors.detach().float()
        sampled_vectors = item_vectors[candidates.sampled]
        k = candidates.positives.shape[1]
        total = states.new_zeros(())
        states_gradient = torch.empty_like(states)
        items_gradient = torch.zeros_like(item_vectors)
        sampled_gradient = torch.zeros_like(sampled_vectors)
        for rows, logits in chunks(
            states, len(candidates.correction), chunk_positions, n_others=k * states.shape[1]
        ):
            candidates.logits(states[rows], item_vectors, rows, out=logits)
            total += weighted_sum_(logits, rows, loss_and_gradient, weights)
            by_positives, by_sampled = logits[:, :k], logits[:, k:]
            positives = candidates.positives[rows]
            torch.mm(by_sampled, sampled_vectors, out=states_gradient[rows])
            states_gradient[rows] += torch.einsum(
                "pk,pkd->pd", by_positives, item_vectors[positives]
            )
            sampled_gradient.addmm_(by_sampled.T, states[rows])
            of_positives = by_positives[:, :, None] * states[rows, None]
            items_gradient.index_add_(0, positives.flatten(), of_positives.flatten(0, 1))
        items_gradient.index_add_(0, candidates.sampled, sampled_gradient)
        mass = total_weight(states, weights)
        ctx.save_for_backward(states_gradient / mass, items_gradient / mass)
        return total / mass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, items_gradient = ctx.saved_tensors
        rest = (None,) * 4
        return states_gradient * gradients[0], items_gradient * gradients[0], *rest
