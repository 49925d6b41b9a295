"""A user who is erased is in no table, in no old version and in no data file; others stay."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys_core.data.lake.commits import Change
from recsys_core.data.lake.retention import vacuum
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.privacy.erasure import LakeTraces, erase, find_traces
from recsys_core.data.schema import INTERACTIONS, QUARANTINE, Table
from tests.traces import traces

NO_TRACES = LakeTraces(0, 0, 0, None, ())
USER = 'Zoë "z"'


def _add(lake: Lake, table: Table, rows: pl.DataFrame, day: date | None = None) -> None:
    def decide(snapshot: Snapshot) -> Change:
        return Change(snapshot.write(rows, day))

    lake.change(table, decide)


def _interactions(day: int, *users: str) -> tuple[pl.DataFrame, date]:
    moment, when = datetime(2026, 1, day, tzinfo=UTC), date(2026, 1, day)
    rows = [(user, "i", moment, n, "view", 1.0, "s", when) for n, user in enumerate(users)]
    return pl.DataFrame(rows, schema=INTERACTIONS.schema, orient="row"), when


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    for rows, day in (
        _interactions(1, USER, "b", USER),
        _interactions(2, "b"),
        _interactions(3, USER),
    ):
        _add(lake, INTERACTIONS, rows, day)
    lines = pl.Series([f"{USER},i", "b,i"])
    refused = pl.DataFrame(
        {
            "source": "s",
            "row": [1, 2, 3, 4],
            "reason": "some",
            "user_id": [USER, "b", None, None],
            "raw": pl.concat([lines, lines]),
            "date": date(2026, 1, 9),
        },
        schema=QUARANTINE.schema,
    ).with_columns(pl.struct(line="raw").struct.json_encode().alias("raw"))
    _add(lake, QUARANTINE, refused)
    return lake


def _in_use(lake: Lake) -> dict[str, set[str]]:
    return {
        table.name: set(lake.snapshot(table).files()["path"])
        for table in (INTERACTIONS, QUARANTINE)
    }


def test_traces_are_counted_in_every_table(tmp_path: Path, lake: Lake) -> None:
    assert find_traces(tmp_path, USER) == LakeTraces(
        interactions=3,
        quarantine=1,
        unclear=1,
        first_event=datetime(2026, 1, 1, tzinfo=UTC),
        sources=("s",),
    )
    assert find_traces(tmp_path, "nobody") == NO_TRACES


def test_nothing_is_left_of_the_user_and_all_of_the_others(tmp_path: Path, lake: Lake) -> None:
    erase(lake, USER)
    assert find_traces(tmp_path, USER) == NO_TRACES

    vacuum(tmp_path, days=0)

    assert traces(tmp_path, "Zo") == []
    kept = lake.scan("interactions").select("user_id", "date").collect().sort("date")
    assert kept.rows() == [("b", date(2026, 1, 1)), ("b", date(2026, 1, 2))]
    quarantine = lake.scan("quarantine").select("row", "user_id", "raw").collect().sort("row")
    assert quarantine.rows() == [
        (2, "b", '{"line":"b,i"}'),
        (3, None, '{"line":"withheld"}'),
        (4, None, '{"line":"b,i"}'),
    ]


def test_files_without_the_user_are_not_written_again(tmp_path: Path, lake: Lake) -> None:
    before = lake.snapshot(INTERACTIONS).files()
    (other,) = before.filter(pl.col("date") == date(2026, 1, 2))["path"]
    erase(lake, USER)
    vacuum(tmp_path, days=0)
    after = lake.snapshot(INTERACTIONS).files()["path"].to_list()
    assert other in after
    assert len(after) == 2


def test_doing_it_again_changes_nothing(tmp_path: Path, lake: Lake) -> None:
    seen: list[list[int]] = []
    for _ in range(2):
        erase(lake, USER)
        vacuum(tmp_path, days=0)
        seen.append([lake.version(table.name) for table in (INTERACTIONS, QUARANTINE)])
    assert seen[0] == seen[1]


def test_files_that_no_commit_names_go_too(tmp_path: Path, lake: Lake) -> None:
    """A kill between writing and committing leaves such files."""
    rows, day = _interactions(4, USER)
    lake.snapshot(INTERACTIONS).write(rows, day)
    erase(lake, USER)
    vacuum(tmp_path, days=0)
    assert traces(tmp_path, "Zo") == []


def test_erasing_is_told_from_other_changes(lake: Lake) -> None:
    pinned = lake.version("interactions")
    erase(lake, USER)
    assert lake.snapshot(INTERACTIONS).only_maintained_since(pinned)
    assert not lake.snapshot(INTERACTIONS).only_maintained_since(pinned - 1)
    assert not lake.snapshot(INTERACTIONS).only_maintained_since(pinned + 2)
    rows, day = _interactions(5, "c")
    _add(lake, INTERACTIONS, rows, day)
    assert not lake.snapshot(INTERACTIONS).only_maintained_since(pinned)
