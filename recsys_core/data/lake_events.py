"""The lake's interactions as events of histories, a data file at a time."""

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from recsys_core.data.histories import EVENTS
from recsys_core.data.lake import Snapshot
from recsys_core.data.schema import TIMESTAMP


def events_before(
    moment: datetime, interactions: Snapshot, *, item_index: pl.DataFrame, event_types: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """All events before a moment, a chunk of `EVENTS` for each data file.

    Args:
        moment: The night's end.
        interactions: The table at the night's version.
        item_index: `item_id`, `item_idx`.
        event_types: `event_type`, `code`.
    """
    index, kinds = item_index.lazy(), event_types.lazy()
    for path in interactions.files().sort("date", "path")["path"]:
        yield (
            _before(moment, interactions, path)
            .join(index, on="item_id")
            .join(kinds, on="event_type")
            .with_columns(event_type=pl.col("code"))
            .select(EVENTS.names())
            .cast(EVENTS)
            .collect()
        )


def first_interactions(moment: datetime, interactions: Snapshot) -> pl.DataFrame:
    """`item_id`, `first_interaction`: when an item was first interacted with, before a moment."""
    first = pl.DataFrame(schema={"item_id": pl.String, "first_interaction": TIMESTAMP})
    for path in interactions.files()["path"]:
        of_file = (
            _before(moment, interactions, path)
            .group_by("item_id")
            .agg(first_interaction=pl.col("timestamp").min())
        )
        first = (
            pl.concat([first.lazy(), of_file])
            .group_by("item_id")
            .agg(pl.col("first_interaction").min())
            .collect()
        )
    return first


def _before(moment: datetime, interactions: Snapshot, path: str) -> pl.LazyFrame:
    rows = interactions.read_file(path)
    return rows.filter(pl.col("timestamp") < pl.lit(moment).cast(TIMESTAMP))
