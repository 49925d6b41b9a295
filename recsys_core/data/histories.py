"""Histories: each user's events in order, in buckets by a stable hash of the user.

The bucket is the unit of parallel work and of memory: nothing later needs more than one bucket, or
as many as it chooses to hold, at a time.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.splits import SplitKind, TimeWindows, split_columns
from recsys_core.settings import Progress, silent

_HASH_PRIME = np.uint64(0x100000001B3)
_HASH_OFFSET = np.uint64(0xCBF29CE484222325)


def stable_hash(ids: pl.Series) -> NDArray[np.uint64]:
    """Hash of strings that is the same in every run, version and machine.

    FNV-1a of the UTF-8 bytes, 64 bits, its upper half folded onto the lower one because FNV's low
    bits, which choose the bucket, are its weakest.

    Source: Fowler, Noll, Vo; http://www.isthe.com/chongo/tech/comp/fnv/.
    """
    letters = np.frombuffer("".join(ids.to_list()).encode(), np.uint8)
    lengths = ids.str.len_bytes().to_numpy().astype(np.int64)
    starts = lengths.cumsum() - lengths
    hashes = np.full(len(ids), _HASH_OFFSET)
    place, longer = 0, np.flatnonzero(lengths > 0)
    while longer.size:
        hashes[longer] = (hashes[longer] ^ letters[starts[longer] + place]) * _HASH_PRIME
        place += 1
        longer = longer[lengths[longer] > place]
    return hashes ^ (hashes >> np.uint64(32))


def write_histories(
    interactions: pl.LazyFrame,
    folder: Path,
    scratch: Path,
    *,
    kind: SplitKind,
    windows: TimeWindows,
    event_types: Sequence[str],
    n_buckets: int,
    progress: Progress = silent,
) -> list[Path]:
    """Write `bucket-000.parquet` …: a row a user, sorted by user_id.

    Events are ordered by time, equal times by arrival. The interactions are streamed once into
    unsorted buckets on disk; then one bucket at a time is sorted in memory.

    Args:
        interactions: `user_id`, `item_idx`, `timestamp`, `arrival`, `event_type`; only what
            happened before the night's end.
        folder: For the bucket files.
        scratch: For the unsorted buckets; emptied before and after.
        kind: How to split, see `recsys_core.data.splits`.
        windows: The windows of a global-time split.
        event_types: What `event_type` may be; stored as the place in this list.
        n_buckets: How many files.
        progress: Told after each bucket.

    Returns:
        The bucket files.
    """
    unsorted = scratch / "unsorted"
    shutil.rmtree(unsorted, ignore_errors=True)
    users = interactions.select(pl.col("user_id").unique()).collect(engine="streaming")
    buckets = stable_hash(users["user_id"]) % np.uint64(n_buckets)
    users = users.with_columns(bucket=pl.Series(buckets, dtype=pl.Int32))
    interactions.join(users.lazy(), on="user_id").sink_parquet(
        pl.PartitionBy(unsorted, key="bucket"), mkdir=True, engine="streaming"
    )
    folder.mkdir(exist_ok=True)
    paths: list[Path] = []
    for bucket in range(n_buckets):
        path = folder / f"bucket-{bucket:03d}.parquet"
        files = sorted((unsorted / f"bucket={bucket}").glob("*.parquet"))
        events = pl.concat([pl.read_parquet(file) for file in files]) if files else None
        _write_bucket(events, path, split_columns(kind, windows), event_types)
        paths.append(path)
        progress((bucket + 1) / n_buckets, f"bucket {bucket + 1} of {n_buckets}")
    shutil.rmtree(unsorted, ignore_errors=True)
    return paths


_SCHEMA = pl.Schema(
    {
        "user_id": pl.String(),
        "item_idx": pl.List(pl.Int32()),
        "timestamp": pl.List(pl.Int64()),
        "event_type": pl.List(pl.Int8()),
        "train_end": pl.Int32(),
        "validation_end": pl.Int32(),
    }
)


def _write_bucket(
    events: pl.DataFrame | None,
    path: Path,
    ends: tuple[pl.Expr, pl.Expr],
    event_types: Sequence[str],
) -> None:
    if events is None:
        histories = pl.DataFrame(schema=_SCHEMA)
    else:
        kinds = pl.Enum(list(event_types))
        histories = (
            events.with_columns(pl.col("event_type").cast(kinds).to_physical().cast(pl.Int8))
            .sort("user_id", "timestamp", "arrival", "item_idx")
            .group_by("user_id", maintain_order=True)
            .agg("item_idx", "timestamp", "event_type")
            .with_columns(*ends)
            .with_columns(pl.col("timestamp").cast(pl.List(pl.Int64)))
            .select(list(_SCHEMA))
            .cast(_SCHEMA)
        )
    histories.write_parquet(path, compression="zstd")


@dataclass(frozen=True)
class ResidentHistories:
    """Training events of some buckets, user after user.

    Attributes:
        user_ids: The users in file order.
        items: item_idx of all events, oldest first within a user.
        starts: Where each user's events begin in `items`; one more entry than users.
    """

    user_ids: pl.Series
    items: NDArray[np.int32]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of training events of each user."""
        return np.diff(self.starts)


def read_training_histories(buckets: Sequence[Path]) -> ResidentHistories:
    """The events before each user's `train_end`, of these bucket files."""
    users = pl.concat(
        pl.scan_parquet(path).select(
            "user_id", pl.col("item_idx").list.head(pl.col("train_end")).alias("items")
        )
        for path in buckets
    ).collect()
    items = users["items"].explode(empty_as_null=False)
    return ResidentHistories(
        user_ids=users["user_id"],
        items=items.to_numpy().astype(np.int32),
        starts=np.concatenate(
            [np.zeros(1, np.int64), users["items"].list.len().to_numpy().cumsum(dtype=np.int64)]
        ),
    )


def group_buckets(buckets: Sequence[Path], resident_events: int) -> list[list[Path]]:
    """Consecutive buckets that together hold at most `resident_events` training events.

    A bucket that is larger than that makes a group of its own.
    """
    groups: list[list[Path]] = []
    room = 0
    for path in buckets:
        n_events = int(pl.scan_parquet(path).select(pl.col("train_end").sum()).collect().item())
        if not groups or n_events > room:
            groups.append([])
            room = resident_events
        groups[-1].append(path)
        room -= n_events
    return groups
