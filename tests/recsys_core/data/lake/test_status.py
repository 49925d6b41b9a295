"""The state of a lake is that of its tables, and looking at it changes nothing."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys_core.data.lake.commits import Change
from recsys_core.data.lake.ingest_log import IngestedFile, update_ingest_log
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.status import lake_status
from recsys_core.data.lake.tables import Lake, NoLakeError
from recsys_core.data.schema import INTERACTIONS, QUARANTINE


def _add(lake: Lake, day: date, n_rows: int) -> None:
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rows = [("u", "i", moment, n, "view", 1.0, "s", day) for n in range(n_rows)]
    frame = pl.DataFrame(rows, schema=INTERACTIONS.schema, orient="row")

    def decide(snapshot: Snapshot) -> Change:
        return Change(snapshot.write(frame, day))

    lake.change(INTERACTIONS, decide)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    for day, n_rows in ((1, 2), (2, 1), (4, 3), (4, 1), (9, 1)):
        _add(lake, date(2026, 1, day), n_rows)
    return lake


def test_rows_are_counted_by_date(tmp_path: Path, lake: Lake) -> None:
    found = lake_status(tmp_path)
    assert found.rows_by_date == {
        date(2026, 1, 1): 2,
        date(2026, 1, 2): 1,
        date(2026, 1, 4): 4,
        date(2026, 1, 9): 1,
    }
    (interactions,) = [table for table in found.tables if table.name == "interactions"]
    assert (interactions.version, interactions.rows, interactions.files) == (5, 8, 5)
    assert interactions.bytes == sum(
        path.stat().st_size for path in tmp_path.glob("interactions/date=*/*.parquet")
    )


def test_gaps_are_the_dates_between(tmp_path: Path, lake: Lake) -> None:
    assert lake_status(tmp_path).gaps == [
        (date(2026, 1, 3), date(2026, 1, 3)),
        (date(2026, 1, 5), date(2026, 1, 8)),
    ]


def test_the_quarantine_is_counted_by_reason(tmp_path: Path, lake: Lake) -> None:
    rows = [("s", row, reason, None, "{}", date(2026, 1, 9)) for row, reason in enumerate("bab", 1)]
    frame = pl.DataFrame(rows, schema=QUARANTINE.schema, orient="row")
    lake.change(QUARANTINE, lambda snapshot: Change(snapshot.write(frame)))
    assert list(lake_status(tmp_path).quarantined.items()) == [("b", 2), ("a", 1)]


def test_sources_are_sorted_by_name(tmp_path: Path, lake: Lake) -> None:
    day = date(2026, 1, 9)
    update_ingest_log(lake, [IngestedFile("s/b", 0, day), IngestedFile("s/a", 1, day, dates=[day])])
    found = lake_status(tmp_path).facts()["sources"]
    assert [one["source"] for one in found] == ["s/a", "s/b"]
    assert [one["first_date"] for one in found] == ["2026-01-09", None]


def test_an_empty_lake_has_no_dates(tmp_path: Path) -> None:
    Lake(tmp_path)
    found = lake_status(tmp_path)
    assert (found.rows_by_date, found.gaps, found.quarantined) == ({}, [], {})
    assert found.facts()["first_date"] is None


def test_where_no_lake_is_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(NoLakeError, match="Run a night first"):
        lake_status(tmp_path)
    assert list(tmp_path.iterdir()) == []
