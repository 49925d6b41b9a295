"""Where training ends."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.histories.splits import SplitKind, TimeWindows, split_columns

WINDOWS = TimeWindows.before(date(2026, 3, 10), timezone="UTC", validation_days=2, test_days=1)
SECONDS = st.integers(-5 * 86_400, 0)


def _ends(kind: SplitKind, timestamps: list[list[datetime]]) -> list[tuple[int, int]]:
    schema = {"timestamp": pl.List(pl.Datetime("us", "UTC"))}
    frame = pl.DataFrame({"timestamp": timestamps}, schema=schema)
    columns = frame.select(*split_columns(kind, WINDOWS))
    assert columns.schema == {"train_end": pl.Int32, "validation_end": pl.Int32}
    return columns.rows()


@given(st.lists(st.lists(SECONDS, min_size=1, max_size=8), min_size=1, max_size=5))
def test_a_global_time_split_never_looks_ahead(seconds: list[list[int]]) -> None:
    events = [
        [WINDOWS.end + timedelta(seconds=second) for second in sorted(of_user)]
        for of_user in seconds
    ]
    for moments, (train_end, validation_end) in zip(
        events, _ends("global_time", events), strict=True
    ):
        assert all(moment < WINDOWS.validation_start for moment in moments[:train_end])
        assert all(moment >= WINDOWS.validation_start for moment in moments[train_end:])
        assert all(moment < WINDOWS.test_start for moment in moments[:validation_end])
        assert all(moment >= WINDOWS.test_start for moment in moments[validation_end:])


def test_the_cut_itself_belongs_to_the_later_side() -> None:
    tick = timedelta(microseconds=1)
    start, test = WINDOWS.validation_start, WINDOWS.test_start
    moments = [start - tick, start, start, test - tick, test, test]
    assert _ends("global_time", [moments]) == [(1, 4)]


@given(st.integers(1, 9))
def test_leave_one_out_holds_out_the_last_two(n_events: int) -> None:
    moments = [WINDOWS.end - timedelta(seconds=9)] * n_events
    expected = (n_events - 2, n_events - 1) if n_events >= 3 else (n_events, n_events)
    assert _ends("leave_one_out", [moments]) == [expected]


def test_windows_are_adjacent_and_end_with_the_day_before_the_run_date() -> None:
    assert TimeWindows(
        datetime(2026, 3, 7, tzinfo=UTC),
        datetime(2026, 3, 9, tzinfo=UTC),
        datetime(2026, 3, 10, tzinfo=UTC),
    ) == (WINDOWS)


def test_days_begin_at_local_midnight_on_both_sides_of_a_clock_change() -> None:
    windows = TimeWindows.before(
        date(2026, 3, 30), timezone="Europe/Berlin", validation_days=1, test_days=1
    )
    assert windows == TimeWindows(
        datetime(2026, 3, 27, 23, tzinfo=UTC),
        datetime(2026, 3, 28, 23, tzinfo=UTC),
        datetime(2026, 3, 29, 22, tzinfo=UTC),
    )
    assert windows.end - windows.test_start == timedelta(hours=23)
    autumn = TimeWindows.before(
        date(2026, 10, 26), timezone="Europe/Berlin", validation_days=1, test_days=1
    )
    assert autumn.end - autumn.test_start == timedelta(hours=25)


def test_a_day_without_midnight_begins_when_the_clocks_are_changed() -> None:
    windows = TimeWindows.before(
        date(2024, 4, 26), timezone="Africa/Cairo", validation_days=1, test_days=1
    )
    assert windows.end == datetime(2024, 4, 25, 22, tzinfo=UTC)


@pytest.mark.parametrize("name", ["Europe/Berlim", "", "../etc/passwd"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="There is no time zone"):
        TimeWindows.before(date(2026, 1, 1), timezone=name, validation_days=1, test_days=1)
