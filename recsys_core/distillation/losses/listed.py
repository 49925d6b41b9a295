"""Distillation losses on lists: hard cross-entropy plus a loss on the items that a label lists.

A teacher's top K items hold a part of its probability. Divided by that part, they are not its
distribution, and a student that is normalised over all items would be pulled away from a perfect
copy of the teacher: it would learn that everything else is impossible. So each loss here compares
the same outcomes on both sides: each listed item, and any other item.

A label that lists an item which does not compete (the user has had it, or it never occurs in
training) says nothing about it: such an item counts on neither side.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import check_targets
from recsys_core.training.losses.sampled_candidates import SampledCandidates, candidate_loss
from recsys_core.training.losses.seen import NO_CANDIDATE, Seen


class Listed(NamedTuple):
    """The listed items at some positions, and the student's logits.

    Attributes:
        ids: Each listed item, see `listed_loss`.
        columns: Its column of the logits. An item that does not compete has the column of one that
            does, if there is any.
        competes: Whether it competes; False for padding.
        logits: Its logit; `NO_CANDIDATE` where it does not compete.
        log_rest: Log of the sum of exp(logit) over all other items; about `NO_CANDIDATE` where
            there are none.
    """

    ids: Int[Tensor, "positions k"]
    columns: Int[Tensor, "positions k"]
    competes: Bool[Tensor, "positions k"]
    logits: Float[Tensor, "positions k"]
    log_rest: Float[Tensor, " positions"]

    @property
    def any(self) -> Bool[Tensor, " positions"]:
        """Whether a position has a label at all."""
        return self.competes.any(dim=1)

    @property
    def log_normalizer(self) -> Float[Tensor, " positions"]:
        """Log of the sum of exp(logit) over all items that compete."""
        return torch.logaddexp(self.logits.logsumexp(dim=1), self.log_rest)

    def of(self, values: Tensor, rows: slice) -> Float[Tensor, "positions k"]:
        """A value for each listed item.

        Args:
            values: Of all positions.
            rows: Which positions these are.

        Raises:
            ValueError: There is not one value for each listed item.
        """
        chosen = values[rows]
        if chosen.shape != self.ids.shape:
            msg = (
                f"Each listed item needs a value: found items of shape {tuple(self.ids.shape)} "
                f"with values of shape {tuple(chosen.shape)}."
            )
            raise ValueError(msg)
        return chosen.float()


class ListGradient(NamedTuple):
    """A loss at some positions, and its gradient.

    Attributes:
        losses: Of each position; ignored without a label, as are the others.
        by_listed: By the logit of each listed item; ignored where it does not compete.
        by_rest: By `Listed.log_rest`.
    """

    losses: Float[Tensor, " positions"]
    by_listed: Float[Tensor, "positions k"]
    by_rest: Float[Tensor, " positions"]


ListTerm = Callable[[Listed, slice], ListGradient]
"""Given the listed items at some positions and which positions they are, return the loss there."""


def listed_loss(
    states: Float[Tensor, "positions dim"],
    item_vectors: Float[Tensor, "items_and_padding dim"],
    targets: Int[Tensor, " positions"],
    term: ListTerm,
    *,
    ids: Int[Tensor, "positions k"],
    kd_weight: float,
    weights: Float[Tensor, " positions"] | None = None,
    seen: Seen | None = None,
    candidates: SampledCandidates | None = None,
    chunk_positions: int | None = None,
) -> Float[Tensor, ""]:
    """Hard cross-entropy + kd_weight × a loss on the listed items.

    Args:
        states: The student's states.
        item_vectors: The student's item vectors; row 0 is padding.
        targets: Row of the next item, from 1.
        term: `sampled_kl`, `top_k_kl`, `within_list_kl` or `ranked_list`.
        ids: Rows of the listed items, from 1; 0 is padding, -1 an item that is no candidate. A
            position without any candidate has no label; only its hard target counts.
        kd_weight: Weight of the loss; 0 leaves the cross-entropy.
        weights: Weight of each position; None: all weights are equal.
        seen: The items that don't compete at each position; None: all compete.
        candidates: The columns, where the catalogue is too large; None: all rows. With them targets
            and listed items are columns from 1.
        chunk_positions: Positions whose logits are held at once; None: a default for the device.

    Returns:
        Weighted mean over positions, in nats.

    Raises:
        ValueError: The shapes do not fit each other, or the weight is impossible.
    """
    check_targets(targets, states)
    if len(ids) != len(states):
        msg = f"{len(states)} positions need a row of items each, found {len(ids)} rows."
        raise ValueError(msg)
    if not 0 <= kd_weight < float("inf"):
        msg = f"kd_weight must be finite and not negative, found {kd_weight}."
        raise ValueError(msg)

    def loss_and_gradient(logits: Tensor, rows: slice) -> Tensor:
        target = targets[rows, None] - 1
        target_logits = logits.gather(1, target)[:, 0]
        listed = _split_(logits, ids[rows])
        soft = term(listed, rows)
        normalizers, weight = listed.log_normalizer, kd_weight * listed.any
        by_rest = (listed.log_rest - normalizers).exp() + weight * soft.by_rest
        by_listed = (listed.logits - normalizers[:, None]).exp() + weight[:, None] * soft.by_listed
        logits.mul_(by_rest[:, None])
        logits.scatter_add_(1, listed.columns, torch.where(listed.competes, by_listed, 0))
        logits.scatter_add_(1, target, logits.new_full(target.shape, -1.0))
        return normalizers - target_logits + weight * soft.losses

    return candidate_loss(
        states,
        item_vectors,
        loss_and_gradient,
        candidates=candidates,
        weights=weights,
        seen=seen,
        chunk_positions=chunk_positions,
    )


def softmax_of_all(listed: Listed) -> tuple[Tensor, Tensor]:
    """Log-probabilities of each listed item, and of any other item."""
    normalizers = listed.log_normalizer
    return listed.logits - normalizers[:, None], listed.log_rest - normalizers


def _split_(logits: Float[Tensor, "positions items"], ids: Int[Tensor, "positions k"]) -> Listed:
    """Look the listed items up, and overwrite the logits with the softmax of all others."""
    columns = (ids.long() - 1).clamp(min=0)
    found = logits.gather(1, columns)
    competes = (ids > 0) & (found != NO_CANDIDATE)
    first = columns.gather(1, competes.int().argmax(dim=1, keepdim=True))
    columns = torch.where(competes, columns, first)
    # A position without a listed item writes back what is there.
    kept = logits.gather(1, columns)
    logits.scatter_(1, columns, kept.masked_fill_(competes.any(dim=1, keepdim=True), NO_CANDIDATE))
    largest = logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    log_rest = largest - logits.amax(dim=1).log()  # the largest probability never underflows
    return Listed(ids, columns, competes, torch.where(competes, found, NO_CANDIDATE), log_rest)
