"""New rows in pieces: nothing lost, nothing twice, whatever the arrivals are."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from recsys_core.data.drift.partitions import count_misplaced, count_repeated, pieces, rows_of

DAY = date(2026, 1, 2)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arrivals", "sizes"),
    [
        ([5, 3, 1, 4, 2], [2, 2, 1]),
        ([1, 2], [2]),
        ([], []),
        ([7, 7, 7, 7, 7], [5]),  # equal ones stay together
        ([None, 1, None, 2, 3], [2, 2, 1]),  # a defect that must be seen
    ],
)
def test_pieces_are_all_rows_once_by_arrival(arrivals: list[int | None], sizes: list[int]) -> None:
    rows = pl.LazyFrame({"arrival": arrivals}, schema={"arrival": pl.Int64})
    found = list(pieces(rows, piece_rows=2))
    assert [piece.height for piece in found] == sizes
    joined = [arrival for piece in found for arrival in piece["arrival"]]
    assert joined == sorted(arrivals, key=lambda arrival: -1 if arrival is None else arrival)


@pytest.mark.parametrize("piece_rows", [1, 2, 100])
def test_repeated_rows_are_counted_whatever_the_pieces(piece_rows: int) -> None:
    keys = [("u", "a"), ("v", "a"), ("u", "a"), ("u", "a"), ("w", "b"), ("w", "b"), ("u", "b")]
    rows = pl.LazyFrame(keys, schema=["user_id", "item_id"], orient="row")
    rows = rows.with_columns(timestamp=pl.lit(NOON), event_type=pl.lit("view"))
    assert count_repeated(rows, piece_rows) == 3
    assert count_repeated(rows.head(2), piece_rows) == 0
    assert count_repeated(rows.head(0), piece_rows) == 0


def test_rows_under_another_date_are_counted() -> None:
    rows = pl.LazyFrame({"timestamp": [NOON, NOON], "date": [DAY, date(2026, 1, 3)]})
    assert count_misplaced(rows) == 1


def test_rows_of_a_date_by_source() -> None:
    table = pl.LazyFrame(
        {"date": [DAY, DAY, date(2026, 1, 3)], "source": ["a", "b", "a"], "arrival": [1, 2, 3]}
    )
    assert rows_of(table, DAY, ["a"]).collect()["arrival"].to_list() == [1]
    assert rows_of(table, DAY, ["a"], new=False).collect()["arrival"].to_list() == [2]
