# pyright: reportUnknownMemberType=false
# (torch leaves parts of its own signatures untyped)
"""Seen items: what serving never recommends does not compete in the loss.

A softmax over all items spends a part of its mass on items that the user already had, and training
then lowers their scores with the help of weights that could rank the others. Where serving leaves
out the items of the history, so do the losses.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NO_CANDIDATE = -1e30
"""Logit of an item that does not compete: its probability is 0. It is finite, because a position
may have no other item."""

_NEVER = torch.iinfo(torch.int16).max


@runtime_checkable
class Seen(Protocol):
    """Which candidates are in the history, at each position that has a target."""

    def mask(self, logits: Tensor, rows: slice) -> None:
        """Set the logits of seen candidates to `NO_CANDIDATE`.

        Args:
            logits: `[chunk, candidates]`.
            rows: Which positions they are, of those that have a target.
        """
        ...


class SeenItems:
    """Seen items where all rows but padding compete.

    Args:
        history: Rows of the histories' items, right-padded with 0.
        targets: Row of the next item at each place, 0 where there is none. No target is in its own
            history.
        earlier: Rows of what each user had before the first place; 0 is padding.
    """

    def __init__(
        self,
        history: Int[Tensor, "batch length"],
        targets: Int[Tensor, "batch length"],
        earlier: Int[Tensor, "batch earlier"],
    ) -> None:
        self._columns = history - 1
        self._earlier = [items[items > 0] - 1 for items in earlier]
        self._windows, self._places = (targets > 0).nonzero(as_tuple=True)
        ends = (targets > 0).sum(dim=1).cumsum(0)
        self._ends: list[int] = ends.tolist()
        self._all_places = torch.arange(history.shape[1], device=history.device)

    def mask(self, logits: Tensor, rows: slice) -> None:
        """See `Seen`."""
        windows, places = self._windows[rows], self._places[rows, None]
        columns = self._columns[windows]
        # A later event is replaced by the first one, which is seen everywhere.
        seen = torch.where(self._all_places <= places, columns, columns[:, :1])
        logits.scatter_(1, seen, NO_CANDIDATE)
        begin = rows.start
        for window in range(int(windows[0]), int(windows[-1]) + 1):
            end = min(self._ends[window], rows.stop)
            if len(self._earlier[window]):
                part = logits[begin - rows.start : end - rows.start]
                part.index_fill_(1, self._earlier[window], NO_CANDIDATE)
            begin = end


class SeenNegatives:
    """Seen items among drawn negatives.

    Args:
        history: See `SeenItems`.
        targets: See `SeenItems`.
        earlier: See `SeenItems`.
        negatives: Rows of the drawn items.
        n_rows: Number of rows, the padding included.
    """

    def __init__(
        self,
        history: Int[Tensor, "batch length"],
        targets: Int[Tensor, "batch length"],
        earlier: Int[Tensor, "batch earlier"],
        negatives: Int[Tensor, " negatives"],
        *,
        n_rows: int,
    ) -> None:
        places = torch.arange(history.shape[1], dtype=torch.int16, device=history.device)
        first = places.new_full((len(history), n_rows), _NEVER)
        first.scatter_reduce_(1, history, places.expand(history.shape), "amin")
        first.scatter_(1, earlier, 0)
        self._first_of_row, self._first = first, first[:, negatives]
        self._windows, places = (targets > 0).nonzero(as_tuple=True)
        self._places = places.to(torch.int16)

    def mask(self, logits: Tensor, rows: slice) -> None:
        """See `Seen`."""
        first = self._first[self._windows[rows]]
        logits.masked_fill_(first <= self._places[rows, None], NO_CANDIDATE)

    def among(self, rows: Int[Tensor, "positions k"]) -> Bool[Tensor, "positions k"]:
        """Which rows are seen, for the rows of each position."""
        return self._first_of_row[self._windows[:, None], rows] <= self._places[:, None]
