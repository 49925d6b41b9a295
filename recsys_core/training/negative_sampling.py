# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch leaves parts of its own signatures untyped)
"""The candidates of a training step: all items that occur in training, or sampled negatives.

A step computes the vectors of its candidates only, so its cost does not grow with the catalogue. An
item without training events is never a negative, so training does not lower its scores.
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.training.batch import Batch

LossName = Literal["auto", "softmax", "sampled_softmax", "gbce"]

FULL_SOFTMAX_ITEMS = 50_000
"""Up to this many items `auto` is the full softmax; above, negatives are drawn."""

_SMOOTHING = 0.75


def draws_negatives(loss: LossName, n_items: int) -> bool:
    """Whether negatives are drawn, rather than all items compared.

    Args:
        loss: The setting `training.loss`.
        n_items: Items that occur in training.
    """
    return loss != "softmax" and (loss != "auto" or n_items > FULL_SOFTMAX_ITEMS)


def comparable_loss(loss: LossName) -> LossName:
    """The loss beside which a student is distilled.

    gBCE has no distribution that could be compared with the teacher's, so it counts as `auto`.
    """
    return "auto" if loss == "gbce" else loss


class RestrictedBatch(NamedTuple):
    """A batch over a part of the catalogue: items are renumbered as rows of `items`.

    Attributes:
        batch: `history`, `targets`, `earlier` and the items of sparse labels are rows of `items`,
            from 1; 0 is padding. An item without a row is 0 in `earlier` and -1 in labels.
        items: item_idx of each row, ascending; row 0 is padding. None: row r is item_idx r.
        negatives: Rows drawn as negatives; None: every row is a candidate.
        log_expected: log(number of draws × probability of the row) for each drawn row.
    """

    batch: Batch
    items: Int[Tensor, " rows"] | None = None
    negatives: Int[Tensor, " negatives"] | None = None
    log_expected: Float[Tensor, " negatives"] | None = None


@runtime_checkable
class CandidateSet(Protocol):
    """Which items the target of a position is compared with."""

    @property
    def sampled(self) -> bool:
        """Whether negatives are drawn for each batch, so that id gradients are sparse."""
        ...

    @property
    def n_items(self) -> int:
        """Number of items that can be a candidate."""
        ...

    def restrict(self, batch: Batch, seed: tuple[int, ...]) -> RestrictedBatch:
        """The batch over the candidates of one step.

        Args:
            batch: Items are item_idx.
            seed: Determines all draws.
        """
        ...


class FullCatalogue:
    """Every item that occurs in training is a candidate at every position.

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

    def restrict(self, batch: Batch, seed: tuple[int, ...]) -> RestrictedBatch:
        """The batch over all items that occur in training; nothing is drawn."""
        del seed
        if self._items is None:
            return RestrictedBatch(batch)
        rows_of_item, labels = self._rows, batch.sparse_labels
        rows = batch._replace(
            history=rows_of_item[batch.history],
            targets=rows_of_item[batch.targets],
            earlier=None if batch.earlier is None else rows_of_item[batch.earlier],
            sparse_labels=labels and labels.renumbered(lambda ids: rows_of_item[ids]),
        )
        return RestrictedBatch(rows, self._items)


class SampledNegatives:
    """The items of a batch and of its labels, and negatives that are drawn for each batch.

    Listed items that never occur in training are left out.

    Args:
        counts: `[n_items + 1]` training events by item_idx.
        n_negatives: Draws per batch, with replacement.
        uniform: True: draw items that occur in training with equal probability. False: draw half of
            the probability mass uniformly and half by training events ^ 0.75; the uniform half
            bounds the logQ correction of rare items.
    """

    sampled = True

    def __init__(self, counts: NDArray[np.int64], *, n_negatives: int, uniform: bool) -> None:
        self._occurring = np.flatnonzero(counts[1:]) + 1
        self.n_items = len(self._occurring)
        even = np.full(self.n_items, 1 / self.n_items)
        popular = counts[self._occurring] ** _SMOOTHING
        self._probabilities = even if uniform else (even + popular / popular.sum()) / 2
        self._bounds = np.cumsum(self._probabilities)
        self._n_negatives = n_negatives

    def restrict(self, batch: Batch, seed: tuple[int, ...]) -> RestrictedBatch:
        """The batch over its own items and newly drawn negatives."""
        drawn = np.random.default_rng(seed).random(self._n_negatives) * self._bounds[-1]
        columns = np.searchsorted(self._bounds, drawn, side="right")
        negatives = self._occurring[columns]
        history, targets = batch.history.numpy(), batch.targets.numpy()
        size, labels = history.size, batch.sparse_labels
        listed = np.zeros(1, np.int64) if labels is None else self._occurring_among(labels.items())
        items_of_batch = np.concatenate([history.ravel(), targets.ravel(), negatives, [0], listed])
        items, rows = np.unique(items_of_batch, return_inverse=True)
        local = torch.from_numpy(rows[: 2 * size + len(negatives)])
        return RestrictedBatch(
            batch._replace(
                history=local[:size].view(history.shape),
                targets=local[size : 2 * size].view(history.shape),
                earlier=None if batch.earlier is None else _rows_of(batch.earlier, items),
                sparse_labels=labels and labels.renumbered(lambda ids: _rows_of(ids, items)),
            ),
            torch.from_numpy(items),
            local[2 * size :],
            torch.from_numpy(np.log(self._n_negatives * self._probabilities[columns])).float(),
        )

    def _occurring_among(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the items that occur in training."""
        places = np.searchsorted(self._occurring, items).clip(max=self.n_items - 1)
        return items[self._occurring[places] == items]


def _rows_of(item_idx: Tensor, items: NDArray[np.int64]) -> Tensor:
    """The row of each item in an ascending list; 0 for an item that the list lacks."""
    wanted = item_idx.numpy()
    rows = np.minimum(np.searchsorted(items, wanted), len(items) - 1)
    return torch.from_numpy(np.where(items[rows] == wanted, rows, 0))
