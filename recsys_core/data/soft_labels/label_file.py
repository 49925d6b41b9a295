"""Files of labels that were made elsewhere: Parquet or JSON lines, checked row by row.

A row is a user, how much of the user's history the teacher has read, and the items that it ranks
first. Whatever could be misread is refused, with the row and the field.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, cast

import polars as pl

from recsys_core.data.soft_labels.description import SoftLabelError
from recsys_core.data.soft_labels.sparse_writing import MAX_ROUNDING


class Field(NamedTuple):
    """What a field of a row holds.

    Attributes:
        kind: One value, or each of a list. Whole numbers are accepted as text.
        is_list: Whether it is a list.
    """

    kind: Literal["text", "whole number", "number"]
    is_list: bool = False

    def __str__(self) -> str:
        return f"a list of {self.kind}s" if self.is_list else self.kind

    @property
    def dtype(self) -> pl.DataType:
        """The type of its column."""
        inner = {"text": pl.String(), "whole number": pl.Int64(), "number": pl.Float64()}[self.kind]
        return pl.List(inner) if self.is_list else inner

    def accepts(self, value: object) -> bool:
        """Whether a value of JSON is of this kind."""
        if self.is_list:
            parts = cast("list[object]", value) if isinstance(value, list) else [None]
            return all(Field(self.kind).accepts(part) for part in parts)
        kinds = {"text": (str, int), "whole number": int, "number": (int, float)}[self.kind]
        return isinstance(value, kinds) and not isinstance(value, bool)

    def accepts_column(self, dtype: pl.DataType) -> bool:
        """Whether a column of Parquet is of this kind."""
        if isinstance(dtype, pl.List | pl.Array):
            return self.is_list and Field(self.kind).accepts_column(
                pl.Series(dtype=dtype.inner).dtype
            )
        fits = {
            "text": dtype == pl.String or dtype.is_integer(),
            "whole number": dtype.is_integer(),
            "number": dtype.is_numeric(),
        }
        return not self.is_list and fits[self.kind]


FIELDS = {
    "user_id": Field("text"),
    "position": Field("whole number"),
    "n_events": Field("whole number"),
    "last_item_id": Field("text"),
    "item_ids": Field("text", is_list=True),
    "scores": Field("number", is_list=True),
    "log_normalizer": Field("number"),
}
"""Fields of a row. `position` or `n_events` says what the teacher has read."""

ROW = "row"

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_ROUNDING_OF_SUMS = 0.01  # by how much, in nats, a list may exceed its normaliser


class LabelFileError(SoftLabelError):
    """A file of labels can't be read, or would be misread."""


def read_label_file(path: Path) -> pl.DataFrame:
    """Read a file of labels.

    Args:
        path: A Parquet file, or JSON lines if its name ends in .jsonl, .ndjson or .json. It is held
            in memory as a whole.

    Returns:
        `row` (from 1), `user_id`, `position`, `item_ids`, and those of `scores`, `log_normalizer`
        and `last_item_id` that the file has; lists may hold unknown or repeated items.

    Raises:
        LabelFileError: The file is broken or empty, lacks a field or has an unknown one, a value is
            missing or of another type, two rows are of one position, or scores are not finite, rise
            along the list, or exceed their normaliser.
    """
    if not path.is_file():
        msg = f"{path} is no file: name a Parquet file, or one of JSON lines."
        raise LabelFileError(msg)
    table = _json_lines(path) if path.suffix in _JSON_SUFFIXES else _parquet(path)
    if not len(table):
        msg = f"{path} holds no rows."
        raise LabelFileError(msg)
    table = table.with_row_index(ROW, offset=1)
    _check_values(table, path)
    if "scores" in table.columns:
        _check_scores(table, path)
    if "n_events" in table.columns:
        table = table.with_columns(position=pl.col("n_events") - 1).drop("n_events")
    twice = table.filter(pl.struct("user_id", "position").is_duplicated())
    if len(twice):
        first = twice.filter(user_id=twice["user_id"][0], position=twice["position"][0])
        rows = " and ".join(f"{row}" for row in first[ROW][:2])
        _refuse(
            path,
            rows,
            "position",
            f"two labels of user {first['user_id'][0]!r} after the same events",
            "one. Keep the right one",
        )
    return table


def _refuse(path: Path, row: object, field: str, found: str, expected: str) -> NoReturn:
    msg = f"{path}, row {row}, {field}: found {found}, expected {expected}."
    raise LabelFileError(msg)


def _check_fields(names: list[str], path: Path) -> None:
    if unknown := sorted(set(names) - FIELDS.keys()):
        msg = (
            f"{path} has the field {unknown[0]!r}, which means nothing here. Known: "
            f"{', '.join(FIELDS)}. Rename or remove it."
        )
        raise LabelFileError(msg)
    places = [name for name in ("position", "n_events") if name in names]
    missing = [name for name in ("user_id", "item_ids") if name not in names]
    if missing or len(places) != 1:
        what = f"the field {missing[0]}" if missing else "either position or n_events, not both"
        msg = (
            f"{path} needs {what}, and has {', '.join(names) or 'no field'}. A row says which "
            "user, after how many events (n_events, or position = n_events - 1), and item_ids, "
            "best first."
        )
        raise LabelFileError(msg)
    if "log_normalizer" in names and "scores" not in names:
        msg = f"{path} has log_normalizer but no scores: add the scores, or remove it."
        raise LabelFileError(msg)


def _parquet(path: Path) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"{path} is no Parquet file ({error}). JSON lines need a name that ends in .jsonl."
        raise LabelFileError(msg) from error
    _check_fields(table.columns, path)
    for name, dtype in table.schema.items():
        if not FIELDS[name].accepts_column(dtype):
            _refuse(path, "1 and all others", name, f"a column of {dtype}", str(FIELDS[name]))
    return table.cast({name: FIELDS[name].dtype for name in table.columns})


def _json_lines(path: Path) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {}
    n_rows = 0
    for n_rows, record in enumerate(_records(path), start=1):
        if n_rows == 1:
            _check_fields(list(record), path)
            columns = {name: [] for name in record}
        if record.keys() != columns.keys():
            odd = sorted(record.keys() ^ columns.keys())[0]
            _refuse(path, n_rows, odd, "it in some rows only", "the same fields in every row")
        for name, value in record.items():
            if not FIELDS[name].accepts(value):
                _refuse(path, n_rows, name, json.dumps(value)[:60], str(FIELDS[name]))
            columns[name].append(_as_text(value) if FIELDS[name].kind == "text" else value)
    return pl.DataFrame(columns, schema={name: FIELDS[name].dtype for name in columns})


def _records(path: Path) -> Iterator[dict[str, Any]]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line, parse_constant=refuse)
            except ValueError as error:
                _refuse(path, number, "the line", f"{line[:60]!r} ({error})", "a JSON object")
            if not isinstance(record, dict):
                _refuse(path, number, "the line", f"{line[:60]!r}", "a JSON object")
            yield record


def _as_text(value: Any) -> Any:
    is_list = isinstance(value, list)
    return [str(part) for part in cast("list[object]", value)] if is_list else str(value)


def _check_values(table: pl.DataFrame, path: Path) -> None:
    for name in table.columns:
        of_list = pl.col(name).list.eval(pl.element().is_null()).list.any()
        missing = pl.col(name).is_null()
        if isinstance(table.schema[name], pl.List):
            missing |= of_list
        if len(rows := table.filter(missing)):
            _refuse(path, rows[ROW][0], name, "no value", "one in every row")


def _check_scores(table: pl.DataFrame, path: Path) -> None:
    scores = pl.col("scores")
    n_items, n_scores = pl.col("item_ids").list.len(), scores.list.len()
    if len(rows := table.filter(n_items != n_scores)):
        row = rows.row(0, named=True)
        counts = f"{len(row['scores'])} for {len(row['item_ids'])} item_ids"
        _refuse(path, row[ROW], "scores", counts, "one score for each item")
    element = pl.element()
    rounding = (element.cast(pl.Float16).cast(pl.Float64) - element).abs()
    checks = {
        "finite numbers; a teacher that gives others is broken": ~element.is_finite(),
        "scores that do not rise along the list. If they are distances, change their sign; if the "
        "list is in another order, sort it": element.diff() > 0,
        f"scores that float16 holds to {MAX_ROUNDING} nats. Subtract a constant of the row from "
        "them and from log_normalizer, which changes no probability": rounding > MAX_ROUNDING,
    }
    for expected, is_wrong in checks.items():
        wrong = scores.list.eval(is_wrong).list.any()
        if len(rows := table.filter(wrong)):
            found = str(rows["scores"][0].to_list()[:8])
            _refuse(path, rows[ROW][0], "scores", found, expected)
    if "log_normalizer" not in table.columns:
        return
    if len(rows := table.filter(~pl.col("log_normalizer").is_finite())):
        found = f"{rows['log_normalizer'][0]}"
        _refuse(path, rows[ROW][0], "log_normalizer", found, "a finite number")
    largest = scores.list.max()
    total = table.select(
        ROW,
        "log_normalizer",
        of_list=(largest + (scores - largest).list.eval(element.exp()).list.sum().log()),
    )
    excess = pl.col("of_list") - pl.col("log_normalizer")
    if len(rows := total.filter(excess > _ROUNDING_OF_SUMS)):
        found = f"{rows['log_normalizer'][0]:g}, less than the list alone, {rows['of_list'][0]:g}"
        expected = "the logarithm of the sum of exp(score) over all items"
        _refuse(path, rows[ROW][0], "log_normalizer", found, expected)
