"""Drawn items that a position already has among its own: they must not count twice."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.seen import NO_CANDIDATE


class Hits:
    """The (position, draw) pairs in which the drawn item is one of the position's own; few of many.

    Args:
        own: Rows of each position's own items; 0 is padding.
        drawn: Rows of the drawn items, from 1; the same draws for all positions.
    """

    def __init__(self, own: Int[Tensor, "positions own"], drawn: Int[Tensor, " drawn"]) -> None:
        items = own.flatten()
        ordered, order = torch.sort(drawn)
        first = torch.searchsorted(ordered, items)
        counts = torch.searchsorted(ordered, items, right=True) - first
        ends = counts.cumsum(0)
        self._ends = ends[own.shape[1] - 1 :: own.shape[1]]
        places = torch.repeat_interleave(counts)
        within = torch.arange(len(places), device=drawn.device)
        within -= (ends - counts)[places]
        self._positions = places // own.shape[1]
        self._columns = order[first[places] + within]

    def erase(self, logits: Float[Tensor, "chunk drawn"], rows: slice) -> None:
        """Set the logits of these positions' hits so low that their probability is 0."""
        begin = int(self._ends[rows.start - 1]) if rows.start else 0
        hits = slice(begin, int(self._ends[rows.stop - 1]))
        logits[self._positions[hits] - rows.start, self._columns[hits]] = NO_CANDIDATE
