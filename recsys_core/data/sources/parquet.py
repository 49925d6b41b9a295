# pyright: basic
# (pyarrow has no types)
"""Parquet files to raw rows, under their own column names and with their own types.

Read by Arrow: on some damaged files Polars ends the whole process, which nothing can catch.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException

from recsys_core.data.sources.csv import BROKEN, ROW
from recsys_core.data.sources.text import LINE

DAMAGE: tuple[type[BaseException], ...] = (pa.ArrowException, PanicException)
"""What reading raises where a file is damaged or holds what Polars has no type for."""


def read_parquet(
    path: Path, rows_at_once: int, *, names: Collection[str] | None, needed: Collection[str]
) -> Iterator[pl.DataFrame]:
    """The rows in frames of `rows_at_once`, numbered from 1; one empty frame where there are none.

    Args:
        path: The file.
        rows_at_once: Rows of a frame; the last has what is left.
        names: The columns that are worth reading; None for all.
        needed: Where the file lacks one of these, all are read: the error to come lists them.

    Raises:
        DAMAGE: The file can't be read.
    """
    n_rows = 0
    with pq.ParquetFile(path) as file:
        available = file.schema_arrow.names
        narrow = names is not None and set(needed) <= set(available)
        columns = [name for name in available if name in names] if narrow else None
        for batch in file.iter_batches(rows_at_once, columns=columns):
            batch.validate(full=True)  # Polars takes it on trust that Arrow's text is UTF-8
            yield _numbered(pl.DataFrame(batch), after=n_rows)
            n_rows += batch.num_rows
        if not n_rows:
            yield _numbered(pl.DataFrame(file.schema_arrow.empty_table()), after=0)


def _numbered(rows: pl.DataFrame, *, after: int) -> pl.DataFrame:
    numbers = pl.int_range(after + 1, after + 1 + rows.height, dtype=pl.Int64, eager=True)
    nothing = pl.lit(None, pl.String)
    return rows.with_columns(numbers.alias(ROW), nothing.alias(BROKEN), nothing.alias(LINE))
