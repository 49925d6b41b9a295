# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""A batch of training windows, cut out of histories."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels.factorized import StateLabels
from recsys_core.data.soft_labels.sparse import SparseLabels
from recsys_core.models.context import Context
from recsys_core.training.sparse_batch import SparseBatch, sparse_batch

_EARLIER_EVENTS = 4096  # before a window, whose items don't compete; bounds a batch's memory


class Batch(NamedTuple):
    """Right-padded windows: position p of `history` predicts position p of `targets`.

    Attributes:
        history: item_idx, 0 is padding.
        targets: item_idx of the next item, 0 where there is none.
        teacher_states: One row per position with a target, in row-major order. None without soft
            labels of the factorized layout.
        weights: Weight in the loss of each position with a target; None: all weights are equal.
        context: Kinds and times of the events; None if the model does not read them.
        earlier: item_idx of the user's events before the window, 0 is padding. None: items of the
            history may be recommended again, so they compete with the target.
        sparse_labels: What the teacher says at each position with a target: labels of the sparse
            layout, or the top items beside `teacher_states`. None without either.
    """

    history: Int[Tensor, "batch length"]
    targets: Int[Tensor, "batch length"]
    teacher_states: Float[Tensor, "positions teacher_dim"] | None = None
    weights: Float[Tensor, " positions"] | None = None
    context: Context | None = None
    earlier: Int[Tensor, "batch earlier"] | None = None
    sparse_labels: SparseBatch | None = None


Labels = StateLabels | SparseLabels
"""The soft labels of resident histories."""

TrustedPositions = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Which soft labels count, given how many events of the user's whole history lie before each
target."""


def make_batch(
    histories: ResidentHistories,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    *,
    labels: Labels | None = None,
    label_rows: NDArray[np.int64] | None = None,
    trusted: TrustedPositions | None = None,
    with_context: bool = False,
    exclude_seen: bool = False,
) -> Batch:
    """Cut windows of events [start, end) out of resident histories; the last is a target only.

    Events with target weight 0 are input and never targets. `label_rows` are the rows of the
    windows' first labels in the factorized layout. A state that is not `trusted` is left out, as if
    its position had none.
    """
    lengths = ends - starts - 1
    events = starts[:, None] + np.arange(lengths.max())
    valid = np.arange(lengths.max()) < lengths[:, None]
    inside = np.where(valid, events, 0)
    history = np.where(valid, histories.items[inside], 0)
    weights = np.where(valid, histories.target_weights[inside + 1], 0)
    is_target = weights > 0
    targets = np.where(is_target, histories.items[inside + 1], 0)
    states = lists = None
    if isinstance(labels, StateLabels) and label_rows is not None:
        rows = (label_rows[:, None] + np.arange(events.shape[1]))[is_target]
        states = labels.states[rows] * labels.scales[rows, None]
        if trusted is not None:
            n_before = events + 1 - _first_events(histories, starts)[:, None]
            states[~trusted(n_before[is_target])] = np.nan
        if labels.top_ids is not None:
            lists = SparseBatch(torch.from_numpy(labels.top_ids[rows].astype(np.int64)))
    elif isinstance(labels, SparseLabels):
        lists = sparse_batch(labels, events[is_target])
    weights = weights[is_target]
    are_equal = not len(weights) or weights.min() == weights.max()
    return Batch(
        torch.from_numpy(history.astype(np.int64)),
        torch.from_numpy(targets.astype(np.int64)),
        None if states is None else torch.from_numpy(states),
        None if are_equal else torch.from_numpy(weights),
        event_context(histories, inside) if with_context else None,
        earlier_items(histories, starts) if exclude_seen else None,
        lists,
    )


def _first_events(histories: ResidentHistories, events: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first event of the user of each of these events."""
    return histories.starts[np.searchsorted(histories.starts, events, side="right") - 1]


def earlier_items(
    histories: ResidentHistories, starts: NDArray[np.int64]
) -> Int[Tensor, "batch earlier"]:
    """The items of each user before a window, the newest `_EARLIER_EVENTS` at most."""
    lengths = np.minimum(starts - _first_events(histories, starts), _EARLIER_EVENTS)
    before = np.arange(lengths.max(), dtype=np.int64)
    events = starts[:, None] - 1 - before
    items = np.where(before < lengths[:, None], histories.items[np.maximum(events, 0)], 0)
    return torch.from_numpy(items.astype(np.int64))


def event_context(histories: ResidentHistories, events: NDArray[np.int64]) -> Context:
    """Kinds and times of events.

    Args:
        histories: Holds the events.
        events: Their rows, `[batch, length]`.
    """
    return Context(
        torch.from_numpy(histories.kinds[events].astype(np.int64)),
        torch.from_numpy(histories.times[events]),
    )
