"""Which windows an epoch reads: one for each user, in batches of similar length."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels.factorized import StateLabels

_SORTED_BATCHES = 32  # windows of about this many batches are sorted by length at once
_TAIL_SHARE = 0.5  # share of windows that end at the user's newest event; others start anywhere


class WindowDraws(NamedTuple):
    """Windows of events [start, end).

    Attributes:
        starts: First event of each window.
        ends: Event after its last, which is a target only.
        label_rows: With labels of windows, the row of each window's first.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    label_rows: NDArray[np.int64]

    def in_batches(self, batch_size: int, random: np.random.Generator) -> "Iterator[WindowDraws]":
        """The windows in batches of similar length, in random order.

        Args:
            batch_size: Windows in a batch; the last one may be smaller.
            random: Decides the order of the batches.
        """
        lengths = self.ends - self.starts
        batches: list[NDArray[np.int64]] = []
        n_sorted = batch_size * _SORTED_BATCHES
        for begin in range(0, len(lengths), n_sorted):
            chosen = np.arange(begin, min(begin + n_sorted, len(lengths)))
            chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
            batches += [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
        for i in random.permutation(len(batches)):
            yield WindowDraws(*(part[batches[i]] for part in self))


def draw_labelled(
    labels: StateLabels, users: NDArray[np.int64], random: np.random.Generator
) -> WindowDraws:
    """One of the labelled windows of each user."""
    first, end = (np.searchsorted(labels.windows.users, users, side) for side in ("left", "right"))
    chosen = first + _newest_or_any(end - 1 - first, random)
    return WindowDraws(
        labels.windows.starts[chosen], labels.windows.ends[chosen], labels.rows[chosen]
    )


def draw_anywhere(
    histories: ResidentHistories,
    users: NDArray[np.int64],
    max_length: int,
    random: np.random.Generator,
) -> WindowDraws:
    """One window of each user, of at most `max_length` input events, which may begin anywhere."""
    lengths = np.minimum(histories.lengths[users], max_length + 1)
    starts = histories.starts[users] + _newest_or_any(histories.lengths[users] - lengths, random)
    return WindowDraws(starts, starts + lengths, np.zeros_like(starts))


def _newest_or_any(newest: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """For each user a number from 0 to `newest`: with `_TAIL_SHARE` that one, otherwise any."""
    anywhere = random.integers(0, newest + 1)
    return np.where(random.random(len(newest)) < _TAIL_SHARE, newest, anywhere)


def predictable_users(histories: ResidentHistories) -> NDArray[np.int64]:
    """Indices of the users with a target after their first event."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(histories.target_weights > 0)])
    first, end = histories.starts[:-1], histories.starts[1:]
    return np.flatnonzero(before[end] > before[np.minimum(first + 1, end)])
