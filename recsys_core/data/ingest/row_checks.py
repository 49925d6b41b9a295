"""Row checks by the lake's schema, which cleaning of interactions and of items share."""

from collections.abc import Iterator, Mapping
from datetime import date

import polars as pl

from recsys_core.data.schema import (
    EARLIEST,
    LATEST,
    QUARANTINE,
    TIMESTAMP,
    Table,
    missing,
    not_finite,
    out_of_range,
    unreadable,
)
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.reader import BROKEN, LINE, POSITION_COLUMNS, ROW

_CLEAN = "__clean_"
_REASON = "__reason"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def tidy(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with text stripped of surrounding blanks, and null for empty text."""
    rows = rows.with_columns(pl.col(pl.String).exclude(*POSITION_COLUMNS).str.strip_chars())
    texts = [name for name, dtype in rows.schema.items() if dtype == pl.String]
    empty = [name for name in texts if name not in POSITION_COLUMNS and (rows[name] == "").any()]
    return rows.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)) for name in empty)


def refuse_nested(rows: pl.DataFrame, source: str, names: tuple[str, ...]) -> None:
    """Refuse a file in which one of these columns holds lists, structs or bytes.

    Raises:
        SourceError: One does; the message names file and column.
    """
    for name in names:
        dtype = rows.schema.get(name, pl.String())
        if dtype.is_nested() or isinstance(dtype, pl.Binary | pl.Object):
            msg = (
                f"{source}: column {name} holds {dtype} values; expected text, numbers or times. "
                "Export it as such, or choose another column."
            )
            raise SourceError(msg)


def clean(name: str) -> pl.Expr:
    """The clean value of a column in rows from `check_rows`, or in the checks it is given."""
    return pl.col(f"{_CLEAN}{name}")


def check_rows(
    rows: pl.DataFrame,
    table: Table,
    values: Mapping[str, pl.Expr],
    further: Mapping[str, pl.Expr],
) -> pl.DataFrame:
    """Add each row's clean values and the first reason to refuse it, if there is one.

    Args:
        rows: Raw rows.
        table: The table whose columns set the checks.
        values: Column name to its clean value, computed from the raw columns.
        further: Further reasons, each with the rows to which it applies.
    """
    rows = rows.with_columns(value.alias(f"{_CLEAN}{name}") for name, value in values.items())
    verdict = pl.when(pl.col(BROKEN).is_not_null()).then(pl.col(BROKEN))
    for reason, applies in _schema_checks(table, rows.schema, values):
        verdict = verdict.when(applies).then(pl.lit(reason))
    for reason, applies in further.items():
        verdict = verdict.when(applies).then(pl.lit(reason))
    return rows.with_columns(verdict.otherwise(pl.lit(None, pl.String)).alias(_REASON))


def accepted(checked: pl.DataFrame) -> pl.DataFrame:
    """The rows from `check_rows` that are not refused."""
    return checked.filter(pl.col(_REASON).is_null())


def _schema_checks(
    table: Table, types: pl.Schema, values: Mapping[str, pl.Expr]
) -> Iterator[tuple[str, pl.Expr]]:
    """The checks that a table's columns set: a reason, and the rows to which it applies."""
    for column in table.columns:
        if column.name not in values:
            continue
        value = clean(column.name)
        given = pl.col(column.name).is_not_null() if column.name in types else pl.lit(value=False)
        if column.required:
            yield missing(column.name), value.is_null() & ~given
        yield unreadable(column.name), value.is_null() & given
        if column.finite:
            yield not_finite(column.name), ~value.is_finite()
        if column.minimum is not None:
            yield out_of_range(column.name), value < column.minimum
        if column.maximum is not None:
            yield out_of_range(column.name), value >= column.maximum


def quarantine(checked: pl.DataFrame, source: str, run_date: date) -> pl.DataFrame:
    """The refused rows from `check_rows`, as rows of the quarantine; `raw` is the row as JSON."""
    bad = checked.filter(pl.col(_REASON).is_not_null())
    given = [name for name in bad.columns if not name.startswith("__")]
    user = f"{_CLEAN}user_id"
    row = pl.struct(given).struct.json_encode()
    line = pl.struct(pl.col(LINE).alias("line")).struct.json_encode()
    return bad.select(
        pl.lit(source).alias("source"),
        pl.col(ROW).alias("row"),
        pl.col(_REASON).alias("reason"),
        (pl.col(user) if user in bad.columns else pl.lit(None)).alias("user_id"),
        pl.when(pl.col(LINE).is_null()).then(row).otherwise(line).alias("raw"),
        pl.lit(run_date).alias("date"),
    ).cast(QUARANTINE.schema)


def text_of(name: str, types: pl.Schema) -> pl.Expr:
    """A column as text; null where the file lacks it."""
    return pl.col(name).cast(pl.String, strict=False) if name in types else pl.lit(None, pl.String)


def identifier_of(name: str, types: pl.Schema) -> pl.Expr:
    """An id as text. Whole numbers in a column of floats (pandas with nulls) lose their ".0"."""
    column = pl.col(name)
    if types[name].is_float():
        whole = column.cast(pl.Int64, strict=False)
        return pl.when(whole == column).then(whole.cast(pl.String))
    return column.cast(pl.String, strict=False)


def time_of(name: str, types: pl.Schema, config: SourceConfig) -> pl.Expr:
    """A time as UTC microseconds; null where it can't be read."""
    if name not in types:
        return pl.lit(None, TIMESTAMP)
    column, dtype = pl.col(name), types[name]
    if dtype == pl.Date:
        column, dtype = column.cast(pl.Datetime("us")), pl.Datetime("us")
    if isinstance(dtype, pl.Datetime):
        moment = column if dtype.time_zone else _in_zone(column, config.timestamp_zone)
        return moment.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if config.timestamp_format:
        return _written_time(column.cast(pl.String, strict=False), config)
    if config.timestamp_unit == "iso":
        return _iso_time(column.cast(pl.String, strict=False), config.timestamp_zone)
    return _counted_time(column, config.timestamp_unit)


def _counted_time(column: pl.Expr, unit: str) -> pl.Expr:
    """Units since 1970, clipped to just outside the allowed range so that nothing overflows."""
    per_second = _PER_SECOND[unit]
    low, high = (round(moment.timestamp()) * per_second for moment in (EARLIEST, LATEST))
    whole = _microseconds(column.cast(pl.Int64, strict=False).clip(low - 1, high), per_second)
    number = column.cast(pl.Float64, strict=False)
    fraction = (number.clip(low - 1, high) * (1_000_000 / per_second)).round()
    readable = pl.when(number.is_not_nan()).then(
        pl.coalesce(whole, fraction.cast(pl.Int64, strict=False))
    )
    return readable.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _microseconds(count: pl.Expr, per_second: int) -> pl.Expr:
    if per_second > 1_000_000:
        return count // (per_second // 1_000_000)
    return count * (1_000_000 // per_second)


def _written_time(text: pl.Expr, config: SourceConfig) -> pl.Expr:
    form = str(config.timestamp_format)
    if "%z" in form or "%:z" in form:
        return text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
    moment = text.str.to_datetime(form, strict=False, time_unit="us")
    return _in_zone(moment, config.timestamp_zone).dt.convert_time_zone("UTC")


def _iso_time(text: pl.Expr, zone: str) -> pl.Expr:
    """ISO 8601 in its usual forms: date only, blank instead of T, no seconds, Z, no offset."""
    full = (
        text.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
        .str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
        .str.replace(r"T(\d\d:\d\d)([Z+-]|$)", "T${1}:00${2}")
        .str.replace(r"Z$", "+00:00")
    )
    with_offset = full.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us")
    without = full.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us")
    return pl.coalesce(with_offset, _in_zone(without, zone).dt.convert_time_zone("UTC"))


def _in_zone(moment: pl.Expr, zone: str) -> pl.Expr:
    """Clock times as moments: the first occurrence of a repeated hour, null in a skipped hour."""
    return moment.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
