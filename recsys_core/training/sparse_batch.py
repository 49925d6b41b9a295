# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""The sparse labels of a batch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.data.soft_labels.sparse import SparseLabels


class SparseBatch(NamedTuple):
    """What a teacher says at the positions with a target, in row-major order.

    A position without a label has item 0 everywhere, and so has the padding of a short list. After
    renumbering, an item that is no candidate is −1: its probability counts as no other item's.

    Attributes:
        top_ids: The items that the teacher ranks first, best first: item_idx, or rows of the
            candidates.
        top_logits: Their raw scores; None if unknown.
        log_normalizer: Log of the sum over all items of exp(score); None if unknown.
        sample_ids: The distinct items drawn from the teacher's distribution; None without draws.
        sample_counts: How often each was drawn.
    """

    top_ids: Int[Tensor, "positions k"]
    top_logits: Float[Tensor, "positions k"] | None = None
    log_normalizer: Float[Tensor, " positions"] | None = None
    sample_ids: Int[Tensor, "positions samples"] | None = None
    sample_counts: Int[Tensor, "positions samples"] | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> "SparseBatch":
        """The same labels with every tensor changed, for example moved to a device."""
        top_ids, *others = self
        changed = [None if part is None else change(part) for part in others]
        return SparseBatch(change(top_ids), *changed)

    def renumbered(self, rows_of: Callable[[Tensor], Tensor]) -> "SparseBatch":
        """The same labels with other numbers for items.

        Args:
            rows_of: The number of each item; 0 if it is no candidate.
        """

        def renumber(ids: Tensor) -> Tensor:
            rows = rows_of(ids)
            return rows.masked_fill((ids > 0) & (rows == 0), -1)

        drawn = None if self.sample_ids is None else renumber(self.sample_ids)
        return self._replace(top_ids=renumber(self.top_ids), sample_ids=drawn)

    def items(self) -> NDArray[np.int64]:
        """The distinct items of all labels."""
        ids = [self.top_ids] if self.sample_ids is None else [self.top_ids, self.sample_ids]
        return np.unique(np.concatenate([part.numpy().ravel() for part in ids]))


def sparse_batch(labels: SparseLabels, events: NDArray[np.int64]) -> SparseBatch:
    """The labels of some events.

    Args:
        labels: Of the resident histories.
        events: The event up to which the history is read, for each position with a target.
    """
    rows = labels.rows[events]
    known = rows >= 0

    def at_events(values: NDArray[np.generic] | None, dtype: type[np.generic]) -> Tensor | None:
        if values is None:
            return None
        chosen = np.zeros((len(events), *values.shape[1:]), dtype)
        chosen[known] = values[rows[known]]
        return torch.from_numpy(chosen)

    top_ids = at_events(labels.top_ids, np.int64)
    assert top_ids is not None
    return SparseBatch(
        top_ids,
        at_events(labels.top_logits, np.float32),
        at_events(labels.log_normalizer, np.float32),
        at_events(labels.sample_ids, np.int64),
        at_events(labels.sample_counts, np.int64),
    )
