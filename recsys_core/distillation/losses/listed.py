"""The items that a label lists, among the logits of all items; for losses on sparse labels.

A label that lists an item which does not compete (the user has had it, or it never occurs in
training) says nothing about it: such an item counts on neither side.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recsys_core.training.losses.chunked import check_targets
from recsys_core.training.losses.seen import NO_CANDIDATE


class Listed(NamedTuple):
    """The listed items at some positions.

    Attributes:
        columns: Column of each listed item. An item that does not compete has the column of one
            that does, if there is any.
        competes: Whether it competes; False for padding.
        logits: The student's logit; `NO_CANDIDATE` where it does not compete.
    """

    columns: Int[Tensor, "positions k"]
    competes: Bool[Tensor, "positions k"]
    logits: Float[Tensor, "positions k"]

    @property
    def any(self) -> Bool[Tensor, " positions"]:
        """Whether a position has a label at all."""
        return self.competes.any(dim=1)


def find_listed(
    logits: Float[Tensor, "positions items"], ids: Int[Tensor, "positions k"]
) -> Listed:
    """Look the listed items up.

    Args:
        logits: Of the student, seen items erased.
        ids: Rows of the listed items, from 1; 0: none.
    """
    columns = (ids.long() - 1).clamp(min=0)
    found = logits.gather(1, columns)
    competes = (ids > 0) & (found != NO_CANDIDATE)
    first = columns.gather(1, competes.int().argmax(dim=1, keepdim=True))
    columns = torch.where(competes, columns, first)
    return Listed(columns, competes, torch.where(competes, found, NO_CANDIDATE))


def softmax_(logits: Float[Tensor, "positions items"]) -> Float[Tensor, " positions"]:
    """Overwrite logits with their softmax.

    Returns:
        Log of the sum of exp(logit).
    """
    largest = logits.amax(dim=1)
    torch.softmax(logits, dim=1, out=logits)
    return largest - logits.amax(dim=1).log()  # the largest probability never underflows


def softmax_of_rest_(
    logits: Float[Tensor, "positions items"], listed: Listed
) -> Float[Tensor, " positions"]:
    """Overwrite logits with the softmax over the items that are not listed; 0 at those listed.

    Returns:
        Log of the sum of exp(logit) over the items that are not listed; about `NO_CANDIDATE` where
        there are none.
    """
    # A position without a listed item writes back what is there.
    kept = logits.gather(1, listed.columns)
    logits.scatter_(1, listed.columns, kept.masked_fill_(listed.any[:, None], NO_CANDIDATE))
    return softmax_(logits)


def check_labels(
    ids: Tensor, values: Tensor | None, targets: Tensor, states: Tensor, *, kd_weight: float
) -> None:
    """Refuse labels that broadcasting would pair with other positions or items.

    Raises:
        ValueError: There is not one label or target per position, not one value per listed item,
            or the weight is negative or not finite.
    """
    check_targets(targets, states)
    if len(ids) != len(states) or (values is not None and values.shape != ids.shape):
        of = "none" if values is None else tuple(values.shape)
        msg = (
            f"{len(states)} positions need a row of items each, and a value for each item: found "
            f"items of shape {tuple(ids.shape)} with values of shape {of}."
        )
        raise ValueError(msg)
    if not 0 <= kd_weight < float("inf"):
        msg = f"kd_weight must be finite and not negative, found {kd_weight}."
        raise ValueError(msg)
