"""MovieLens files: conversion of the older format to CSV, and the time span of the ratings."""

import csv
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys_core.units import SECONDS_PER_DAY

COLUMNS = {
    "ratings": ("userId", "movieId", "rating", "timestamp"),
    "movies": ("movieId", "title", "genres"),
}
"""Header of the CSV files; the older files have the same fields in the same order."""
_SEPARATOR = "::"


def convert_dat(source: Path, target: Path, *, encoding: str) -> None:
    """Write an older file (`::` between the fields, no header) as UTF-8 CSV.

    Args:
        source: `ratings.dat` or `movies.dat`; its name decides which columns it has.
        target: The CSV file to write.
        encoding: Encoding of the source.

    Raises:
        ValueError: A line has another number of fields.
    """
    columns = COLUMNS[source.stem]
    with (
        source.open(encoding=encoding, newline="") as lines,
        target.open("w", encoding="utf-8", newline="") as stream,
    ):
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(columns)
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip("\r\n").split(_SEPARATOR)
            if len(fields) != len(columns):
                msg = (
                    f"{source.name}, line {number} has {len(fields)} fields between "
                    f"{_SEPARATOR!r}, not the {len(columns)} of {', '.join(columns)}. "
                    "The archive is another edition than the one that is known."
                )
                raise ValueError(msg)
            table.writerow(fields)


class TimeSpan(NamedTuple):
    """The end of the ratings.

    Attributes:
        last_day: The UTC date of the newest rating.
        newest_days: Number of days of the newest ratings, at least 1.
    """

    last_day: date
    newest_days: int


def time_span(ratings: Path, *, newest_share: float) -> TimeSpan:
    """The last date of the ratings, and the number of days of the newest of them.

    Args:
        ratings: `ratings.csv`, with at least one row.
        newest_share: Share of the ratings that counts as the newest, between 0 and 1.
    """
    times = pl.scan_csv(ratings).select(
        newest=pl.col("timestamp").max(),
        begin=pl.col("timestamp").quantile(1 - newest_share, "lower"),
    )
    newest, begin = times.collect().row(0)
    days = math.ceil((newest - begin) / SECONDS_PER_DAY)
    return TimeSpan(datetime.fromtimestamp(newest, UTC).date(), max(days, 1))
