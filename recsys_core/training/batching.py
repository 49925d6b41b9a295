"""Batches of training windows, drawn group of buckets by group of buckets.

A group holds as many buckets as fit into memory at once, with their labels: all of them for a small
log, some for a large one. (seed, epoch) determines all random draws, so a resumed epoch gets the
same batches as an uninterrupted one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_core.data.histories.read import (
    ResidentHistories,
    count_training_events,
    group_buckets,
    read_training_histories,
)
from recsys_core.data.soft_labels.factorized import StateLabels
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.training.batch import Batch, Labels, TrustedPositions, make_batch
from recsys_core.training.window_draws import (
    WindowDraws,
    draw_anywhere,
    draw_labelled,
    predictable_users,
)

EVENT_BYTES = 100
"""Memory of an event while its group is read, about: 17 bytes stay, the others are for sorting."""


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
        trusted: Where factorized labels count; None: everywhere.
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
        trusted: TrustedPositions | None = None,
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
        users = predictable_users(histories)
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
        others = np.setdiff1d(predictable_users(histories), users, assume_unique=True)
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
    ) -> Iterator[WindowDraws]:
        """Windows of similar length, batch by batch."""
        users, n_replayed = self._taking_part(histories, labels)
        if n_replayed:
            others = np.setdiff1d(predictable_users(histories), users, assume_unique=True)
            users = np.concatenate([users, random.choice(others, n_replayed, replace=False)])
        users = random.permutation(users)
        if isinstance(labels, StateLabels):
            windows = draw_labelled(labels, users, random)
        else:
            windows = draw_anywhere(histories, users, self._max_length, random)
        yield from windows.in_batches(self._batch_size, random)
