"""Accidental hits: sampled items that are a positive of the position; they must not count twice."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recsys_core.training.losses.seen import NO_CANDIDATE


class AccidentalHits:
    """The (position, draw) pairs in which the sampled item is a positive; few of many.

    Args:
        positives: Rows of each position's positives; 0 is padding.
        sampled: Rows of the sampled items, from 1; the same draws for all positions.
    """

    def __init__(
        self, positives: Int[Tensor, "positions k"], sampled: Int[Tensor, " sampled"]
    ) -> None:
        items = positives.flatten()
        ordered, order = torch.sort(sampled)
        first = torch.searchsorted(ordered, items)
        counts = torch.searchsorted(ordered, items, right=True) - first
        ends = counts.cumsum(0)
        self._ends = ends[positives.shape[1] - 1 :: positives.shape[1]]
        places = torch.repeat_interleave(counts)
        within = torch.arange(len(places), device=sampled.device)
        within -= (ends - counts)[places]
        self._positions = places // positives.shape[1]
        self._columns = order[first[places] + within]

    def mask(self, logits: Float[Tensor, "chunk sampled"], rows: slice) -> None:
        """Set the logits of these positions' hits to `NO_CANDIDATE`."""
        begin = int(self._ends[rows.start - 1]) if rows.start else 0
        hits = slice(begin, int(self._ends[rows.stop - 1]))
        logits[self._positions[hits] - rows.start, self._columns[hits]] = NO_CANDIDATE
