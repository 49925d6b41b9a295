"""Histories: each user's events in order, in buckets by a stable hash of the user.

The bucket is the unit of parallel work and of memory: later stages read one bucket at a time, or as
many as they choose to hold.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.histories.splits import SplitKind, TimeWindows, split_columns
from recsys_core.data.io.prefetch import one_ahead
from recsys_core.data.io.spool import Spool
from recsys_core.data.schema import HISTORIES, HISTORY_LISTS, TIMESTAMP
from recsys_core.settings import Progress, silent

_HASH_PRIME = np.uint64(0x100000001B3)
_HASH_OFFSET = np.uint64(0xCBF29CE484222325)


def stable_hash(ids: pl.Series) -> NDArray[np.uint64]:
    """Hash of strings that is the same in every run, in every version and on every machine.

    It is FNV-1a of the UTF-8 bytes, 64 bits. The upper half is folded onto the lower one, because
    the low bits choose the bucket and are FNV's weakest.

    >>> (stable_hash(pl.Series(["ann", "bob", "ann"])) % np.uint64(8)).tolist()
    [1, 5, 1]

    Source: Fowler, Noll, Vo; http://www.isthe.com/chongo/tech/comp/fnv/.
    """
    arrow = cast("Any", ids.to_arrow(compat_level=pl.CompatLevel.oldest()))
    _, ends, text = arrow.buffers()
    offsets = np.frombuffer(ends, np.int64, count=len(ids) + 1) if len(ids) else np.zeros(1, int)
    letters = np.frombuffer(text or b"", np.uint8)
    starts, lengths = offsets[:-1], np.diff(offsets)
    hashes = np.full(len(ids), _HASH_OFFSET)
    shortest = int(lengths.min()) if len(ids) else 0
    for position in range(shortest):
        hashes = (hashes ^ letters[starts + position]) * _HASH_PRIME
    position, longer = shortest, np.flatnonzero(lengths > shortest)
    while longer.size:
        hashes[longer] = (hashes[longer] ^ letters[starts[longer] + position]) * _HASH_PRIME
        position += 1
        longer = longer[lengths[longer] > position]
    return hashes ^ (hashes >> np.uint64(32))


EVENTS = pl.Schema(
    {
        "user_id": pl.String(),
        "item_idx": pl.Int32(),
        "timestamp": TIMESTAMP,
        "arrival": pl.Int64(),
        "event_type": pl.Int8(),
        "target_weight": pl.Float32(),
    }
)
"""Events before they become histories. `event_type` is the code of the kind, `target_weight` the
weight in the loss; 0: the event is no target."""


def write_histories(
    events: Iterable[pl.DataFrame],
    folder: Path,
    scratch: Path,
    *,
    kind: SplitKind,
    windows: TimeWindows,
    n_buckets: int,
    base: Sequence[Path] | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write `bucket-000.parquet` …: one row per user, sorted by user_id.

    A user's events are ordered by time, and by arrival where the times are equal. The events are
    split into buckets on the disk; then one bucket at a time is sorted in memory. With a base only
    the new events are sorted; the files have the same bytes either way.

    Args:
        events: Chunks of `EVENTS` before the night's end, in any order.
        folder: Folder of the bucket files.
        scratch: Folder of the unsorted buckets; emptied before and after.
        kind: Kind of split, see `recsys_core.data.histories.splits`.
        windows: Windows of a global-time split.
        n_buckets: Number of files.
        base: Bucket files of an earlier night, as many; `events` then lacks their events. Every new
            event arrived later than every event of the base.
        progress: Called after each chunk and bucket.

    Returns:
        The bucket files.
    """
    schema = pl.Schema({**EVENTS, "bucket": pl.Int32()})
    unsorted = Spool(scratch / "unsorted", schema, key="bucket")
    for chunk in one_ahead(_with_bucket(chunk, n_buckets) for chunk in events):
        unsorted.append(chunk)
        progress(0, f"{unsorted.n_rows:,} events")
    derived = split_columns(kind, windows)
    folder.mkdir(exist_ok=True)
    paths = [folder / f"bucket-{bucket:03d}.parquet" for bucket in range(n_buckets)]
    buckets = (
        _bucket(unsorted.scan(bucket), None if base is None else base[bucket], derived)
        for bucket in range(n_buckets)
    )
    for number, (path, histories) in enumerate(zip(paths, one_ahead(buckets), strict=True), 1):
        histories.write_parquet(path, compression="zstd")
        progress(number / n_buckets, f"bucket {number} of {n_buckets}")
    unsorted.discard()
    return paths


def _with_bucket(events: pl.DataFrame, n_buckets: int) -> pl.DataFrame:
    buckets = stable_hash(events["user_id"]) % np.uint64(n_buckets)
    return events.with_columns(bucket=pl.Series(buckets, dtype=pl.Int32))


def _bucket(events: pl.LazyFrame, base: Path | None, derived: Sequence[pl.Expr]) -> pl.DataFrame:
    """The histories of a bucket."""
    histories = _in_order(events.select(*HISTORY_LISTS, "user_id", "arrival")).collect()
    if base is not None:
        old = pl.read_parquet(base, columns=["user_id", *HISTORY_LISTS])
        histories = _appended(old.cast({"timestamp": pl.List(TIMESTAMP)}), histories)
    return histories.with_columns(*derived).select(list(HISTORIES)).cast(HISTORIES).rechunk()


def _in_order(events: pl.LazyFrame) -> pl.LazyFrame:
    """One row per user, with lists of the events."""
    return (
        events.sort("user_id", "timestamp", "arrival", "item_idx")
        .group_by("user_id", maintain_order=True)
        .agg(*HISTORY_LISTS)
    )


def _appended(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Histories of both, where every new event arrived after every old one."""
    both = old.join(new, on="user_id", suffix="_new")
    later = pl.col("timestamp").list.last() <= pl.col("timestamp_new").list.first()
    joined = both.filter(later).select(
        "user_id", *(pl.concat_list(name, f"{name}_new").alias(name) for name in HISTORY_LISTS)
    )
    late = both.filter(~later)
    mixed = pl.concat(
        late.select(
            "user_id", *(pl.col(f"{name}{suffix}").alias(name) for name in HISTORY_LISTS)
        ).explode(*HISTORY_LISTS, empty_as_null=False)
        for suffix in ("", "_new")
    )
    # Within a user the rows are in the order that events of equal time keep.
    mixed = mixed.with_columns(arrival=pl.int_range(pl.len()))
    return pl.concat(
        [
            old.join(both, on="user_id", how="anti"),
            new.join(both, on="user_id", how="anti"),
            joined,
            _in_order(mixed.lazy()).collect(),
        ]
    ).sort("user_id")
