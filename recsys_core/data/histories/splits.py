"""The split: by global time, or by leaving each user's last events out.

Either way a user's events, oldest first, are in three ranges: training [0, train_end),
validation [train_end, validation_end) and test [validation_end, end).
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

SplitKind = Literal["global_time", "leave_one_out"]

_LOO_SHORTEST = 3  # one event to learn from, one to validate on, one to test on


@dataclass(frozen=True)
class TimeWindows:
    """Adjacent windows; events at or after `end` belong to a later night.

    Attributes:
        validation_start: Training events are before it.
        test_start: Validation events are from validation_start to before it.
        end: Test events are from test_start to before it: midnight of the run date.
    """

    validation_start: datetime
    test_start: datetime
    end: datetime

    @classmethod
    def before(
        cls, run_date: date, *, timezone: str, validation_days: int, test_days: int
    ) -> "TimeWindows":
        """The windows that end with the day before `run_date`.

        >>> windows = TimeWindows.before(
        ...     date(2026, 3, 10), timezone="UTC", validation_days=1, test_days=2
        ... )
        >>> f"{windows.validation_start:%d %b}, {windows.test_start:%d %b}, {windows.end:%d %b}"
        '07 Mar, 08 Mar, 10 Mar'

        Args:
            run_date: The night's date.
            timezone: IANA name; days begin at its midnight.
            validation_days: Length of the validation window.
            test_days: Length of the test window.

        Raises:
            ValueError: There is no such time zone.
        """
        test_start = run_date - timedelta(days=test_days)
        days = (test_start - timedelta(days=validation_days), test_start, run_date)
        return cls(*(_midnight(day, timezone) for day in days))


def _midnight(day: date, timezone: str) -> datetime:
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        msg = f"There is no time zone {timezone!r}; use an IANA name such as 'Europe/Berlin'."
        raise ValueError(msg) from error
    return datetime.combine(day, time(), zone).astimezone(ZoneInfo("UTC"))


def split_columns(kind: SplitKind, windows: TimeWindows) -> tuple[pl.Expr, pl.Expr]:
    """`train_end` and `validation_end` of each row of histories, as i32.

    Events of equal time fall on the same side of a global-time cut. Leave-one-out uses order only:
    the last event is the test target, the one before it the validation target; users with fewer
    than three events are training users only.

    Args:
        kind: Kind of split.
        windows: Windows; only "global_time" uses them.

    Returns:
        Expressions over the column `timestamp: list[datetime[us, UTC]]`, sorted.
    """
    n_events = pl.col("timestamp").list.len().cast(pl.Int32)
    if kind == "leave_one_out":
        has_targets = n_events >= _LOO_SHORTEST
        held_out = pl.when(has_targets)
        return (
            held_out.then(n_events - 2).otherwise(n_events).alias("train_end"),
            held_out.then(n_events - 1).otherwise(n_events).alias("validation_end"),
        )
    return (
        _count_before(windows.validation_start).alias("train_end"),
        _count_before(windows.test_start).alias("validation_end"),
    )


def _count_before(moment: datetime) -> pl.Expr:
    earlier = pl.element() < pl.lit(moment).cast(pl.Datetime("us", "UTC"))
    return pl.col("timestamp").list.eval(earlier).list.sum().cast(pl.Int32)
