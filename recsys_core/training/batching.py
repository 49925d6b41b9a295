# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (torch leaves parts of its own signatures untyped)
"""Batches of training windows, drawn group of buckets by group of buckets.

A group holds as many buckets as fit into memory at once, with their labels: all of them for a small
log, some for a large one. (seed, epoch) determines all random draws, so a resumed epoch gets the
same batches as an uninterrupted one.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from recsys_core.data.histories.read import (
    ResidentHistories,
    count_training_events,
    group_buckets,
    read_training_histories,
)
from recsys_core.data.soft_labels.factorized import StateLabels
from recsys_core.data.soft_labels.sparse import SparseLabels
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.models.context import Context
from recsys_core.training.sparse_batch import SparseBatch, sparse_batch

_SORTED_BATCHES = 32  # windows of about this many batches are sorted by length at once
_EARLIER_EVENTS = 4096  # before a window, whose items don't compete; bounds a batch's memory
EVENT_BYTES = 100
"""Memory of an event while its group is read, about: 17 bytes stay, the others are for sorting."""
_TAIL_SHARE = 0.5  # share of windows that end at the user's newest event; others start anywhere


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
        sparse_labels: What the teacher says at each position with a target. None without soft
            labels of the sparse layout.
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

Trusted = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Which soft labels count, given the events of the user's whole history that lie before each
target, and the targets."""


class _WindowBatch(NamedTuple):
    """Windows of events [start, end); with labels of windows, the row of each one's first."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    label_rows: NDArray[np.int64]


class Recent(NamedTuple):
    """The users of a warm start: those with new events, and a sample of the others.

    Attributes:
        since: An event is new at or after this time, in microseconds since 1970.
        replay_share: Share of the users without new events that is drawn for each epoch.
    """

    since: int
    replay_share: float


class TrainingSet:
    """The training events of a folder of history buckets.

    Args:
        buckets: Bucket files.
        max_length: Longest window, in input events.
        batch_size: Windows in a batch.
        labels: Soft labels for the same buckets. The windows of factorized ones are the windows of
            training. With sparse ones, or None, windows begin anywhere.
        trusted: Labels that don't count are left out; None: all count.
        recent: The users of a warm start; None: all users.
        with_context: Whether batches hold the kinds and times of events.
        exclude_seen: Whether serving leaves out the items of the history. Then an item that the
            user had before is no target, and batches hold what is needed to leave the items of the
            history out of the loss.
        resident_bytes: Most memory of events and labels at once, approximately; a bucket is never
            divided. Without labels the default is 20 million events.

    Attributes:
        n_windows: Windows in an epoch.
        n_events: Events in an epoch, approximately.

    Raises:
        ValueError: No user has a target after another training event, or the soft labels are of
            longer windows.
    """

    def __init__(
        self,
        buckets: Sequence[Path],
        *,
        max_length: int,
        batch_size: int,
        labels: SoftLabels | None = None,
        trusted: Trusted | None = None,
        recent: Recent | None = None,
        with_context: bool = False,
        exclude_seen: bool = False,
        resident_bytes: int = 20_000_000 * EVENT_BYTES,
    ) -> None:
        sizes = {path: EVENT_BYTES * count_training_events(path) for path in buckets}
        if labels is not None:
            sizes = {path: size + labels.resident_bytes(path) for path, size in sizes.items()}
        self._groups = group_buckets(sizes, resident_bytes)
        self._max_length = max_length
        self._batch_size = batch_size
        self._labels = labels
        self._trusted = trusted
        self._recent = recent
        self._with_context = with_context
        self._exclude_seen = exclude_seen
        self.n_events = 0
        self._resident: tuple[int, ResidentHistories, Labels | None] | None = None
        self.n_windows = 0
        self._counts = np.zeros(1, np.int64)
        for group in range(len(self._groups)):
            self._count(*self._load(group))
        if not self.n_windows:
            msg = (
                "No user has a training event that is a target after another event: there is "
                "no next item to learn from. Check prepare.targets and the run date; if users only "
                "come back to what they had, set prepare.exclude_seen = false."
            )
            raise ValueError(msg)

    @property
    def steps_per_epoch(self) -> int:
        """Upper bound of the batches in an epoch; the last batch of a group may be smaller."""
        return self.n_windows // self._batch_size + len(self._groups)

    def _taking_part(
        self, histories: ResidentHistories, labels: Labels | None
    ) -> tuple[NDArray[np.int64], int]:
        """The users of every epoch, and how many of the others are drawn for each."""
        users = _predictable(histories)
        if isinstance(labels, StateLabels):
            users = np.intersect1d(users, labels.windows.users)
        if self._recent is None:
            return users, 0
        is_new = histories.newest[users] >= self._recent.since
        return users[is_new], round(self._recent.replay_share * int((~is_new).sum()))

    def item_counts(self, n_items: int) -> NDArray[np.int64]:
        """Training events of any kind by item_idx: `[n_items + 1]`."""
        return np.pad(self._counts, (0, n_items + 1 - len(self._counts)))

    def epoch(self, epoch: int, seed: int) -> Iterator[Batch]:
        """One window per participating user with a target, in random order of batches."""
        random = np.random.default_rng((seed, epoch))
        for group in random.permutation(len(self._groups)):
            yield from self._group_batches(int(group), random)

    def _group_batches(self, group: int, random: np.random.Generator) -> Iterator[Batch]:
        histories, labels = self._load(group)
        for starts, ends, label_rows in self._window_batches(histories, labels, random):
            batch = make_batch(
                histories,
                starts,
                ends,
                labels=labels,
                label_rows=label_rows,
                trusted=self._trusted,
                with_context=self._with_context,
                exclude_seen=self._exclude_seen,
            )
            if batch.targets.any():
                yield batch

    def _count(self, histories: ResidentHistories, labels: Labels | None) -> None:
        users, n_replayed = self._taking_part(histories, labels)
        self.n_windows += len(users) + n_replayed
        lengths = np.minimum(histories.lengths, self._max_length)
        others = np.setdiff1d(_predictable(histories), users, assume_unique=True)
        replayed = lengths[others].mean() * n_replayed if n_replayed else 0
        self.n_events += int(lengths[users].sum() + replayed)
        counts = np.bincount(histories.items, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    def _load(self, group: int) -> tuple[ResidentHistories, Labels | None]:
        if self._resident is None or self._resident[0] != group:
            self._resident = None  # free the last group before reading the next one
            buckets = self._groups[group]
            histories = read_training_histories(buckets)
            if self._exclude_seen:
                histories = histories.without_repeated_targets()
            labels = self._labels.align(histories, buckets) if self._labels else None
            if isinstance(labels, StateLabels):
                self._check_lengths(labels)
            self._resident = (group, histories, labels)
        return self._resident[1], self._resident[2]

    def _check_lengths(self, labels: StateLabels) -> None:
        longest = labels.windows.lengths.max(initial=0)
        if longest > self._max_length:
            msg = (
                f"The soft labels are of windows of up to {longest} events, and the model reads "
                f"{self._max_length}. Write the labels again."
            )
            raise ValueError(msg)

    def _window_batches(
        self,
        histories: ResidentHistories,
        labels: Labels | None,
        random: np.random.Generator,
    ) -> Iterator[_WindowBatch]:
        """Windows of similar length, batch by batch."""
        users, n_replayed = self._taking_part(histories, labels)
        if n_replayed:
            others = np.setdiff1d(_predictable(histories), users, assume_unique=True)
            users = np.concatenate([users, random.choice(others, n_replayed, replace=False)])
        users = random.permutation(users)
        if isinstance(labels, StateLabels):
            windows = _draw_labelled(labels, users, random)
        else:
            windows = self._draw_anywhere(histories, users, random)
        lengths = windows.ends - windows.starts
        batches: list[NDArray[np.int64]] = []
        n_sorted = self._batch_size * _SORTED_BATCHES
        for begin in range(0, len(users), n_sorted):
            chosen = np.arange(begin, min(begin + n_sorted, len(users)))
            chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
            batches += [
                chosen[i : i + self._batch_size] for i in range(0, len(chosen), self._batch_size)
            ]
        for i in random.permutation(len(batches)):
            yield _WindowBatch(*(part[batches[i]] for part in windows))

    def _draw_anywhere(
        self, histories: ResidentHistories, users: NDArray[np.int64], random: np.random.Generator
    ) -> _WindowBatch:
        """One window per user, which may begin at any event."""
        lengths = np.minimum(histories.lengths[users], self._max_length + 1)
        starts = histories.starts[users] + _newest_or_any(
            histories.lengths[users] - lengths, random
        )
        return _WindowBatch(starts, starts + lengths, np.zeros_like(starts))


def _draw_labelled(
    labels: StateLabels, users: NDArray[np.int64], random: np.random.Generator
) -> _WindowBatch:
    """One of the labelled windows of each user."""
    first, end = (np.searchsorted(labels.windows.users, users, side) for side in ("left", "right"))
    chosen = first + _newest_or_any(end - 1 - first, random)
    return _WindowBatch(
        labels.windows.starts[chosen], labels.windows.ends[chosen], labels.rows[chosen]
    )


def _newest_or_any(newest: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """For each user a number from 0 to `newest`: with `_TAIL_SHARE` that one, otherwise any."""
    anywhere = random.integers(0, newest + 1)
    return np.where(random.random(len(newest)) < _TAIL_SHARE, newest, anywhere)


def _predictable(histories: ResidentHistories) -> NDArray[np.int64]:
    """Indices of the users with a target after their first event."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(histories.target_weights > 0)])
    first, end = histories.starts[:-1], histories.starts[1:]
    return np.flatnonzero(before[end] > before[np.minimum(first + 1, end)])


def make_batch(
    histories: ResidentHistories,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    *,
    labels: Labels | None = None,
    label_rows: NDArray[np.int64] | None = None,
    trusted: Trusted | None = None,
    with_context: bool = False,
    exclude_seen: bool = False,
) -> Batch:
    """Cut windows of events [start, end) out of resident histories; the last is a target only.

    Events with target weight 0 are input and never targets. `label_rows` are the rows of the
    windows' first labels in the factorized layout. A label that is not `trusted` is left out, as if
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
    is_trusted = None
    if labels is not None and trusted is not None:
        n_before = events + 1 - _first_events(histories, starts)[:, None]
        is_trusted = trusted(n_before[is_target], targets[is_target])
    states = None
    if isinstance(labels, StateLabels) and label_rows is not None:
        rows = (label_rows[:, None] + np.arange(events.shape[1]))[is_target]
        states = labels.states[rows] * labels.scales[rows, None]
        if is_trusted is not None:
            states[~is_trusted] = np.nan
    weights = weights[is_target]
    are_equal = not len(weights) or weights.min() == weights.max()
    return Batch(
        torch.from_numpy(history.astype(np.int64)),
        torch.from_numpy(targets.astype(np.int64)),
        None if states is None else torch.from_numpy(states),
        None if are_equal else torch.from_numpy(weights),
        event_context(histories, inside) if with_context else None,
        _earlier_items(histories, starts) if exclude_seen else None,
        sparse_batch(labels, events[is_target])
        if isinstance(labels, SparseLabels)
        else None,
    )


def _first_events(histories: ResidentHistories, events: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first event of the user of each of these events."""
    return histories.starts[np.searchsorted(histories.starts, events, side="right") - 1]


def _earlier_items(
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
