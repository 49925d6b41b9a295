"""Cleaning of interactions: raw rows become rows of the lake or of the quarantine."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from recsys_core.data.ingest.row_checks import (
    accepted,
    check_rows,
    clean,
    identifier_of,
    quarantine,
    refuse_nested,
    text_of,
    tidy,
    time_of,
)
from recsys_core.data.schema import (
    AFTER_RUN_DATE,
    INTERACTIONS,
    MICROSECONDS_PER_DAY,
    TIMESTAMP,
    UNKNOWN_EVENT_TYPE,
)
from recsys_core.data.sources.config import SourceConfig
from recsys_core.data.sources.reader import ROW

ARRIVAL_BITS = 40
"""`arrival` = ordinal of the source · 2^40 + row: unique, in order within and between sources."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def available_until(run_date: date, timezone: str) -> datetime:
    """The start of the run date, in UTC. A night uses only events before this moment."""
    return datetime.combine(run_date, time(), ZoneInfo(timezone)).astimezone(UTC)


@dataclass(frozen=True)
class CleanedInteractions:
    """A chunk's rows, divided.

    Attributes:
        valid: Rows for the lake, in the order of the source; duplicates are still among them.
        quarantined: Rows for the quarantine, in the order of the source.
    """

    valid: pl.DataFrame
    quarantined: pl.DataFrame


def clean_interactions(
    raw: pl.DataFrame, config: SourceConfig, *, source: str, ordinal: int, run_date: date
) -> CleanedInteractions:
    """Clean and check a chunk of an interaction file.

    Args:
        raw: A chunk from `read_chunks`.
        config: Settings of the sources: units of timestamps, event types and their weights.
        source: The file's name, for the lake and the quarantine.
        ordinal: The file's number among all sources ever ingested, from 0; it orders events with
            equal timestamps.
        run_date: Rows on or after it are quarantined. Rows that have only an order get the day
            before as their date.

    Raises:
        SourceError: A column has a type that can't be converted to that of the lake.
    """
    rows = tidy(raw)
    refuse_nested(rows, source, ("user_id", "item_id", "timestamp", "event_type", "weight"))
    types = rows.schema
    kind = text_of("event_type", types).fill_null(config.default_event_type)
    values = {
        "user_id": identifier_of("user_id", types),
        "item_id": identifier_of("item_id", types),
        "timestamp": (
            _order_as_time("timestamp", run_date)
            if config.timestamp_kind == "order"
            else time_of("timestamp", types, config)
        ),
        "event_type": kind,
        "weight": _weight(types) * _factor(kind, config.event_types),
    }
    further = {AFTER_RUN_DATE: clean("timestamp") >= available_until(run_date, config.timezone)}
    if config.event_types:
        known = list(config.event_types)
        further[UNKNOWN_EVENT_TYPE] = ~clean("event_type").is_in(known)
    checked = check_rows(rows, INTERACTIONS, values, further)
    valid = accepted(checked).select(
        *(clean(name).alias(name) for name in values),
        (pl.col(ROW) + (ordinal << ARRIVAL_BITS)).alias("arrival"),
        pl.lit(source).alias("source"),
        clean("timestamp").dt.date().alias("date"),
    )
    valid = valid.select(INTERACTIONS.schema.names()).cast(INTERACTIONS.schema)
    return CleanedInteractions(valid, quarantine(checked, source, run_date))


def _factor(kind: pl.Expr, factors: Mapping[str, float]) -> pl.Expr:
    """The factor for the weight of an event of this kind."""
    if not factors:
        return pl.lit(1.0, pl.Float32)
    numbers = list(factors.values())
    return kind.replace_strict(list(factors), numbers, default=1.0, return_dtype=pl.Float32)


def _weight(types: pl.Schema) -> pl.Expr:
    if "weight" not in types:
        return pl.lit(1.0, pl.Float32)
    column = pl.col("weight")
    number = column.cast(pl.Float64, strict=False).cast(pl.Float32)
    return pl.when(column.is_null()).then(pl.lit(1.0, pl.Float32)).otherwise(number)


def _order_as_time(name: str, run_date: date) -> pl.Expr:
    """The order as microseconds of the day before the run date, so that all rows have one date."""
    start = datetime.combine(run_date, time(), UTC) - timedelta(days=1)
    order = pl.col(name).cast(pl.Int64, strict=False)
    fits = order.is_between(0, MICROSECONDS_PER_DAY, closed="left")
    moment = start + pl.duration(microseconds=order, time_unit="us")
    refused = pl.when(order.is_not_null()).then(pl.lit(_EPOCH, TIMESTAMP))
    return pl.when(fits).then(moment.cast(TIMESTAMP)).otherwise(refused)
