"""Raw rows to rows of the lake; what can't be one goes to quarantine with its reason.

Nothing is lost on the way: rows in = rows kept + rows quarantined + duplicates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from recsys_core.data.readers import BROKEN, LINE, POSITION_COLUMNS, ROW
from recsys_core.data.schema import (
    AFTER_RUN_DATE,
    EARLIEST,
    INTERACTIONS,
    ITEMS,
    LATEST,
    QUARANTINE,
    TIMESTAMP,
    Table,
    missing,
    not_finite,
    out_of_range,
    unreadable,
)
from recsys_core.data.sources import SourceConfig, SourceError

ARRIVAL_BITS = 40
"""`arrival` = source's ordinal · 2^40 + row: unique, and ordered within and between the sources."""

_CLEAN = "__clean_"
_REASON = "__reason"
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_DAY_MICROSECONDS = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cleaned:
    """What became of a file's rows.

    Attributes:
        kept: Rows of the lake, in the order of the source.
        quarantined: Rows of the quarantine, in the order of the source.
        n_rows: Rows of the file.
        n_duplicates: Rows dropped because they are in `kept` or in the lake already.
    """

    kept: pl.DataFrame
    quarantined: pl.DataFrame
    n_rows: int
    n_duplicates: int

    @property
    def reasons(self) -> dict[str, int]:
        """Quarantined rows by reason."""
        counts = self.quarantined.group_by("reason").len().sort("reason")
        return dict(counts.iter_rows())


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
    rows = _tidy(raw.collect())
    _refuse_nested(rows, source, ("user_id", "item_id", "timestamp", "event_type", "weight"))
    types = rows.schema
    values = {
        "user_id": _identifier("user_id", types),
        "item_id": _identifier("item_id", types),
        "timestamp": (
            _order_as_time("timestamp", run_date)
            if config.timestamp_kind == "order"
            else _time("timestamp", types, config.timestamp_unit)
        ),
        "event_type": _text("event_type", types).fill_null(config.default_event_type),
        "weight": _weight(types),
    }
    early = pl.col(f"{_CLEAN}timestamp") >= available_until(run_date, config.timezone)
    judged = _judge(rows, INTERACTIONS, values, {AFTER_RUN_DATE: early})
    valid = judged.filter(pl.col(_REASON).is_null()).select(
        *(pl.col(f"{_CLEAN}{name}").alias(name) for name in values),
        (pl.col(ROW) + (ordinal << ARRIVAL_BITS)).alias("arrival"),
        pl.lit(source).alias("source"),
        pl.col(f"{_CLEAN}timestamp").dt.date().alias("date"),
    )
    valid = valid.select(INTERACTIONS.schema.names()).cast(INTERACTIONS.schema)
    kept = valid.unique(subset=INTERACTIONS.key, keep="first", maintain_order=True)
    bad = _quarantine(judged, source, run_date)
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


def clean_items(raw: pl.LazyFrame, config: SourceConfig, *, source: str, run_date: date) -> Cleaned:
    """Judge the raw rows of one catalogue file; of several rows of an item the last one counts.

    Raises:
        SourceError: A column has a type that can't be read as what it should be.
    """
    config = config.resolved()
    rows = _tidy(raw.collect())
    _refuse_nested(rows, source, ("item_id", "title", "available_from"))
    types = rows.schema
    values = {
        "item_id": _identifier("item_id", types),
        "title": _text("title", types),
        "categories": _categories(types, config),
        "available_from": _time("available_from", types, config.timestamp_unit),
    }
    judged = _judge(rows, ITEMS, values, {})
    carried = [name for name in types if name not in values and name not in POSITION_COLUMNS]
    valid = judged.filter(pl.col(_REASON).is_null()).select(
        *(pl.col(f"{_CLEAN}{name}").cast(ITEMS.schema[name]).alias(name) for name in values),
        *carried,
    )
    kept = valid.unique(subset=ITEMS.key, keep="last", maintain_order=True)
    bad = _quarantine(judged, source, run_date)
    return Cleaned(kept, bad, rows.height, valid.height - kept.height)


def _tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """Text without surrounding blanks; empty text is null."""
    texts = pl.col(pl.String).exclude(*POSITION_COLUMNS).str.strip_chars()
    rows = rows.with_columns(texts)
    return rows.with_columns(pl.when(texts != "").then(texts).name.keep())


def _refuse_nested(rows: pl.DataFrame, source: str, names: tuple[str, ...]) -> None:
    for name in names:
        dtype = rows.schema.get(name, pl.String())
        if dtype.is_nested() or isinstance(dtype, pl.Binary | pl.Object):
            msg = (
                f"{source}: column {name} holds {dtype} values; expected text, numbers or times. "
                "Export it as such, or choose another column."
            )
            raise SourceError(msg)


def _judge(
    rows: pl.DataFrame,
    table: Table,
    values: Mapping[str, pl.Expr],
    further: Mapping[str, pl.Expr],
) -> pl.DataFrame:
    """Add the clean values and the first reason against each row (null: none)."""
    rows = rows.with_columns(value.alias(f"{_CLEAN}{name}") for name, value in values.items())
    verdict = pl.when(pl.col(BROKEN).is_not_null()).then(pl.col(BROKEN))
    for reason, applies in _objections(table, rows.schema, values):
        verdict = verdict.when(applies).then(pl.lit(reason))
    for reason, applies in further.items():
        verdict = verdict.when(applies).then(pl.lit(reason))
    return rows.with_columns(verdict.otherwise(pl.lit(None, pl.String)).alias(_REASON))


def _objections(
    table: Table, types: pl.Schema, values: Mapping[str, pl.Expr]
) -> Iterator[tuple[str, pl.Expr]]:
    """What the schema has against a row: pairs of a reason and where it applies."""
    for column in table.columns:
        if column.name not in values:
            continue
        clean = pl.col(f"{_CLEAN}{column.name}")
        given = pl.col(column.name).is_not_null() if column.name in types else pl.lit(value=False)
        if column.required:
            yield missing(column.name), clean.is_null() & ~given
        yield unreadable(column.name), clean.is_null() & given
        if column.finite:
            yield not_finite(column.name), ~clean.is_finite()
        if column.minimum is not None:
            yield out_of_range(column.name), clean < column.minimum
        if column.maximum is not None:
            yield out_of_range(column.name), clean >= column.maximum


def _quarantine(judged: pl.DataFrame, source: str, run_date: date) -> pl.DataFrame:
    """The rows with a reason, each with what it said as JSON."""
    bad = judged.filter(pl.col(_REASON).is_not_null())
    given = [name for name in bad.columns if not name.startswith("__")]
    row = pl.struct(given).struct.json_encode()
    line = pl.struct(pl.col(LINE).alias("line")).struct.json_encode()
    return bad.select(
        pl.lit(source).alias("source"),
        pl.col(ROW).alias("row"),
        pl.col(_REASON).alias("reason"),
        pl.when(pl.col(LINE).is_null()).then(row).otherwise(line).alias("raw"),
        pl.lit(run_date).alias("date"),
    ).cast(QUARANTINE.schema)


def _text(name: str, types: pl.Schema) -> pl.Expr:
    return pl.col(name).cast(pl.String, strict=False) if name in types else pl.lit(None, pl.String)


def _identifier(name: str, types: pl.Schema) -> pl.Expr:
    """Ids are text. Whole numbers that became floats (nulls do that in pandas) lose their ".0"."""
    column = pl.col(name)
    if types[name].is_float():
        whole = column.cast(pl.Int64, strict=False)
        return pl.when(whole == column).then(whole.cast(pl.String))
    return column.cast(pl.String, strict=False)


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


def _time(name: str, types: pl.Schema, unit: str) -> pl.Expr:
    """A time as UTC microseconds; null where it can't be read."""
    if name not in types:
        return pl.lit(None, TIMESTAMP)
    column, dtype = pl.col(name), types[name]
    if isinstance(dtype, pl.Datetime):
        zoned = column.dt.replace_time_zone("UTC") if dtype.time_zone is None else column
        return zoned.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if unit == "iso":
        return _iso_time(column.cast(pl.String, strict=False))
    factor = _MICROSECONDS[unit]
    # Clipped to just outside of the allowed range, so that nothing overflows on its way there.
    low, high = (round(moment.timestamp()) * 1_000_000 // factor for moment in (EARLIEST, LATEST))
    whole = column.cast(pl.Int64, strict=False).clip(low - 1, high) * factor
    number = column.cast(pl.Float64, strict=False)
    fraction = (number.clip(low - 1, high) * factor).round().cast(pl.Int64, strict=False)
    readable = pl.when(number.is_not_nan()).then(pl.coalesce(whole, fraction))
    return readable.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _iso_time(text: pl.Expr) -> pl.Expr:
    """ISO 8601 in its usual forms: a date alone, a blank for the T, no seconds, Z, no offset."""
    full = (
        text.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
        .str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
        .str.replace(r"T(\d\d:\d\d)([Z+-]|$)", "T${1}:00${2}")
        .str.replace(r"(T[^Z+-]*)Z?$", "${1}+00:00")
    )
    return full.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us")


def _categories(types: pl.Schema, config: SourceConfig) -> pl.Expr:
    """Categories as a list of text, never null."""
    if "categories" not in types:
        return pl.lit([], pl.List(pl.String))
    column = pl.col("categories")
    if not isinstance(types["categories"], pl.List):
        column = column.cast(pl.String).str.split(config.item_columns.category_separator)
    names = pl.element().cast(pl.String).str.strip_chars()
    wanted = (names != "") & (names != config.item_columns.no_category)
    return column.list.eval(names.filter(wanted)).fill_null(pl.lit([], pl.List(pl.String)))
