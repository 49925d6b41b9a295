"""Reading source files as raw rows: the wanted columns under their standard names, unchecked.

A raw row has `__row` (number in the file, from 1), `__broken` (the reason why a line of a text file
is no row; null if it is one), `__line` (the text of a broken line) and the wanted columns: as text
from text files, with their own types from Parquet files.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import polars as pl
from polars.exceptions import PolarsError

from recsys_core.data.sources.config import SourceConfig, SourceError, SourceFile
from recsys_core.data.sources.csv import BROKEN, ROW, Dialect, read_csv
from recsys_core.data.sources.jsonl import read_json_lines
from recsys_core.data.sources.parquet import DAMAGE, read_parquet
from recsys_core.data.sources.presets import DAT_COLUMNS
from recsys_core.data.sources.text import LINE

POSITION_COLUMNS = (ROW, BROKEN, LINE)
ROWS_AT_ONCE = 1_000_000
_ITEM_COLUMNS = ("item_id", "title", "categories", "available_from", "retired_from")


class _Wanted(NamedTuple):
    """A column to read: its name in the file, and whether a file may lack it."""

    name: str
    required: bool


def read_chunks(
    source: SourceFile, path: Path, config: SourceConfig, *, rows_at_once: int = ROWS_AT_ONCE
) -> Iterator[pl.DataFrame]:
    """The raw rows of a file, in chunks. Those of item files have all further columns too.

    Args:
        source: The file.
        path: Path on this machine.
        config: Settings of the sources.
        rows_at_once: Number of rows in a chunk of a Parquet file; text files are cut by bytes.

    Raises:
        SourceError: The file is empty, damaged, not in the configured format, or lacks a column.
    """
    config = config.resolved()
    wanted = _wanted_columns(source.table, config)
    n_rows = 0
    try:
        for rows in _read(source, path, config, wanted, rows_at_once):
            chunk = _under_standard_names(source, _with_partitions(rows, source), wanted)
            n_rows += chunk.height
            yield chunk
    except (*DAMAGE, PolarsError, OSError, UnicodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        beyond = f" beyond row {n_rows}" if n_rows else ""
        msg = (
            f"{source.location} can't be read as {config.format}{beyond} ({reason}). "
            "Export the file again, or correct source.format."
        )
        raise SourceError(msg) from error


def _read(
    source: SourceFile,
    path: Path,
    config: SourceConfig,
    wanted: Mapping[str, _Wanted],
    rows_at_once: int,
) -> Iterator[pl.DataFrame]:
    names = [column.name for column in wanted.values()] if source.table != "items" else None
    if config.format == "parquet":
        needed = [column.name for column in wanted.values() if column.required]
        return read_parquet(path, rows_at_once, names=names, needed=needed)
    if config.format == "jsonl":
        return read_json_lines(path, config.encoding, names=names)
    if source.location.endswith(".dat"):
        return read_csv(path, Dialect("::", "latin-1", DAT_COLUMNS[source.table], quoted=False))
    return read_csv(path, Dialect(config.separator, config.encoding))


def _with_partitions(rows: pl.DataFrame, source: SourceFile) -> pl.DataFrame:
    """Add parts of the path such as date=2026-01-31 as columns that the file itself lacks."""
    parts = PurePosixPath(source.name).parent.parts
    stated = dict(part.split("=", 1) for part in parts if "=" in part)
    return rows.with_columns(
        pl.lit(value).alias(name) for name, value in stated.items() if name not in rows.columns
    )


def _wanted_columns(table: str, config: SourceConfig) -> dict[str, _Wanted]:
    if table == "interactions":
        columns, needed = config.columns.model_dump(), ("user_id", "item_id", "timestamp")
    else:
        columns, needed = config.item_columns.model_dump(), ("item_id",)
        columns = {name: columns[name] for name in _ITEM_COLUMNS}
    return {
        standard: _Wanted(given or standard, given is not None or standard in needed)
        for standard, given in columns.items()
    }


def _under_standard_names(
    source: SourceFile, rows: pl.DataFrame, wanted: Mapping[str, _Wanted]
) -> pl.DataFrame:
    available = [name for name in rows.columns if name not in POSITION_COLUMNS]
    for standard, column in wanted.items():
        if column.required and column.name not in available:
            setting = "columns" if source.table == "interactions" else "item_columns"
            msg = (
                f"{source.location} has no column {column.name!r} for {standard} (its columns: "
                f"{', '.join(available)}). Set source.{setting}.{standard} to the right one."
            )
            raise SourceError(msg)
    named = {
        standard: pl.col(column.name)
        for standard, column in wanted.items()
        if column.name in available
    }
    if source.table == "items":
        used = {wanted[standard].name for standard in named}
        named |= {name: pl.col(name) for name in available if name not in used | named.keys()}
    return rows.select(*POSITION_COLUMNS, **named)
