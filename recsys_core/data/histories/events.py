"""The lake's interactions as events of histories, one data file at a time."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import polars as pl

from recsys_core.data.histories.build import EVENTS
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.schema import INTERACTIONS, TIMESTAMP

MOST_REWRITTEN = 20_000_000
"""Most rewritten rows that are compared; with more, all histories are built again."""

_ROW = [column.name for column in INTERACTIONS.columns if column.name != "date"]


def events_before(
    moment: datetime,
    interactions: Snapshot,
    *,
    item_index: pl.DataFrame,
    event_types: pl.DataFrame,
    min_weight: float | None = None,
    since: Snapshot | None = None,
) -> Iterator[pl.DataFrame]:
    """All events before a moment, a chunk of `EVENTS` for each data file.

    Args:
        moment: The night's end.
        interactions: The table at the night's version.
        item_index: `item_id`, `item_idx`.
        event_types: `event_type`, `code`, `target_weight`.
        min_weight: Events of a lower weight are no targets; None: no bound.
        since: Earlier version whose rows are left out; `only_later_rows` must hold for it.
    """
    index, kinds = item_index.lazy(), event_types.lazy()
    paths = interactions.files().sort("date", "path")["path"].to_list()
    known: list[str] = []
    if since is not None:
        known = _files_missing_in(interactions, since)
        paths = _files_missing_in(since, interactions)
    liked = pl.lit(value=True) if min_weight is None else pl.col("weight") >= min_weight
    for path in paths:
        rows = _rows(interactions, [path]).filter(_before(moment))
        new = rows.join(_rows(since, known), on=_ROW, how="anti") if since and known else rows
        yield (
            new.join(index, on="item_id")
            .join(kinds, on="event_type")
            .with_columns(event_type=pl.col("code"), target_weight=pl.col("target_weight") * liked)
            .select(EVENTS.names())
            .cast(EVENTS)
            .collect()
        )


def only_later_rows(before: Snapshot, now: Snapshot) -> bool:
    """Whether a version only adds rows to an earlier one, all of which arrived later.

    Data files that were rewritten for other reasons are compared row by row.
    """
    gone, added = _files_missing_in(now, before), _files_missing_in(before, now)
    files = before.files()
    n_gone = int(files.filter(pl.col("path").is_in(gone))["rows"].sum())
    if n_gone > MOST_REWRITTEN or not all((before.path / path).exists() for path in gone):
        return False
    rewritten, n_kept, arrivals = _rows(before, gone), 0, pl.Series(dtype=pl.Int64)
    for path in added:
        rows = _rows(now, [path]).collect()
        new = rows.lazy().join(rewritten, on=_ROW, how="anti").select("arrival").collect()
        n_kept += rows.height - new.height
        arrivals = arrivals.append(new["arrival"].sort().head(1))
    last = int(files["last_arrival"].max() or -1)  # pyright: ignore[reportArgumentType]
    return n_kept == n_gone and bool((arrivals > last).all())


def first_interactions(moment: datetime, interactions: Snapshot) -> pl.DataFrame:
    """`item_id`, `first_interaction`: time of each item's first one before a moment."""
    first = pl.DataFrame(schema={"item_id": pl.String, "first_interaction": TIMESTAMP})
    for path in interactions.files()["path"]:
        rows = interactions.read_file(path).filter(_before(moment))
        first_in_file = rows.group_by("item_id").agg(first_interaction=pl.col("timestamp").min())
        first = (
            pl.concat([first.lazy(), first_in_file])
            .group_by("item_id")
            .agg(pl.col("first_interaction").min())
            .collect()
        )
    return first


def _files_missing_in(other: Snapshot, snapshot: Snapshot) -> list[str]:
    """Data files of a snapshot that another one lacks."""
    missing = snapshot.files().join(other.files(), on="path", how="anti")
    return missing.sort("date", "path")["path"].to_list()


def _rows(snapshot: Snapshot, paths: Sequence[str]) -> pl.LazyFrame:
    empty = pl.LazyFrame(schema={name: INTERACTIONS.schema[name] for name in _ROW})
    return pl.concat([empty, *(snapshot.read_file(path).select(_ROW) for path in paths)])


def _before(moment: datetime) -> pl.Expr:
    return pl.col("timestamp") < pl.lit(moment).cast(TIMESTAMP)
