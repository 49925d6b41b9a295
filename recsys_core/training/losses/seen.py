# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""Seen items: what serving never recommends does not compete in the loss.

A softmax over all items spends a part of its mass on items that the user already had, and training
then lowers their scores with the help of weights that could rank the others. Where serving leaves
out the items of the history, so do the losses.
"""

import torch
from jaxtyping import Int
from torch import Tensor

NO_CANDIDATE = -1e30
"""Logit of an item that does not compete: its probability is 0. It is finite, because a position
may have no other item."""

_NEVER = torch.iinfo(torch.int16).max


class SeenItems:
    """Which candidates are in the history at each position that has a target.

    Args:
        history: Rows of the candidates in the histories, right-padded with 0.
        targets: Row of the next item at each place, 0 where there is none. No target is in its own
            history.
        earlier: Rows of what each user had before the first place; 0 is padding.
        n_rows: Number of rows, the padding included.
        candidates: Rows that compete, in the order of the logits; None: all but padding.
    """

    def __init__(
        self,
        history: Int[Tensor, "batch length"],
        targets: Int[Tensor, "batch length"],
        earlier: Int[Tensor, "batch earlier"],
        *,
        n_rows: int,
        candidates: Int[Tensor, " candidates"] | None = None,
    ) -> None:
        places = torch.arange(history.shape[1], dtype=torch.int16, device=history.device)
        first = places.new_full((len(history), n_rows), _NEVER)
        first.scatter_reduce_(1, history, places.expand(history.shape), "amin")
        first.scatter_(1, earlier, 0)
        self._first = first[:, 1:] if candidates is None else first[:, candidates]
        self._windows, places = (targets > 0).nonzero(as_tuple=True)
        self._places = places.to(torch.int16)

    def erase(self, logits: Tensor, rows: slice) -> None:
        """Set the logits of seen items so low that their probability is 0.

        Args:
            logits: `[chunk, candidates]`, or those of the first candidates only.
            rows: Which positions they are, of those that have a target.
        """
        first = self._first[self._windows[rows], : logits.shape[1]]
        logits.masked_fill_(first <= self._places[rows, None], NO_CANDIDATE)
