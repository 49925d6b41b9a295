# pyright: basic
# (pyarrow has no types)
"""Parquet files as raw rows, with their own column names and types.

Arrow reads them: on some damaged files Polars ends the whole process, which can't be caught.
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
"""Exceptions that reading raises for damaged files and for types that Polars lacks."""


def read_parquet(
    path: Path, rows_at_once: int, *, names: Collection[str] | None, needed: Collection[str]
) -> Iterator[pl.DataFrame]:
    """The rows in frames, numbered from 1; one empty frame for a file without rows.

    Args:
        path: The file.
        rows_at_once: Number of rows in a frame; the last one may have fewer.
        names: Columns to read; None reads all.
        needed: If the file lacks one of these, all columns are read, so that the error message
            can list them.

    Raises:
        DAMAGE: The file can't be read.
    """
    n_rows = 0
    with pq.ParquetFile(path) as file:
        available = file.schema_arrow.names
        has_needed = names is not None and set(needed) <= set(available)
        columns = [name for name in available if name in names] if has_needed else None
        for batch in file.iter_batches(rows_at_once, columns=columns):
            batch.validate(full=True)  # Polars does not check that Arrow's text is UTF-8
            yield _numbered(pl.DataFrame(batch), after=n_rows)
            n_rows += batch.num_rows
        if not n_rows:
            yield _numbered(pl.DataFrame(file.schema_arrow.empty_table()), after=0)


def _numbered(rows: pl.DataFrame, *, after: int) -> pl.DataFrame:
    numbers = pl.int_range(after + 1, after + 1 + rows.height, dtype=pl.Int64, eager=True)
    nothing = pl.lit(None, pl.String)
    return rows.with_columns(numbers.alias(ROW), nothing.alias(BROKEN), nothing.alias(LINE))
