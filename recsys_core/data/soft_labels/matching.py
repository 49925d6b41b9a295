"""Which event of the histories a label belongs to, and whether that event is still the same."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels.description import SoftLabelError

_HASH_BASE = np.uint64(0x9E3779B97F4A7C15)


class Matched(NamedTuple):
    """Where the labels belong.

    Attributes:
        users: `[rows]`, row of each label's user in the histories.
        starts: `[rows]`, first event of that user.
        events: `[rows]`, the label's event.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    events: NDArray[np.int64]


def match(labels: pl.DataFrame, histories: ResidentHistories, folder: Path) -> Matched:
    """Find the event of each label.

    Args:
        labels: `user_id`, `position` and `prefix_hash` of each label.
        histories: The training events.
        folder: The store, for the message.

    Raises:
        SoftLabelError: A label is for a position that the history lacks, or the history up to that
            position has changed since the label was written.
    """
    keys = _placed(labels, histories)
    events = (keys["start"] + keys["position"]).to_numpy()
    outside = int((~keys["is_inside"]).sum())
    stale = 0
    if not outside:
        hashes = prefix_hashes(histories.items, histories.starts)
        stale = int((hashes[events] != keys["prefix_hash"].to_numpy()).sum())
    if outside or stale:
        msg = (
            f"{outside or stale} of {len(keys)} soft labels in {folder} do not belong "
            "to the histories: these were shifted or changed since. Write the labels again."
        )
        raise SoftLabelError(msg)
    return Matched(keys["user"].to_numpy(), keys["start"].to_numpy(), events)


def fitting(labels: pl.DataFrame, histories: ResidentHistories) -> pl.Series:
    """Which labels belong to the histories, `[rows]` booleans; see `match`."""
    keys = _placed(labels, histories)
    inside = keys["is_inside"].to_numpy()
    hashes = prefix_hashes(histories.items, histories.starts)
    fits = inside.copy()
    events = (keys["start"] + keys["position"]).filter(keys["is_inside"]).to_numpy()
    fits[inside] = hashes[events] == keys["prefix_hash"].to_numpy()[inside]
    return pl.Series(fits)


def _placed(labels: pl.DataFrame, histories: ResidentHistories) -> pl.DataFrame:
    """The labels with `user`, `start` and whether the history has a next event: `is_inside`."""
    users = pl.DataFrame(
        {
            "user_id": histories.user_ids,
            "user": np.arange(len(histories.user_ids)),
            "start": histories.starts[:-1],
            "length": histories.lengths,
        }
    )
    keys = labels.select("user_id", "position", "prefix_hash")
    keys = keys.join(users, on="user_id", how="left", maintain_order="left")
    is_inside = pl.col("length").is_not_null() & (pl.col("position") < pl.col("length") - 1)
    return keys.with_columns(is_inside=is_inside.fill_null(value=False))


def prefix_hashes(items: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash of each user's history up to and including each event: Σ mix(itemᵢ)·Bⁱ mod 2⁶⁴.

    Args:
        items: item_idx of all events, user after user.
        starts: Where each user's events begin; one more entry than users.

    Returns:
        `[events]`.
    """
    lengths = np.diff(starts)
    longest = int(lengths.max(initial=0))
    powers = np.cumprod(np.full(longest, _HASH_BASE | np.uint64(1), np.uint64), dtype=np.uint64)
    position = np.arange(len(items)) - np.repeat(starts[:-1], lengths)
    sums = np.cumsum(_mix(items) * powers[position], dtype=np.uint64)
    before = np.concatenate([np.zeros(1, np.uint64), sums])[starts[:-1]]
    return sums - np.repeat(before, lengths)


def _mix(values: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Scatter close integers over 64 bits (the finalizer of splitmix64)."""
    mixed = values.astype(np.uint64) + _HASH_BASE
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
