"""JSON lines as raw rows: one object per line."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import polars as pl

from recsys_core.data.schema import NOT_JSON, NOT_UTF8
from recsys_core.data.sources.config import SourceError
from recsys_core.data.sources.csv import BROKEN, ROW
from recsys_core.data.sources.text import LINE, NUMBER, UNDECODED, read_lines

_ROWS_AT_ONCE = 200_000
_LOOKED_AT = 1000


def read_json_lines(
    path: Path, encoding: str, *, names: Collection[str] | None
) -> Iterator[pl.DataFrame]:
    """Rows in pieces: `__row` (from 1), `__broken`, `__line` (of broken rows), and the columns.

    Args:
        path: The file.
        encoding: Encoding of the text.
        names: Columns to read, as text; None reads all columns, with their own types.

    Raises:
        SourceError: The file can't be read as text, or none of its first lines is an object.
    """
    first = True
    for lines in read_lines(path, encoding):
        for part in lines.iter_slices(_ROWS_AT_ONCE):
            rows = _rows(part, names)
            if first and rows[BROKEN].head(_LOOKED_AT).is_not_null().all():
                shown = part[LINE][0][:100]
                msg = (
                    f"{path} is no file of JSON lines: it begins with {shown!r}. Export one JSON "
                    "object a line, or correct source.format."
                )
                raise SourceError(msg)
            first = False
            yield rows


def _rows(lines: pl.DataFrame, names: Collection[str] | None) -> pl.DataFrame:
    reasons: list[str | None] = []
    records: list[dict[str, Any]] = []
    for line, undecoded in lines.select(LINE, UNDECODED).iter_rows():
        record = None if undecoded else _parsed(line)
        reasons.append(NOT_UTF8 if undecoded else NOT_JSON if record is None else None)
        records.append(record or {})
    position = lines.select(
        pl.col(NUMBER).cast(pl.Int64).alias(ROW),
        pl.Series(BROKEN, reasons, dtype=pl.String),
    ).with_columns(pl.when(pl.col(BROKEN).is_not_null()).then(lines[LINE]).alias(LINE))
    if names is None:
        return position.hstack(_typed(records))
    return position.hstack(
        pl.DataFrame(
            {name: [_text(record.get(name)) for record in records] for name in names},
            schema=dict.fromkeys(names, pl.String),
        )
    )


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    """A value as text; a list or an object becomes text that no column accepts."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else "\0"


def _typed(records: list[dict[str, Any]]) -> pl.DataFrame:
    """All keys as columns; a key with values of several types becomes text."""
    keys = dict.fromkeys(key for record in records for key in record)
    columns = [_column(key, [record.get(key) for record in records]) for key in keys]
    return pl.DataFrame(columns)


def _column(key: str, values: list[Any]) -> pl.Series:
    try:
        return pl.Series(key, values, strict=True)
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        texts = [
            value if value is None or isinstance(value, str) else json.dumps(value)
            for value in values
        ]
        return pl.Series(key, texts, dtype=pl.String)
