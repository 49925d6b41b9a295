"""Cases: held-out events to predict, each with the history before it; and what ranks them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.histories.ragged import Ragged, first_in_row
from recsys_core.data.schema import HISTORY_LISTS

IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]

Ranker = Callable[[Sequence[IntArray]], FloatArray]
"""Scores the whole catalogue after each history.

It takes histories (item_idx, oldest first, full length, possibly empty) and returns scores
`[batch, n_items + 1]` by item_idx (column 0 is ignored). An item that the model lacks scores -inf.
"""

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class CaseHistories(Sequence[IntArray]):
    """A sequence of histories, each an array of item_idx, oldest first.

    The histories are views of shared events, so the cases of one user share that user's events.

    Attributes:
        items: item_idx of all events.
        kinds: Code of each event's kind.
        times: Time of each event in microseconds since 1970.
        begins: Where each history begins among the events.
        ends: Where each ends.
    """

    items: IntArray
    kinds: NDArray[np.int8]
    times: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def whole(cls, users: pl.DataFrame) -> "CaseHistories":
        """All events of some rows of a bucket file: one history per user."""
        items, kinds, times = (
            Ragged.of(users[name]) for name in ("item_idx", "event_type", "timestamp")
        )
        return cls(items.values, kinds.values, times.values, items.offsets[:-1], items.offsets[1:])

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, index: int) -> IntArray: ...
    @overload
    def __getitem__(self, index: slice) -> "CaseHistories": ...
    def __getitem__(self, index: int | slice) -> "IntArray | CaseHistories":
        begins, ends = self.begins[index], self.ends[index]
        if isinstance(index, slice):
            return replace(self, begins=begins, ends=ends)
        return self.items[begins:ends]

    def of_kinds(self) -> list[NDArray[np.int8]]:
        """Codes of the kinds of each history's events."""
        return [self.kinds[begin:end] for begin, end in self._spans()]

    def of_times(self) -> list[NDArray[np.int64]]:
        """The times of each history's events."""
        return [self.times[begin:end] for begin, end in self._spans()]

    def where(self, keep: Callable[[IntArray], NDArray[np.bool_]]) -> "CaseHistories":
        """The same histories with only the events whose item `keep` selects."""
        rows = np.concatenate(
            [np.empty(0, np.int64), *(np.arange(begin, end) for begin, end in self._spans())]
        )
        kept = keep(self.items[rows])
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
        ends = np.cumsum(self.ends - self.begins)
        rows = rows[kept]
        return CaseHistories(
            self.items[rows],
            self.kinds[rows],
            self.times[rows],
            before[ends - (self.ends - self.begins)],
            before[ends],
        )

    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self.begins.tolist(), self.ends.tolist(), strict=True))


@dataclass(frozen=True)
class Cases:
    """Held-out events to predict, in the order of users and positions.

    Attributes:
        user_id: User of each case.
        positions: Position of the target in the user's history, from 0.
        targets: item_idx of the target.
        histories: The user's events before the target.
        train_lengths: Number of training events of the user.
        dropped: Number of events of the window that are no cases, by reason: "seen" (the target was
            in the history before), "not_candidate" (it was not in the catalogue then).
    """

    user_id: list[str]
    positions: IntArray
    targets: IntArray
    histories: Sequence[IntArray]
    train_lengths: IntArray
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.user_id)


def candidate_mask(items: pl.DataFrame, split: Split) -> BoolArray:
    """Items that may be recommended in the window of a split.

    Args:
        items: The catalogue: `item_idx` 1 … n_items in order, `candidate_<split>`.
        split: The split.

    Returns:
        `[n_items + 1]` by item_idx; the padding is no candidate.

    Raises:
        ValueError: The rows are not those of item_idx 1 … n_items.
    """
    item_idx = items["item_idx"].to_numpy()
    if not np.array_equal(item_idx, np.arange(1, items.height + 1)):
        msg = f"items must hold item_idx 1 to {items.height} in order; prepare the data again."
        raise ValueError(msg)
    return np.concatenate([[False], items[f"candidate_{split}"].to_numpy()])


def read_cases(bucket: Path, items: pl.DataFrame, split: Split, *, exclude_seen: bool) -> Cases:
    """Read the cases of one bucket file of histories.

    Args:
        bucket: File of `recsys_core.data.schema.HISTORIES`.
        items: The catalogue, see `candidate_mask`.
        split: "validation" reads the events [train_end, validation_end), "test" those after; only
            events that are targets become cases.
        exclude_seen: Drop events whose item is in the history: it is never recommended.

    Returns:
        The cases; memory is proportional to the events of the users who have any.

    Raises:
        ValueError: A history holds an item that is not in the catalogue.
    """
    candidates = candidate_mask(items, split)
    users = _users_in_window(bucket, split)
    histories, times, kinds, weights = (Ragged.of(users[name]) for name in HISTORY_LISTS)
    events = histories.values
    if events.size and not 1 <= events.min() <= events.max() <= items.height:
        msg = (
            f"{bucket} holds item_idx from {events.min()} to {events.max()} but the catalogue has "
            f"1 to {items.height}: they are of different runs. Prepare the data again."
        )
        raise ValueError(msg)

    starts, n_events = users["first"].to_numpy(), (users["last"] - users["first"]).to_numpy()
    rows = np.repeat(np.arange(users.height), n_events)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(n_events) - n_events, n_events)
    positions = (starts[rows] + within).astype(np.int32)
    user_starts = histories.offsets[rows]
    held_out = user_starts + positions
    targets = events[held_out]
    is_target = weights.values[held_out] > 0
    seen = is_target & ~first_in_row(histories)[held_out] & exclude_seen
    not_candidate = is_target & ~seen & ~candidates[targets]
    kept = np.flatnonzero(is_target & ~seen & ~not_candidate)
    begins = user_starts[kept]
    return Cases(
        user_id=users["user_id"].gather(rows[kept]).to_list(),
        positions=positions[kept],
        targets=targets[kept],
        histories=CaseHistories(
            events, kinds.values, times.values, begins, begins + positions[kept]
        ),
        train_lengths=users["train_end"].to_numpy()[rows[kept]].astype(np.int32),
        dropped={"seen": int(seen.sum()), "not_candidate": int(not_candidate.sum())},
    )


def _users_in_window(bucket: Path, split: Split) -> pl.DataFrame:
    """Users with events in the window of a split, and where these events begin and end."""
    first, last = {
        "validation": (pl.col("train_end"), pl.col("validation_end")),
        "test": (pl.col("validation_end"), pl.col("item_idx").list.len().cast(pl.Int32)),
    }[split]
    return (
        pl.scan_parquet(bucket)
        .select("user_id", *HISTORY_LISTS, "train_end", first=first, last=last)
        .filter(pl.col("last") > pl.col("first"))
        .collect()
    )
