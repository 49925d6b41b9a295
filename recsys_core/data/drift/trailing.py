"""Which dates of the lake can be held against the days before them, and how they compare."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import polars as pl

from recsys_core.data.drift.day_profile import Comparison, DayProfile, compare, profile_day
from recsys_core.data.drift.partitions import count, rows_of

FEWEST_DAYS = 3
"""With fewer trailing days nothing is usual."""

LATE_SHARE = 0.1
"""A date with fewer new rows than this share has been judged by the night that brought the rest."""

_DAY = timedelta(days=1)


class _Rows(NamedTuple):
    new: int
    earlier: int


class Trailing:
    """Compares dates with the trailing days: those before them that are known to be good.

    That is, days of which earlier nights have validated rows, and days that have been compared
    here already. A date is judged by all its rows, so a few late ones are not a small day. The
    last date may not be over when the run date begins (the lake's dates are UTC, the run date is
    the shop's): it is compared with the same part of the trailing days.

    Args:
        table: The lake's interactions.
        new: Sources that no night has validated yet.
        n_days: How many days back trailing days may be.
        until: When the run date begins.
    """

    def __init__(
        self, table: pl.LazyFrame, new: Sequence[str], *, n_days: int, until: datetime
    ) -> None:
        self._table = table
        self._new = list(new)
        self._n_days = n_days
        self._until = until
        self._rows: dict[date, _Rows] = {}
        self._profiles: dict[tuple[date, timedelta], DayProfile] = {}
        self._compared: set[date] = set()

    @property
    def n_rows(self) -> dict[date, int]:
        """All rows of each date that was looked at, empty ones left out."""
        totals = {day: sum(rows) for day, rows in sorted(self._rows.items())}
        return {day: total for day, total in totals.items() if total}

    def compare(self, day: date) -> Comparison | str:
        """Hold a date against the trailing days; call it by ascending date.

        Returns:
            The comparison, or why there is none.
        """
        rows = self._count(day)
        if rows.new < LATE_SHARE * sum(rows):
            return f"{rows.new} late rows for {rows.earlier} that were judged before"
        part = min(_DAY, self._until - datetime.combine(day, time(), UTC))
        window = [day - back * _DAY for back in range(self._n_days, 0, -1)]
        known = [one for one in window if self._count(one).earlier or one in self._compared]
        if len(known) < FEWEST_DAYS:
            return _only(len(known))
        self._forget_before(window[0])
        judged = self._profile(day, part)
        if not judged.n_rows:
            return "no rows before the run date begins"
        profiles = [self._profile(one, part) for one in known]
        trailing = [one for one in profiles if one.n_rows]
        if len(trailing) < FEWEST_DAYS:
            return _only(len(trailing))
        self._compared.add(day)
        return compare(judged, trailing)

    def _count(self, day: date) -> _Rows:
        if day not in self._rows:
            new = count(rows_of(self._table, day, self._new))
            earlier = count(rows_of(self._table, day, self._new, new=False))
            self._rows[day] = _Rows(new, earlier)
        return self._rows[day]

    def _profile(self, day: date, part: timedelta) -> DayProfile:
        if (day, part) not in self._profiles:
            rows = self._table.filter(pl.col("date") == day)
            if part < _DAY:
                rows = rows.filter(pl.col("timestamp") < datetime.combine(day, time(), UTC) + part)
            self._profiles[day, part] = profile_day(rows, day)
        return self._profiles[day, part]

    def _forget_before(self, first: date) -> None:
        self._profiles = {key: one for key, one in self._profiles.items() if key[0] >= first}


def _only(n_days: int) -> str:
    days = "no trailing day" if n_days == 0 else f"only {n_days} trailing day{'s'[: n_days > 1]}"
    return f"{days}, {FEWEST_DAYS} are needed"
