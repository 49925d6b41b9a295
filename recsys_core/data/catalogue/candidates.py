"""The catalogue of a night: every indexed item, its metadata, and when it is a candidate."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from recsys_core.data.catalogue.versions import items_as_of
from recsys_core.data.histories.read import training_events
from recsys_core.data.histories.splits import SplitKind, TimeWindows
from recsys_core.data.schema import MICROSECONDS_PER_SECOND, TIMESTAMP, VECTOR

_OFFER = ("item_id", "listed", "available_from", "retired_from")
CandidatePolicy = Literal["all", "interacted"]
"""Which items are candidates: with "interacted" only those with an earlier interaction."""


def build_catalogue(
    item_index: pl.DataFrame,
    items: pl.LazyFrame,
    first_interaction: pl.DataFrame,
    *,
    kind: SplitKind,
    windows: TimeWindows,
    timezone: str,
    catalogue: CandidatePolicy,
) -> pl.DataFrame:
    """One row per indexed item, in the order of item_idx.

    An item is a candidate at a moment if it had an interaction before, or if the catalogue of that
    date lists it as available. A retired item is no candidate, but it keeps its row.

    Args:
        item_index: `item_id`, `item_idx`.
        items: Rows of the table `items`, all versions.
        first_interaction: `item_id`, `first_interaction`: time of the item's first interaction.
        kind: How the histories are split.
        windows: Their windows.
        timezone: IANA zone in which the dates of the catalogue begin.
        catalogue: "all" makes listed items without an interaction candidates; "interacted" does
            not.

    Returns:
        `item_idx`, `item_id`, `title`, `categories`, and three flags: `candidate_validation` at the
        start of the validation window, `candidate_test` at the start of the test window, and
        `active` at the night's end (the items that ship). Leave-one-out has no windows: all three
        flags are those of the night's end.
    """
    by_time = kind == "global_time"
    moments = {
        "candidate_validation": windows.validation_start if by_time else windows.end,
        "candidate_test": windows.test_start if by_time else windows.end,
        "active": windows.end,
    }
    rows = item_index.join(first_interaction, on="item_id", how="left")
    for name, moment in moments.items():
        of_date = items_as_of(items, moment.astimezone(ZoneInfo(timezone)).date())
        offer = of_date.select(_OFFER).collect()
        rows = (
            rows.join(offer, on="item_id", how="left")
            .with_columns(_is_candidate(moment, catalogue).alias(name))
            .drop(_OFFER[1:])
        )
    now = items_as_of(items, windows.end.astimezone(ZoneInfo(timezone)).date())
    known = now.select("item_id", "title", "categories").collect()
    return (
        rows.join(known, on="item_id", how="left")
        .sort("item_idx")
        .select("item_idx", "item_id", "title", pl.col("categories").fill_null([]), *moments)
    )


def item_embeddings(
    item_index: pl.DataFrame, items: pl.LazyFrame, *, windows: TimeWindows, timezone: str
) -> pl.DataFrame:
    """The embeddings of the catalogue at the night's end.

    Returns:
        `item_idx` of every indexed item, in order, and the columns that hold vectors; null where an
        item has none.
    """
    names = [name for name, dtype in items.collect_schema().items() if dtype == VECTOR]
    now = items_as_of(items, windows.end.astimezone(ZoneInfo(timezone)).date())
    return (
        item_index.select("item_id", "item_idx")
        .join(now.select("item_id", *names).collect(), on="item_id", how="left")
        .sort("item_idx")
        .select("item_idx", *names)
    )


def _is_candidate(moment: datetime, catalogue: CandidatePolicy) -> pl.Expr:
    now = pl.lit(moment).cast(TIMESTAMP)
    interacted = (pl.col("first_interaction") < now).fill_null(value=False)
    gone = (pl.col("retired_from") <= now).fill_null(value=False)
    retired = gone | ~pl.col("listed").fill_null(value=True)
    if catalogue == "interacted":
        return interacted & ~retired
    listed = pl.col("listed").fill_null(value=False)
    available = (pl.col("available_from") <= now).fill_null(value=True)
    return (interacted | (listed & available)) & ~retired


def count_training_interactions(
    buckets: Sequence[Path], *, n_items: int, since: datetime | None
) -> pl.DataFrame:
    """Number of training interactions of each item that are targets, in all and recent ones.

    Args:
        buckets: History files.
        n_items: Length of the item index.
        since: Interactions at or after this moment are recent; None: all are.

    Returns:
        `item_idx`, `train_count`, `recent_count`, for every item_idx from 1, in order.
    """
    start = -(2**63) if since is None else int(since.timestamp() * MICROSECONDS_PER_SECOND)
    train = np.zeros(n_items + 1, np.int64)
    recent = np.zeros(n_items + 1, np.int64)
    for path in buckets:
        events = (
            training_events(path, "item_idx", "timestamp", "target_weight")
            .filter(pl.col("target_weight") > 0)
            .collect()
        )
        items = events["item_idx"].to_numpy()
        train += np.bincount(items, minlength=n_items + 1)
        newer = (events["timestamp"] >= start).to_numpy()
        recent += np.bincount(items[newer], minlength=n_items + 1)
    return pl.DataFrame(
        {
            "item_idx": pl.Series(range(1, n_items + 1), dtype=pl.Int32),
            "train_count": train[1:],
            "recent_count": recent[1:],
        }
    )
