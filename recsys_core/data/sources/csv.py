"""CSV files as raw rows of text. A row is one line: line breaks in quotes are not supported.

A line that can't be parsed is kept as it is, with the reason.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from recsys_core.data.schema import NOT_UTF8, UNBALANCED_QUOTES, WRONG_FIELD_COUNT
from recsys_core.data.sources.config import SourceError
from recsys_core.data.sources.text import BLOCK_BYTES, LINE, NUMBER, UNDECODED, read_lines

ROW, BROKEN = "__row", "__broken"
_UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Dialect:
    """The dialect of a CSV file.

    Attributes:
        separator: Text between two fields.
        encoding: Encoding of the file.
        names: Names of the columns, if the file has no header.
        quoted: Whether fields may be quoted.
    """

    separator: str = ","
    encoding: str = "utf-8"
    names: tuple[str, ...] = ()
    quoted: bool = True


def read_csv(
    path: Path, dialect: Dialect, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[pl.DataFrame]:
    """Rows in pieces: `__row` (from 1), `__broken`, `__line` (of broken rows), and the columns.

    Args:
        path: The file.
        dialect: Its dialect.
        block_bytes: Bytes that are read at once; they make a piece.

    Raises:
        SourceError: The file can't be read as text, or its first line is no header.
    """
    pieces = read_lines(path, dialect.encoding, block_bytes=block_bytes)
    names, n_before = list(dialect.names), 0
    if not names:
        first = next(pieces)
        names, n_before = _header(path, first, dialect), first[NUMBER][0]
        pieces = chain([first.slice(1)], pieces)
    for lines in pieces:
        yield _rows(lines.with_columns(pl.col(NUMBER) - n_before), names, dialect)


def _rows(lines: pl.DataFrame, names: list[str], dialect: Dialect) -> pl.DataFrame:
    separator = dialect.separator
    if len(separator) > 1:
        # Polars supports separators of one byte only.
        lines = lines.with_columns(
            pl.col(LINE).str.replace_all(separator, _UNIT_SEPARATOR, literal=True)
        )
        separator = _UNIT_SEPARATOR
    why = _why_broken(separator, len(names), quoted=dialect.quoted and _has_quotes(lines))
    lines = lines.select(pl.col(NUMBER).cast(pl.Int64).alias(ROW), why.alias(BROKEN), LINE)
    whole = lines.filter(pl.col(BROKEN).is_null())
    fields = _fields(whole[LINE], names, separator, quoted=dialect.quoted)
    rows = whole.with_columns(pl.lit(None, pl.String).alias(LINE)).hstack(fields)
    broken = lines.filter(pl.col(BROKEN).is_not_null())
    if broken.is_empty():
        return rows
    return pl.concat([rows, broken], how="diagonal").sort(ROW)


def _has_quotes(lines: pl.DataFrame) -> bool:
    return bool(lines[LINE].str.contains('"', literal=True).any())


def _why_broken(separator: str, n_fields: int, *, quoted: bool) -> pl.Expr:
    """The reason why a line is no row of `n_fields` fields; null if it is one."""
    line = pl.col(LINE)
    why = pl.when(pl.col(UNDECODED)).then(pl.lit(NOT_UTF8))
    if quoted:
        escaped = "\\" + separator if separator in r"|.;*+?^$()[]{}\\" else separator
        field = rf'(?:"(?:[^"]|"")*"|[^"{escaped}]*)'
        well = line.str.contains(rf"^{field}(?:{escaped}{field})*$")
        why = why.when(line.str.contains('"', literal=True) & ~well).then(pl.lit(UNBALANCED_QUOTES))
        line = line.str.replace_all(r'"[^"]*"', "")
    count = line.str.count_matches(separator, literal=True) + 1
    return why.when(count != n_fields).then(pl.lit(WRONG_FIELD_COUNT)).otherwise(None)


def _fields(lines: pl.Series, names: list[str], separator: str, *, quoted: bool) -> pl.DataFrame:
    schema = dict.fromkeys(names, pl.String())
    if lines.is_empty():
        return pl.DataFrame(schema=schema)
    text: str = lines.str.join("\n").item()
    try:
        fields = pl.read_csv(
            io.BytesIO(text.encode()),
            separator=separator,
            quote_char='"' if quoted else None,
            has_header=False,
            infer_schema=False,
            schema=schema,
        )
    except PolarsError:
        fields = pl.DataFrame()
    if fields.height == lines.len():
        return fields
    # Polars found another number of rows than there are lines: split line by line.
    rows = [_cells(line, separator, quoted=quoted) for line in lines]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _cells(line: str, separator: str, *, quoted: bool) -> list[str]:
    """The fields of a line whose quotes are balanced."""
    if not quoted:
        return line.split(separator)
    part = re.escape(separator)
    fields = re.findall(rf'(?:^|{part})("(?:[^"]|"")*"|[^"{part}]*)', line)
    return [field[1:-1].replace('""', '"') if field.startswith('"') else field for field in fields]


def _header(path: Path, lines: pl.DataFrame, dialect: Dialect) -> list[str]:
    header: str = lines[LINE][0]
    if header.count('"') % 2 or lines[UNDECODED][0]:
        msg = f"{path}: the first line is no CSV header: {header[:200]!r}. Export the file again."
        raise SourceError(msg)
    cells = _cells(header, dialect.separator, quoted=dialect.quoted)
    names = [cell.strip() or f"column {at}" for at, cell in enumerate(cells, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{path} has the column {twice[0]!r} twice in its header. Rename one of them."
        raise SourceError(msg)
    return names
