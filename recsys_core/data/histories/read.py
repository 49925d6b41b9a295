"""Reading histories: the training events of bucket files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.histories.ragged import Ragged, first_in_row
from recsys_core.data.schema import HISTORY_LISTS


def training_lists(bucket: Path, *columns: str, newest: int | None = None) -> pl.LazyFrame:
    """The training events of each user: one row per user, in file order.

    Args:
        bucket: File of histories, see `recsys_core.data.schema.HISTORIES`.
        columns: Which of `HISTORY_LISTS` to cut to the training events.
        newest: Keep only this many of each user's newest training events; None keeps all.

    Returns:
        The bucket's columns, the named ones cut; columns that are not selected are not read.
    """
    end, lists = pl.col("train_end"), pl.col(columns)
    begin = 0 if newest is None else pl.max_horizontal(0, end - newest)
    return pl.scan_parquet(bucket).with_columns(lists.list.slice(begin, end - begin))


def training_events(bucket: Path, *columns: str) -> pl.LazyFrame:
    """The training events of a bucket: one row per event, in the order of users and positions.

    Args:
        bucket: File of histories.
        columns: Which of `HISTORY_LISTS` to read.
    """
    lists = training_lists(bucket, *columns).select(columns)
    return lists.explode(columns, empty_as_null=False)


def training_items(bucket: Path, *, newest: int | None = None) -> Ragged[np.int32]:
    """item_idx of the training events of each user, see `training_lists`."""
    lists = training_lists(bucket, "item_idx", newest=newest).select("item_idx")
    return Ragged.of(lists.collect().to_series())


@dataclass(frozen=True)
class ResidentHistories:
    """Training events of some buckets, user after user.

    Attributes:
        user_ids: The users in file order.
        items: item_idx of all events, oldest first within a user.
        target_weights: Weight of each event in the loss; 0: the event is no target.
        kinds: Code of each event's kind.
        times: Time of each event in microseconds since 1970.
        starts: Where each user's events begin in `items`; one more entry than users.
    """

    user_ids: pl.Series
    items: NDArray[np.int32]
    target_weights: NDArray[np.float32]
    kinds: NDArray[np.int8]
    times: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of training events of each user."""
        return np.diff(self.starts)

    @property
    def newest(self) -> NDArray[np.int64]:
        """Time of each user's newest training event; 0 for a user without any."""
        last = self.times[np.maximum(self.starts[1:] - 1, 0)] if len(self.times) else 0
        return np.where(self.lengths > 0, last, 0)

    def without_repeated_targets(self) -> "ResidentHistories":
        """The same events; one whose item the user had before is no target.

        Evaluation has the same rule: an item that is never recommended again can't be found.
        """
        is_first = first_in_row(Ragged(self.items, self.starts))
        return replace(self, target_weights=self.target_weights * is_first)


def read_training_histories(buckets: Sequence[Path]) -> ResidentHistories:
    """The events before each user's `train_end`, of these bucket files."""
    users = pl.concat(
        training_lists(path, *HISTORY_LISTS).select("user_id", *HISTORY_LISTS) for path in buckets
    ).collect()
    items = Ragged.of(users["item_idx"])
    weights, kinds, times = (
        users[name].explode(empty_as_null=False).to_numpy()
        for name in ("target_weight", "event_type", "timestamp")
    )
    return ResidentHistories(users["user_id"], items.values, weights, kinds, times, items.offsets)


def count_training_events(bucket: Path) -> int:
    """The training events of a bucket, from the bounds of its users."""
    return int(pl.scan_parquet(bucket).select(pl.col("train_end").sum()).collect().item())


def group_buckets(sizes: Mapping[Path, int], room: int) -> list[list[Path]]:
    """Consecutive buckets whose sizes add up to at most `room`.

    A bucket that is larger than that makes a group of its own.
    """
    groups: list[list[Path]] = []
    left = 0
    for path, size in sizes.items():
        if not groups or size > left:
            groups.append([])
            left = room
        groups[-1].append(path)
        left -= size
    return groups
