"""Vectors of the catalogue: what can be read as one, and what is wrong with the others."""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from recsys_core.data.ingest.row_checks import CLEAN
from recsys_core.data.schema import VECTOR, Column, not_finite, other_width

_BRACKETED = r"(?s)^\[(.*)\]$"


def embedding_columns(names: Sequence[str]) -> tuple[Column, ...]:
    """These columns as the schema has them; an item need not have a vector."""
    return tuple(Column(name, VECTOR, required=False) for name in names)


def embedding_widths(items: pl.LazyFrame, names: Iterable[str]) -> dict[str, int]:
    """Numbers per vector of those of the columns that have vectors."""
    schema = items.collect_schema()
    widths = [_usual_width(pl.col(name)) for name in names if schema.get(name) == VECTOR]
    if not widths:
        return {}
    row = items.select(widths).collect().row(0, named=True)
    return {name: width for name, width in row.items() if width is not None}


def empty_as_null(name: str, dtype: pl.DataType) -> pl.Expr:
    """A raw column of vectors in which a vector of no numbers is none."""
    column = pl.col(name)
    if isinstance(dtype, pl.List):
        return pl.when(column.list.len() > 0).then(column).alias(name)
    if dtype == pl.String:
        return pl.when(~column.str.contains(r"^\[\s*\]$")).then(column).alias(name)
    return column


def vector_of(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as vectors; null where it is no list of numbers."""
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


def vector_checks(names: Sequence[str], widths: Mapping[str, int]) -> dict[str, pl.Expr]:
    """Reasons against a row for its vectors, and where they apply.

    Args:
        names: The columns.
        widths: How many numbers the vectors of a column have; one that is not in here is as wide
            as most of its vectors are.
    """
    checks: dict[str, pl.Expr] = {}
    for name in names:
        clean = pl.col(f"{CLEAN}{name}")
        width = pl.lit(widths[name], pl.UInt32) if name in widths else _usual_width(clean)
        checks[other_width(name)] = clean.list.len() != width
        finite = clean.list.eval(pl.element().is_finite()).list.all()
        checks[not_finite(name)] = ~finite
    return checks


def _usual_width(vectors: pl.Expr) -> pl.Expr:
    return vectors.list.len().drop_nulls().mode().min()


def _holds_numbers(dtype: pl.List | pl.Array) -> bool:
    inner = dtype.inner
    return inner == pl.String or inner == pl.Null or inner.is_numeric()
