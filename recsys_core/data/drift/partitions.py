"""The new rows of the lake, date by date and in pieces that fit into memory."""

from collections.abc import Iterator
from datetime import date

import polars as pl

from recsys_core.data.schema import INTERACTIONS

PIECE_ROWS = 2_000_000
"""Rows that are held at a time, however many a date has."""

_ARRIVAL = pl.col("arrival").fill_null(-1)
"""A row without an arrival is a defect, which the checks must see."""


def rows_of(
    table: pl.LazyFrame, day: date, sources: list[str], *, new: bool = True
) -> pl.LazyFrame:
    """Rows of one date that come from these sources, or with `new=False` from all others."""
    by_sources = pl.col("source").is_in(sources)
    return table.filter(pl.col("date") == day, by_sources if new else ~by_sources)


def pieces(rows: pl.LazyFrame, piece_rows: int) -> Iterator[pl.DataFrame]:
    """All rows by arrival, at most `piece_rows` at a time (more only where arrivals are equal).

    Args:
        rows: Rows of one date.
        piece_rows: Most rows of a piece.
    """
    n_rows = count(rows)
    if not n_rows:
        return
    if n_rows <= piece_rows:
        yield rows.collect().sort(_ARRIVAL)
        return
    arrivals = rows.select(_ARRIVAL.sort()).collect().to_series()
    starts = arrivals.gather_every(piece_rows).unique().sort().to_list()
    for low, high in zip(starts, [*starts[1:], None], strict=True):
        inside = _ARRIVAL >= low if high is None else (_ARRIVAL >= low) & (_ARRIVAL < high)
        yield rows.filter(inside).collect().sort(_ARRIVAL)


def count_repeated(rows: pl.LazyFrame, piece_rows: int) -> int:
    """Number of rows whose key an earlier row has.

    Args:
        rows: Rows of one date; only the columns of the key are read.
        piece_rows: Rows that are compared at a time, approximately.
    """
    key = list(INTERACTIONS.key)
    n_rows = count(rows)
    n_parts = -(-n_rows // piece_rows)
    part = pl.col("user_id").hash() % max(1, n_parts)
    n_distinct = sum(
        rows.filter(part == number).select(key).unique().select(pl.len()).collect().item()
        for number in range(n_parts)
    )
    return n_rows - n_distinct


def count_misplaced(rows: pl.LazyFrame) -> int:
    """Number of rows whose timestamp is not on their date; with none, equal rows share a date."""
    return count(rows.filter(pl.col("timestamp").dt.date() != pl.col("date")))


def count(rows: pl.LazyFrame) -> int:
    """Number of rows."""
    return rows.select(pl.len()).collect().item()
