"""What one version of the lake adds to another."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recsys_core.data.histories.events import events_before, first_interactions, only_later_rows
from recsys_core.data.lake.commits import Change
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS

MOMENT = datetime(2026, 1, 5, tzinfo=UTC)
INDEX = pl.DataFrame(
    {"item_id": ["a", "b"], "item_idx": [1, 2]}, schema_overrides={"item_idx": pl.Int32}
)
KINDS = pl.DataFrame(
    {"event_type": ["buy", "view"], "code": [0, 1], "target_weight": [1.0, 0.5]},
    schema_overrides={"target_weight": pl.Float32},
)

Row = tuple[str, int, int]
"""item_id, hours before the moment, arrival."""


def _rows(rows: list[Row]) -> pl.DataFrame:
    filled = [
        ("u", item, MOMENT - timedelta(hours=ago), arrival, "view", 1.0, "s", date(2026, 1, 4))
        for item, ago, arrival in rows
    ]
    return pl.DataFrame(filled, schema=INTERACTIONS.schema, orient="row")


def _change(lake: Lake, add: list[Row], *, instead: bool = False) -> Snapshot:
    def decide(snapshot: Snapshot) -> Change:
        old = snapshot.files()["path"].to_list() if instead else []
        return Change(snapshot.write(_rows(add), date(2026, 1, 4)), old)

    lake.change(INTERACTIONS, decide)
    return lake.snapshot(INTERACTIONS)


def _events(now: Snapshot, since: Snapshot | None = None) -> list[tuple[int, int, int]]:
    chunks = events_before(MOMENT, now, item_index=INDEX, event_types=KINDS, since=since)
    rows = pl.concat(chunks).sort("arrival")
    return rows.select("item_idx", "arrival", "event_type").rows()


def test_events_have_indices_and_codes_and_end_before_the_moment(tmp_path: Path) -> None:
    now = _change(Lake(tmp_path), [("b", 1, 1), ("a", 2, 2), ("a", 0, 3)])
    assert _events(now) == [(2, 1, 1), (1, 2, 1)]
    assert first_interactions(MOMENT, now).sort("item_id").rows() == [
        ("a", MOMENT - timedelta(hours=2)),
        ("b", MOMENT - timedelta(hours=1)),
    ]


@pytest.mark.parametrize("instead", [False, True])
def test_later_rows_are_found_also_where_files_were_rewritten(
    tmp_path: Path, instead: bool
) -> None:
    lake, old = Lake(tmp_path), [("a", 5, 1), ("b", 4, 2)]
    before = _change(lake, old)
    now = _change(lake, [*(old if instead else []), ("a", 9, 3)], instead=instead)
    assert only_later_rows(before, now)
    assert _events(now, before) == [(1, 3, 1)]
    assert only_later_rows(now, now)


@pytest.mark.parametrize(
    "rows",
    [
        [("a", 5, 1), ("a", 9, 3)],  # one is gone
        [("a", 5, 1), ("b", 3, 2)],  # one has changed
        [("a", 5, 1), ("b", 4, 2), ("a", 9, 0)],  # the new one arrived before others
    ],
)
def test_anything_but_later_rows_is_found_out(tmp_path: Path, rows: list[Row]) -> None:
    lake = Lake(tmp_path)
    before = _change(lake, [("a", 5, 1), ("b", 4, 2)])
    assert not only_later_rows(before, _change(lake, rows, instead=True))


def test_without_the_old_files_nothing_can_be_compared(tmp_path: Path) -> None:
    lake, old = Lake(tmp_path), [("a", 5, 1)]
    before = _change(lake, old)
    now = _change(lake, [*old, ("b", 1, 2)], instead=True)
    for path in before.files()["path"]:
        (before.path / path).unlink()
    assert not only_later_rows(before, now)
