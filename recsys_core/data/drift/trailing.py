"""Which dates of the lake can be compared with the days before them, and the comparisons."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import polars as pl

from recsys_core.data.drift.day_profile import Comparison, DayProfile, compare, profile_day
from recsys_core.data.drift.partitions import count, rows_of

FEWEST_DAYS = 3
"""With fewer trailing days there is no usual value."""

LATE_SHARE = 0.1
"""A date with a smaller share of new rows was compared by the night that brought the rest."""

_DAY = timedelta(days=1)


class _Rows(NamedTuple):
    new: int
    earlier: int


class Trailing:
    """Compares dates with the trailing days: those before them that are known to be good.

    Good days are days with rows that earlier nights have validated, and days that were compared
    here before. All rows of a date count, so a few late rows do not look like a small day. The
    last date may not be over when the run date begins (the lake's dates are UTC, the run date is
    local): it is compared with the same part of the trailing days.

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
        """Number of rows of each date that was counted, without empty dates."""
        totals = {day: sum(rows) for day, rows in sorted(self._rows.items())}
        return {day: total for day, total in totals.items() if total}

    def compare(self, day: date) -> Comparison | str:
        """Compare a date with the trailing days; call it in the order of the dates.

        Returns:
            The comparison, or the reason why there is none.
        """
        rows = self._count(day)
        if rows.new < LATE_SHARE * sum(rows):
            return f"{rows.new} late rows; the other {rows.earlier} were compared before"
        part = min(_DAY, self._until - datetime.combine(day, time(), UTC))
        window = [day - back * _DAY for back in range(self._n_days, 0, -1)]
        known = [past for past in window if self._count(past).earlier or past in self._compared]
        if len(known) < FEWEST_DAYS:
            return _only(len(known))
        self._drop_profiles_before(window[0])
        profile = self._profile(day, part)
        if not profile.n_rows:
            return "no rows before the run date begins"
        profiles = [self._profile(past, part) for past in known]
        trailing = [past for past in profiles if past.n_rows]
        if len(trailing) < FEWEST_DAYS:
            return _only(len(trailing))
        self._compared.add(day)
        return compare(profile, trailing)

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

    def _drop_profiles_before(self, first: date) -> None:
        self._profiles = {key: kept for key, kept in self._profiles.items() if key[0] >= first}


def _only(n_days: int) -> str:
    days = "no trailing day" if n_days == 0 else f"only {n_days} trailing day{'s'[: n_days > 1]}"
    return f"{days}, {FEWEST_DAYS} are needed"
