"""Deduplication and the bot filter: both need all rows of a date at once."""

import operator
from collections import Counter
from dataclasses import dataclass
from datetime import date
from functools import reduce

import numpy as np
import polars as pl

from recsys_core.data.ingest.clean_interactions import ARRIVAL_BITS
from recsys_core.data.schema import INTERACTIONS, QUARANTINE, TOO_MANY_EVENTS

_KEY = list(INTERACTIONS.key)
_CELLS = 1 << 16


@dataclass(frozen=True)
class Deduplicated:
    """The rows of a date, divided; rows in = kept + duplicates + refused.

    Attributes:
        kept: Rows for the lake.
        refused: Rows of bots, for the quarantine.
        duplicates: Number of duplicate rows by source.
    """

    kept: pl.DataFrame
    refused: pl.DataFrame
    duplicates: Counter[str]


def deduplicate(
    rows: pl.DataFrame, known: pl.DataFrame, *, max_events_per_day: int | None, run_date: date
) -> Deduplicated:
    """Drop duplicates and refuse the events of bots.

    Args:
        rows: Valid rows of one date. The first of equal rows is kept.
        known: Rows of that date that stay in the lake: at least the key's columns. A row equal to
            one of these is a duplicate.
        max_events_per_day: A user with more events on the date, known ones included, is a bot;
            None turns the filter off.
        run_date: The night's date, for the quarantine.
    """
    repeated = _repeated(rows, known)
    duplicates, kept = Counter[str](), rows
    if repeated is not None:
        duplicates, kept = count_by_source(rows.filter(repeated)), rows.filter(~repeated)
    bots = _bots(kept, known, max_events_per_day)
    if bots.is_empty():
        return Deduplicated(kept, pl.DataFrame(schema=QUARANTINE.schema), duplicates)
    refused = kept.join(bots, on="user_id", how="semi", maintain_order="left")
    honest = kept.join(bots, on="user_id", how="anti", maintain_order="left")
    return Deduplicated(honest, _quarantined(refused, run_date), duplicates)


def count_by_source(rows: pl.DataFrame) -> Counter[str]:
    """Number of rows by source."""
    counts = Counter[str]()
    for run in rows["source"].rle():  # rows of a source are mostly together: few runs
        counts[run["value"]] += run["len"]
    return counts


def _repeated(rows: pl.DataFrame, known: pl.DataFrame) -> pl.Series | None:
    """Which rows are duplicates of an earlier or a known row; None if no row is.

    Only rows whose hash occurs twice are compared in full. All others are unique.
    """
    hashes = _hashes(rows)
    in_order = hashes.sort()
    twice = in_order.filter(in_order == in_order.shift())
    suspect = hashes.is_in(pl.concat([twice, _hashes(known)]).implode())
    if not suspect.any():
        return None
    doubtful = rows.filter(suspect).unique(_KEY, keep="first", maintain_order=True)
    new = doubtful.join(known.select(_KEY), on=_KEY, how="anti")
    return suspect & ~rows["arrival"].is_in(new["arrival"].implode())


def _hashes(rows: pl.DataFrame) -> pl.Series:
    """A hash of each row's key; comparable within this process only."""
    parts = [pl.col(name).hash(seed) for seed, name in enumerate(_KEY)]
    return rows.select(reduce(operator.add, parts).alias("hash"))["hash"]


def _bots(rows: pl.DataFrame, known: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    """`user_id` of the users with more than `limit` events."""
    users = pl.concat([rows.select("user_id"), known.select("user_id")])
    # Counts by a hash of the user: if no hash exceeds the limit, no user does.
    cells = (users["user_id"].hash() & (_CELLS - 1)).to_numpy().astype(np.int64)
    counts = np.bincount(cells, minlength=_CELLS)
    if limit is None or counts.max() <= limit:
        return users.clear()
    suspects = users.filter(pl.Series(counts[cells] > limit))
    return suspects.group_by("user_id").len().filter(pl.col("len") > limit).select("user_id")


def _quarantined(rows: pl.DataFrame, run_date: date) -> pl.DataFrame:
    stated = ("user_id", "item_id", "timestamp", "event_type", "weight")
    return rows.select(
        "source",
        (pl.col("arrival") & ((1 << ARRIVAL_BITS) - 1)).alias("row"),
        pl.lit(TOO_MANY_EVENTS).alias("reason"),
        "user_id",
        pl.struct(stated).struct.json_encode().alias("raw"),
        pl.lit(run_date).alias("date"),
    ).cast(QUARANTINE.schema)
