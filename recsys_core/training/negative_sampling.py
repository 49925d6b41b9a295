# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch leaves parts of its own signatures untyped)
"""Which items compete for a position: all that occur in training, or a sample of them.

A step works on the vectors of these items alone, so its cost does not grow with the catalogue; an
item that never occurs in training is not pushed away from where its content puts it.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.training.batching import Batch

_SMOOTHING = 0.75


class Narrowed(NamedTuple):
    """A batch whose items are rows of a part of the catalogue.

    Attributes:
        batch: `history` and `targets` are rows of `items`, from 1; 0 is padding.
        items: item_idx of each row, ascending, row 0 the padding; None where rows are item_idx.
        negatives: Rows that were drawn; None where all rows compete.
        log_expected: Of each drawn row, log(number of draws × its probability).
    """

    batch: Batch
    items: Int[Tensor, " rows"] | None = None
    negatives: Int[Tensor, " negatives"] | None = None
    log_expected: Float[Tensor, " negatives"] | None = None


class FullCompetition:
    """Every item that occurs in training competes for every position.

    Args:
        counts: `[n_items + 1]` training events by item_idx.
    """

    sampled = False

    def __init__(self, counts: NDArray[np.int64]) -> None:
        occurring = np.flatnonzero(counts[1:]) + 1
        self.n_items = len(occurring)
        self._items: Tensor | None = None
        if self.n_items < len(counts) - 1:
            self._items = torch.from_numpy(np.concatenate([[0], occurring]))
            rows = np.zeros(len(counts), np.int64)
            rows[occurring] = np.arange(1, self.n_items + 1)
            self._rows = torch.from_numpy(rows)

    def narrow(self, batch: Batch, seed: tuple[int, ...]) -> Narrowed:
        """The batch over the items that occur in training; nothing is drawn."""
        del seed
        if self._items is None:
            return Narrowed(batch)
        rows = batch._replace(history=self._rows[batch.history], targets=self._rows[batch.targets])
        return Narrowed(rows, self._items)


class SampledCompetition:
    """The items of a batch, and negatives that are drawn anew for every batch.

    Args:
        counts: `[n_items + 1]` training events by item_idx.
        n_negatives: Draws for a batch.
        uniform: Draw every item that occurs in training alike; else by its events ^ 0.75, mixed
            half and half with that, so that no item's correction grows without bound.
    """

    sampled = True

    def __init__(self, counts: NDArray[np.int64], *, n_negatives: int, uniform: bool) -> None:
        self._occurring = np.flatnonzero(counts[1:]) + 1
        self.n_items = len(self._occurring)
        alike = np.full(self.n_items, 1 / self.n_items)
        popular = counts[self._occurring] ** _SMOOTHING
        self._probabilities = alike if uniform else (alike + popular / popular.sum()) / 2
        self._bounds = np.cumsum(self._probabilities)
        self._n_negatives = n_negatives

    def narrow(self, batch: Batch, seed: tuple[int, ...]) -> Narrowed:
        """The batch over its own items and fresh negatives.

        Args:
            batch: Over all items.
            seed: All that is random follows from it.
        """
        drawn = np.random.default_rng(seed).random(self._n_negatives) * self._bounds[-1]
        places = np.searchsorted(self._bounds, drawn, side="right")
        negatives = self._occurring[places]
        history, targets = batch.history.numpy(), batch.targets.numpy()
        together = np.concatenate([[0], history.ravel(), targets.ravel(), negatives])
        items, rows = np.unique(together, return_inverse=True)
        size = history.size
        local = torch.from_numpy(rows[1:])
        return Narrowed(
            batch._replace(
                history=local[:size].view(history.shape),
                targets=local[size : 2 * size].view(history.shape),
            ),
            torch.from_numpy(items),
            local[2 * size :],
            torch.from_numpy(np.log(self._n_negatives * self._probabilities[places])).float(),
        )


Competition = FullCompetition | SampledCompetition
