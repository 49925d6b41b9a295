"""Cleaning of the catalogue: raw rows become rows of the lake or of the quarantine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType

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
from recsys_core.data.schema import ITEMS, TIMESTAMP, VECTOR, Column, not_finite, other_width
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.reader import POSITION_COLUMNS

_BRACKETED = r"(?s)^\[(.*)\]$"
_SINGLE = ("item_id", "title", "available_from", "retired_from")
_KNOWN_WIDTHS: Mapping[str, int] = MappingProxyType({})
_GIVEN = "_given"
_AS_THEY_ARE = (pl.String(), pl.Float32(), pl.Float64(), pl.Boolean(), pl.Date())
_TOO_LARGE = (pl.UInt64(), pl.Int128(), pl.UInt128())


@dataclass(frozen=True)
class CleanedItems:
    """A catalogue file's rows, divided.

    Attributes:
        kept: Rows for the lake, in the order of the file; one per item.
        quarantined: Rows for the quarantine, in the order of the file.
        n_rows: Rows of the file.
        n_duplicates: Rows dropped because a later row is of the same item.
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


def clean_items(
    raw: pl.LazyFrame,
    config: SourceConfig,
    *,
    source: str,
    run_date: date,
    widths: Mapping[str, int] = _KNOWN_WIDTHS,
) -> CleanedItems:
    """Clean and check the rows of one catalogue file. The last row of each item counts.

    The kept rows have those columns of the lake that the file has. Further columns are kept if
    they hold text, numbers, dates or lists of these; others are dropped. If a further column has
    the name of a column of the lake, letter case aside, "_given" is appended to its name.

    Args:
        raw: Rows from `read_chunks`.
        config: Settings of the sources: meaning of the columns, and which hold embeddings.
        source: The file's name, for the quarantine.
        run_date: The night's date, for the quarantine.
        widths: Column name to the width of the embeddings that the lake already has.

    Raises:
        SourceError: A column has a type that can't be converted to that of the lake, or two
            columns differ in letter case only.
    """
    config = config.resolved()
    rows = tidy(raw.collect())
    refuse_nested(rows, source, _SINGLE)
    embeddings = [name for name in config.item_columns.embeddings if name in rows.columns]
    known = (*_SINGLE, "categories", *embeddings, *POSITION_COLUMNS)
    carried = carried_columns(rows.schema, known)
    _refuse_twins((*known, *carried), source)
    rows = rows.select(
        *(name for name in rows.columns if name in known and name not in embeddings),
        *(_empty_as_null(name, rows.schema[name]) for name in embeddings),
        **carried,
    )
    values = _values(rows.schema, config, embeddings)
    table = replace(ITEMS, columns=ITEMS.columns + _embedding_columns(embeddings))
    checked = check_rows(rows, table, values, _vector_checks(embeddings, widths))
    valid = accepted(checked).select(
        *(clean(name).cast(table.schema[name]).alias(name) for name in values),
        *carried,
    )
    kept = valid.unique(subset="item_id", keep="last", maintain_order=True)
    bad = quarantine(checked, source, run_date)
    return CleanedItems(kept, bad, rows.height, valid.height - kept.height)


def item_ids(raw: pl.DataFrame) -> pl.Series:
    """The readable item ids of a catalogue file, including those of rows that cleaning refuses."""
    rows = tidy(raw.select(*POSITION_COLUMNS, "item_id"))
    ids = rows.select(identifier_of("item_id", rows.schema))["item_id"]
    return ids.drop_nulls()


def embedding_widths(items: pl.LazyFrame, names: Iterable[str]) -> dict[str, int]:
    """Column name to the width of its vectors, for those of the columns that have any."""
    schema = items.collect_schema()
    widths = [_usual_width(pl.col(name)) for name in names if schema.get(name) == VECTOR]
    if not widths:
        return {}
    row = items.select(widths).collect().row(0, named=True)
    return {name: width for name, width in row.items() if width is not None}


def carried_columns(types: pl.Schema, known: Iterable[str]) -> dict[str, pl.Expr]:
    """Further columns of a file, by the names that they have in the lake.

    Args:
        types: The file's columns.
        known: Columns that are not further ones.

    Returns:
        Name in the lake to the expression that gives the column in a type of the lake.
    """
    taken = {name.casefold() for name in (*ITEMS.schema, *known)}
    return {
        name + _GIVEN if name.casefold() in taken else name: pl.col(name).cast(storable)
        for name, dtype in types.items()
        if name not in known and (storable := _storable(dtype))
    }


def _storable(dtype: pl.DataType) -> pl.DataType | None:
    """The type in which a Delta table can store such values; None if there is none."""
    if isinstance(dtype, pl.List | pl.Array):
        inner = _storable(dtype.inner) if isinstance(dtype.inner, pl.DataType) else None
        return None if inner is None or inner.is_nested() else pl.List(inner)
    if dtype.is_integer():
        return pl.String() if dtype in _TOO_LARGE else pl.Int64()
    if isinstance(dtype, pl.Datetime):
        return TIMESTAMP if dtype.time_zone else pl.String()
    if isinstance(dtype, pl.Categorical | pl.Enum | pl.Decimal):
        return pl.String()
    return dtype if dtype in _AS_THEY_ARE else None


def _values(
    types: pl.Schema, config: SourceConfig, embeddings: Iterable[str]
) -> dict[str, pl.Expr]:
    """The lake's columns that a file has."""
    values = {
        "item_id": identifier_of("item_id", types),
        "title": text_of("title", types),
        "categories": _categories(types, config),
        "available_from": time_of("available_from", types, config),
        "retired_from": time_of("retired_from", types, config),
        **{name: _vector_of(name, types[name]) for name in embeddings},
    }
    return {name: value for name, value in values.items() if name in types}


def _refuse_twins(names: Iterable[str], source: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.casefold(), name)
        if twin != name:
            msg = (
                f"{source} has the columns {twin!r} and {name!r}, which differ in letter case "
                "only; the lake can't tell them apart. Rename or drop one of them."
            )
            raise SourceError(msg)


def _categories(types: pl.Schema, config: SourceConfig) -> pl.Expr:
    """Categories as a list of text, never null."""
    if "categories" not in types:
        return pl.lit(None, pl.List(pl.String))
    column = pl.col("categories")
    if not isinstance(types["categories"], pl.List):
        column = column.cast(pl.String).str.split(config.item_columns.category_separator)
    names = pl.element().cast(pl.String).str.strip_chars()
    wanted = (names != "") & (names != config.item_columns.no_category)
    return column.list.eval(names.filter(wanted)).fill_null(pl.lit([], pl.List(pl.String)))


def _embedding_columns(names: Sequence[str]) -> tuple[Column, ...]:
    """The columns of embeddings; null is allowed, as an item need not have a vector."""
    return tuple(Column(name, VECTOR, required=False) for name in names)


def _empty_as_null(name: str, dtype: pl.DataType) -> pl.Expr:
    """A raw column of vectors, with null for empty vectors."""
    column = pl.col(name)
    if isinstance(dtype, pl.List):
        return pl.when(column.list.len() > 0).then(column).alias(name)
    if dtype == pl.String:
        return pl.when(~column.str.contains(r"^\[\s*\]$")).then(column).alias(name)
    return column


def _vector_of(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as vectors; null where a value is no list of numbers."""
    column = pl.col(name)
    if dtype == pl.String:
        inside = column.str.extract(_BRACKETED, 1).str.split(",")
        numbers = inside.list.eval(pl.element().str.strip_chars().cast(pl.Float32, strict=False))
    elif isinstance(dtype, pl.List | pl.Array) and _holds_numbers(dtype):
        numbers = column.cast(VECTOR, strict=False)
    else:
        return pl.lit(None, VECTOR).alias(name)
    gaps = numbers.list.eval(pl.element().is_null()).list.any()
    return pl.when(~gaps).then(numbers).alias(name)


def _vector_checks(names: Sequence[str], widths: Mapping[str, int]) -> dict[str, pl.Expr]:
    """Checks of the vectors: a reason, and the rows to which it applies.

    Args:
        names: Columns of embeddings.
        widths: Column name to the required width. A column that is missing here has the width of
            most of its vectors.
    """
    checks: dict[str, pl.Expr] = {}
    for name in names:
        vectors = clean(name)
        width = pl.lit(widths[name], pl.UInt32) if name in widths else _usual_width(vectors)
        checks[other_width(name)] = vectors.list.len() != width
        finite = vectors.list.eval(pl.element().is_finite()).list.all()
        checks[not_finite(name)] = ~finite
    return checks


def _usual_width(vectors: pl.Expr) -> pl.Expr:
    return vectors.list.len().drop_nulls().mode().min()


def _holds_numbers(dtype: pl.List | pl.Array) -> bool:
    inner = dtype.inner
    return inner == pl.String or inner == pl.Null or inner.is_numeric()
