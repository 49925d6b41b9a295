"""Source files as raw rows: the wanted columns under their standard names, still unjudged.

A raw row has `__row` (1-based data row in its file), `__broken` (why a line of a CSV file is no
row, else null), `__line` (the text of a broken line) and the wanted columns: text from CSV files,
as they are from Parquet files. A row of a CSV file ends at the end of its line: line breaks inside
of quotes are not supported.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
from polars.exceptions import NoDataError, PolarsError

from recsys_core.data.schema import NOT_UTF8, UNBALANCED_QUOTES, WRONG_FIELD_COUNT
from recsys_core.data.sources import SourceConfig, SourceError, SourceFile

ROW, BROKEN, LINE = "__row", "__broken", "__line"
POSITION_COLUMNS = (ROW, BROKEN, LINE)
_ITEM_COLUMNS = ("item_id", "title", "categories", "available_from")
_LINES_AT_ONCE = 2_000_000
_NO_SEPARATOR = "\x01"
_REPLACEMENT = "\ufffd"


class _Wanted(NamedTuple):
    """A column to read: its name in the file, and whether a file may lack it."""

    name: str
    required: bool


def read_source(source: SourceFile, config: SourceConfig) -> pl.LazyFrame:
    """The raw rows of a file; item files bring all their further columns along.

    Raises:
        SourceError: The file is empty, not in the configured format, or lacks a column.
    """
    config = config.resolved()
    wanted = _wanted_columns(source.table, config)
    try:
        if config.format == "parquet":
            rows = _scan_parquet(source.path)
        else:
            rows = _read_csv(source.path, config.separator).lazy()
        return _under_standard_names(source, rows, wanted)
    except (PolarsError, OSError, UnicodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = (
            f"{source.path} can't be read as {config.format} ({reason}). "
            "Export the file again, or correct source.format."
        )
        raise SourceError(msg) from error


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
    source: SourceFile, rows: pl.LazyFrame, wanted: Mapping[str, _Wanted]
) -> pl.LazyFrame:
    available = [name for name in rows.collect_schema() if name not in POSITION_COLUMNS]
    for standard, column in wanted.items():
        if column.required and column.name not in available:
            setting = "columns" if source.table == "interactions" else "item_columns"
            msg = (
                f"{source.path} has no column {column.name!r} for {standard} (its columns: "
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


def _scan_parquet(path: Path) -> pl.LazyFrame:
    rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    nothing = pl.lit(None, pl.String)
    return rows.with_row_index(ROW, offset=1).with_columns(
        pl.col(ROW).cast(pl.Int64), nothing.alias(BROKEN), nothing.alias(LINE)
    )


def _read_csv(path: Path, separator: str) -> pl.DataFrame:
    """All lines of a CSV file as rows of text; those that are no rows have `__broken` set."""
    lines = _read_lines(path)
    header: str = lines[LINE][0]
    if _broken(header, separator) is not None:
        msg = f"{path}: the first line is no CSV header: {header[:200]!r}. Export the file again."
        raise SourceError(msg)
    names = _header_names(path, header, separator)
    lines = lines.slice(1).with_columns(
        (pl.col(ROW) - lines[ROW][0]).alias(ROW),
        _why_broken(pl.col(LINE), separator, len(names)).alias(BROKEN),
    )
    whole = lines.filter(pl.col(BROKEN).is_null())
    rows = [_parse(part, names, separator) for part in whole.iter_slices(_LINES_AT_ONCE)]
    broken = lines.filter(pl.col(BROKEN).is_not_null())
    empty = pl.DataFrame(schema=lines.schema | dict.fromkeys(names, pl.String()))
    return pl.concat([empty, *rows, broken], how="diagonal").sort(ROW)


def _read_lines(path: Path) -> pl.DataFrame:
    """Lines that are not blank, with their number in the file. Invalid UTF-8 becomes U+FFFD."""
    try:
        lines = pl.read_csv(
            path,
            separator=_NO_SEPARATOR,
            quote_char=None,
            has_header=False,
            new_columns=[LINE],
            infer_schema=False,
            encoding="utf8-lossy",
            truncate_ragged_lines=True,
            row_index_name=ROW,
            glob=False,
        )
    except NoDataError:
        lines = pl.DataFrame(schema={ROW: pl.Int64, LINE: pl.String})
    lines = lines.select(
        pl.col(ROW).cast(pl.Int64),
        pl.col(LINE).str.strip_chars_end("\r"),
        pl.lit(None, pl.String).alias(BROKEN),
    ).filter(pl.col(LINE).str.contains(r"\S"))
    if lines.is_empty():
        msg = (
            f"{path} is empty ({path.stat().st_size} bytes): not even a header is there. "
            "Export the file again, or remove it."
        )
        raise SourceError(msg)
    return lines


def _why_broken(line: pl.Expr, separator: str, n_fields: int | None) -> pl.Expr:
    """Reason for which a line is no row of `n_fields` fields (None: any number), else null."""
    escaped = "\\" + separator if separator in r"|.;*+?^$()[]{}\\" else separator
    field = rf'(?:"(?:[^"]|"")*"|[^"{escaped}]*)'
    quoted_right = line.str.contains(rf"^{field}(?:{escaped}{field})*$")
    unquoted = line.str.replace_all(r'"[^"]*"', "")
    count = unquoted.str.count_matches(separator, literal=True) + 1
    why = pl.when(line.str.contains(_REPLACEMENT, literal=True)).then(pl.lit(NOT_UTF8))
    why = why.when(line.str.contains('"', literal=True) & ~quoted_right).then(
        pl.lit(UNBALANCED_QUOTES)
    )
    if n_fields is not None:
        why = why.when(count != n_fields).then(pl.lit(WRONG_FIELD_COUNT))
    return why.otherwise(pl.lit(None, pl.String))


def _broken(line: str, separator: str) -> str | None:
    frame = pl.DataFrame({LINE: [line]})
    return frame.select(_why_broken(pl.col(LINE), separator, None)).item()


def _header_names(path: Path, header: str, separator: str) -> list[str]:
    cells = pl.read_csv(
        io.BytesIO(header.encode()), separator=separator, has_header=False, infer_schema=False
    ).row(0)
    names = [(cell or "").strip() or f"column {at}" for at, cell in enumerate(cells, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{path} has the column {twice[0]!r} twice in its header. Rename one of them."
        raise SourceError(msg)
    return names


def _parse(lines: pl.DataFrame, names: list[str], separator: str) -> pl.DataFrame:
    if lines.is_empty():
        return lines.clear()
    text: str = lines[LINE].str.join("\n").item()
    fields = pl.read_csv(
        io.BytesIO(text.encode()),
        separator=separator,
        has_header=False,
        infer_schema=False,
        schema=dict.fromkeys(names, pl.String()),
    )
    assert fields.height == lines.height, "every whole line is one row"
    return lines.with_columns(pl.lit(None, pl.String).alias(LINE)).hstack(fields)
