"""Which dates are compared with which."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from recsys_core.data.drift.day_profile import Comparison
from recsys_core.data.drift.trailing import Trailing

FIRST = date(2026, 1, 1)
NEW = ["new"]


def _day(day: int, n_rows: int, source: str = "old", *, hour: int = 12) -> pl.DataFrame:
    midnight = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return pl.DataFrame(
        {
            "user_id": [f"u{row}" for row in range(n_rows)],
            "item_id": ["a"] * n_rows,
            "event_type": ["view"] * n_rows,
            "timestamp": [midnight + timedelta(hours=hour)] * n_rows,
            "source": [source] * n_rows,
            "date": [midnight.date()] * n_rows,
        }
    )


def _trailing(*days: pl.DataFrame, until: float = 31.0, n_days: int = 7) -> Trailing:
    run_date = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=until)
    return Trailing(pl.concat(days).lazy(), NEW, n_days=n_days, until=run_date)


def _compared(outcome: Comparison | str) -> Comparison:
    assert isinstance(outcome, Comparison), outcome
    return outcome


def _date(day: int) -> date:
    return FIRST + timedelta(days=day)


def test_a_new_date_is_compared_with_the_days_before_it() -> None:
    days = [_day(day, 100 + day) for day in range(10)]
    found = _compared(_trailing(*days, _day(10, 200, "new"), n_days=4).compare(_date(10)))
    assert found.trailing == tuple(map(_date, (6, 7, 8, 9)))
    assert found.rows == (200, 107.5, 200 / 107.5)


@pytest.mark.parametrize(
    ("n_days", "reason"), [(0, "no trailing day, 3"), (1, "only 1 trailing day, 3"), (2, "days, 3")]
)
def test_too_few_trailing_days_decide_nothing(n_days: int, reason: str) -> None:
    days = [_day(day, 100) for day in range(n_days)]
    outcome = _trailing(*days, _day(n_days, 100, "new")).compare(_date(n_days))
    assert isinstance(outcome, str)
    assert reason in outcome


def test_on_a_first_load_nothing_is_known_to_be_good() -> None:
    trailing = _trailing(*(_day(day, 100, "new") for day in range(10)))
    assert all(isinstance(trailing.compare(_date(day)), str) for day in range(10))
    assert trailing.n_rows == {_date(day): 100 for day in range(10)}


def test_dates_that_were_missed_are_compared_one_after_the_other() -> None:
    days = [_day(day, 100) for day in range(4)] + [_day(day, 100, "new") for day in range(4, 16)]
    trailing = _trailing(*days)
    found = [_compared(trailing.compare(_date(day))) for day in range(4, 16)]
    assert found[-1].trailing == tuple(_date(day) for day in range(8, 15))


def test_a_few_late_rows_are_no_small_day() -> None:
    days = [_day(day, 100) for day in range(10)]
    outcome = _trailing(*days, _day(8, 11, "new")).compare(_date(8))
    assert outcome == "11 late rows; the other 100 were compared before"


def test_a_date_is_judged_by_all_its_rows() -> None:
    days = [_day(day, 100) for day in range(10)]
    found = _compared(_trailing(*days, _day(8, 25, "new")).compare(_date(8)))
    assert found.rows is not None
    assert found.rows.value == 125


def test_a_date_that_is_not_over_is_compared_with_the_same_part_of_the_others() -> None:
    """For a shop west of Greenwich the run date begins while the last UTC date goes on."""
    days = [_day(day, 100, hour=3) for day in range(9)] + [
        _day(day, 400, hour=20) for day in range(9)
    ]
    newest = _day(9, 100, "new", hour=3)
    at_five = _compared(_trailing(*days, newest, until=9 + 5 / 24).compare(_date(9)))
    assert at_five.rows == (100, 100, 1)
    whole = _compared(_trailing(*days, newest, until=10).compare(_date(9)))
    assert whole.rows == (100, 500, 0.2)


def test_a_date_after_the_run_date_is_not_judged() -> None:
    days = [_day(day, 100) for day in range(9)]
    outcome = _trailing(*days, _day(9, 100, "new"), until=9).compare(_date(9))
    assert outcome == "no rows before the run date begins"
