"""Raw rows to rows of the lake; what can't be one goes to quarantine with its reason.

Nothing is lost on the way: rows in = rows kept + rows quarantined + duplicates.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from recsys_core.data.judging import (
    CLEAN,
    REASON,
    Cleaned,
    identifier_of,
    judge,
    quarantine,
    refuse_nested,
    text_of,
    tidy,
    time_of,
)
from recsys_core.data.readers import ROW
from recsys_core.data.schema import AFTER_RUN_DATE, INTERACTIONS, TIMESTAMP
from recsys_core.data.sources import SourceConfig

ARRIVAL_BITS = 40
"""`arrival` = source's ordinal · 2^40 + row: unique, and ordered within and between the sources."""

_DAY_MICROSECONDS = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def available_until(run_date: date, timezone: str) -> datetime:
    """The moment at which the run date begins, in UTC: a night knows what happened before it."""
    return datetime.combine(run_date, time(), ZoneInfo(timezone)).astimezone(UTC)


def clean_interactions(
    raw: pl.LazyFrame, config: SourceConfig, *, source: str, ordinal: int, run_date: date
) -> Cleaned:
    """Judge the raw rows of one interaction file, and drop repetitions within it.

    Args:
        raw: From `read_source`.
        config: How timestamps are meant, and the default kind of event.
        source: The file's name, for the lake and the quarantine.
        ordinal: The file's place among all sources ever ingested; orders equal timestamps.
        run_date: Rows on or after it are quarantined; rows that have only an order are stored
            under the day before.

    Raises:
        SourceError: A column has a type that can't be read as what it should be.
    """
    config = config.resolved()
    rows = tidy(raw.collect())
    refuse_nested(rows, source, ("user_id", "item_id", "timestamp", "event_type", "weight"))
    types = rows.schema
    values = {
        "user_id": identifier_of("user_id", types),
        "item_id": identifier_of("item_id", types),
        "timestamp": (
            _order_as_time("timestamp", run_date)
            if config.timestamp_kind == "order"
            else time_of("timestamp", types, config.timestamp_unit)
        ),
        "event_type": text_of("event_type", types).fill_null(config.default_event_type),
        "weight": _weight(types),
    }
    early = pl.col(f"{CLEAN}timestamp") >= available_until(run_date, config.timezone)
    judged = judge(rows, INTERACTIONS, values, {AFTER_RUN_DATE: early})
    valid = judged.filter(pl.col(REASON).is_null()).select(
        *(pl.col(f"{CLEAN}{name}").alias(name) for name in values),
        (pl.col(ROW) + (ordinal << ARRIVAL_BITS)).alias("arrival"),
        pl.lit(source).alias("source"),
        pl.col(f"{CLEAN}timestamp").dt.date().alias("date"),
    )
    valid = valid.select(INTERACTIONS.schema.names()).cast(INTERACTIONS.schema)
    kept = valid.unique(subset=INTERACTIONS.key, keep="first", maintain_order=True)
    bad = quarantine(judged, source, run_date)
    return Cleaned(kept, bad, rows.height, valid.height - kept.height)


def drop_known(cleaned: Cleaned, known: pl.LazyFrame) -> Cleaned:
    """Drop the rows that other sources brought to the lake before.

    Args:
        cleaned: One file's interactions.
        known: Interactions of the lake from all other sources.
    """
    key = list(INTERACTIONS.key)
    days = cleaned.kept["date"].unique().sort()
    if days.is_empty():
        return cleaned
    same = known.filter(pl.col("date").is_in(days.implode())).select(key).unique().collect()
    kept = cleaned.kept.join(same, on=key, how="anti", maintain_order="left")
    repeated = cleaned.kept.join(same, on=key, how="semi").height
    return Cleaned(kept, cleaned.quarantined, cleaned.n_rows, cleaned.n_duplicates + repeated)


def _weight(types: pl.Schema) -> pl.Expr:
    if "weight" not in types:
        return pl.lit(1.0, pl.Float32)
    column = pl.col("weight")
    number = column.cast(pl.Float64, strict=False).cast(pl.Float32)
    return pl.when(column.is_null()).then(pl.lit(1.0, pl.Float32)).otherwise(number)


def _order_as_time(name: str, run_date: date) -> pl.Expr:
    """The day before the run date, with the order as microseconds, so that the date is one day."""
    start = datetime.combine(run_date, time(), UTC) - timedelta(days=1)
    order = pl.col(name).cast(pl.Int64, strict=False)
    fits = order.is_between(0, _DAY_MICROSECONDS, closed="left")
    moment = start + pl.duration(microseconds=order, time_unit="us")
    refused = pl.when(order.is_not_null()).then(pl.lit(_EPOCH, TIMESTAMP))
    return pl.when(fits).then(moment.cast(TIMESTAMP)).otherwise(refused)
