"""Filters of histories: short sessions, rare users and rare items (the k-core).

Filters count training events only, so they do not depend on the validation and test targets. They
are off by default: every user and item is kept, however rare.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from recsys_core.artifacts import replacing
from recsys_core.data.histories.ragged import Ragged
from recsys_core.data.histories.read import training_items
from recsys_core.data.schema import HISTORY_LISTS, MICROSECONDS_PER_SECOND
from recsys_core.settings import Progress, Settings, silent


class FilterConfig(Settings):
    """Filters of histories."""

    min_session_events: int = Field(
        default=1,
        ge=1,
        description="Training sessions with fewer events are dropped; later events are all kept",
    )
    session_gap_minutes: int = Field(
        default=30, ge=1, description="A session ends after a pause of more than this many minutes"
    )
    min_user_events: int = Field(
        default=0,
        ge=0,
        description="Users with fewer training events are dropped; 1 drops users without any",
    )
    min_item_events: int = Field(
        default=0,
        ge=0,
        description="Events of items with fewer training events are dropped; 1 drops those of cold "
        "items. With min_user_events both rules are repeated until all users and items meet them: "
        "the k-core",
    )

    @property
    def any(self) -> bool:
        """Whether a filter is on."""
        return bool(self.min_session_events > 1 or self.min_user_events or self.min_item_events)


class Dropped(NamedTuple):
    """Numbers of dropped users, items and events.

    Attributes:
        users: Users without a history now.
        items: Items without an event now.
        events: Events of training, validation and test.
    """

    users: int
    items: int
    events: int


def filter_histories(
    buckets: Sequence[Path], config: FilterConfig, *, n_items: int, progress: Progress = silent
) -> Dropped:
    """Rewrite bucket files without what the filters drop, one bucket in memory at a time.

    Args:
        buckets: Files of `write_histories`; each is replaced as a whole.
        config: The filters.
        n_items: Length of the item index.
        progress: Called after each pass over the buckets.
    """
    before = _totals(buckets, n_items)
    if config.min_session_events > 1:
        for path in buckets:
            _replace(path, _without_short_sessions(pl.read_parquet(path), config))
        progress(0.3, "short sessions are left out")
    kept = _core_items(buckets, config, n_items=n_items, progress=progress)
    for path in buckets:
        histories = pl.read_parquet(path)
        items = Ragged.of(histories["item_idx"])
        thinned = _thinned(histories, kept[items.values], items.offsets)
        _replace(path, thinned.filter(pl.col("train_end") >= config.min_user_events))
    after = _totals(buckets, n_items)
    return Dropped(*(had - has for had, has in zip(before, after, strict=True)))


def _without_short_sessions(histories: pl.DataFrame, config: FilterConfig) -> pl.DataFrame:
    times = Ragged.of(histories["timestamp"])
    positions = times.positions
    training = positions < np.repeat(histories["train_end"].to_numpy(), times.lengths)
    gap = config.session_gap_minutes * 60 * MICROSECONDS_PER_SECOND
    pauses = np.diff(times.values, prepend=times.values[:1])
    begins = (positions == 0) | (pauses > gap)
    sessions = np.cumsum(begins) - 1
    n_training = np.bincount(sessions[training], minlength=sessions[-1] + 1 if len(sessions) else 0)
    keep = ~training | (n_training[sessions] >= config.min_session_events)
    return _thinned(histories, keep, times.offsets)


def _core_items(
    buckets: Sequence[Path], config: FilterConfig, *, n_items: int, progress: Progress
) -> NDArray[np.bool_]:
    """Whether the events of each item_idx are kept: `[n_items + 1]`."""
    kept = np.ones(n_items + 1, np.bool_)
    for n_passes in range(1, n_items + 2):
        counts = np.zeros(n_items + 1, np.int64)
        for path in buckets:
            items = training_items(path)
            users = items.rows
            in_core = kept[items.values]
            user_counts = np.bincount(users[in_core], minlength=len(items.lengths))
            in_core &= user_counts[users] >= config.min_user_events
            counts += np.bincount(items.values[in_core], minlength=n_items + 1)
        fewer = kept & (counts >= config.min_item_events)
        progress(0.6, f"k-core, pass {n_passes}: {int(fewer[1:].sum()):,} items")
        if (fewer == kept).all():
            break
        kept = fewer
    return kept


def _thinned(
    histories: pl.DataFrame, keep: NDArray[np.bool_], starts: NDArray[np.int64]
) -> pl.DataFrame:
    """Histories with only the events to keep, and only the users who have any."""
    seen = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
    counted = {
        name: seen[starts[:-1] + histories[name].to_numpy()] - seen[starts[:-1]]
        for name in ("train_end", "validation_end")
    }
    lengths = seen[starts[1:]] - seen[starts[:-1]]
    users = pl.DataFrame({"user": np.repeat(np.arange(len(lengths)), lengths)})
    lists = (
        users.with_columns(
            histories[name].explode(empty_as_null=False).filter(pl.Series(keep))
            for name in HISTORY_LISTS
        )
        .group_by("user", maintain_order=True)
        .agg(*HISTORY_LISTS)
    )
    rest = histories.select("user_id").with_columns(
        pl.Series(name, values, dtype=pl.Int32) for name, values in counted.items()
    )
    return rest[lists["user"]].hstack(lists.select(HISTORY_LISTS)).select(histories.columns)


def _totals(buckets: Sequence[Path], n_items: int) -> tuple[int, int, int]:
    """Users, items and events."""
    seen = np.zeros(n_items + 1, np.bool_)
    n_users = n_events = 0
    for path in buckets:
        items = Ragged.of(pl.read_parquet(path, columns=["item_idx"]).to_series())
        n_users += len(items.lengths)
        n_events += len(items.values)
        seen[items.values] = True
    return n_users, int(seen.sum()), n_events


def _replace(path: Path, histories: pl.DataFrame) -> None:
    with replacing(path) as draft:
        histories.write_parquet(draft, compression="zstd")
