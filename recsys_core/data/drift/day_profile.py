"""A day of interactions as counts, and how far it is from the days before it.

All figures are functions of counts, so each can be checked by hand.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import log
from statistics import median
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

FEWEST_ROWS = 100
"""With fewer rows (or users) chance alone moves a figure too far to judge it."""

N_POPULAR = 1000
"""Items that the popularity shift tells apart; the others count together."""

_CHANCE_DRAWS = 5
_EXPECTED_OF_LOST = 20
_LOST_BELOW = 0.1

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class DayProfile:
    """A day, counted.

    Attributes:
        day: Which.
        n_rows: Its rows.
        n_users: Its users.
        events: Rows by kind of event.
        items: `item` and `rows`, one row an item; `item` is a hash of the id, half as long and
            twice as fast as the id itself.
    """

    day: date
    n_rows: int
    n_users: int
    events: dict[str, int]
    items: pl.DataFrame


class Figure(NamedTuple):
    """A figure of a day.

    Attributes:
        value: The figure.
        usual: What it is on the trailing days.
        deviation: How far the value is from the usual: their ratio for numbers of rows and users,
            their difference for shares and distances.
    """

    value: float
    usual: float
    deviation: float


@dataclass(frozen=True)
class Comparison:
    """A day against the trailing days; a figure is None where there are too few rows.

    Attributes:
        day: Which.
        trailing: The days that it is compared with.
        rows: Rows, against the median of the trailing days or the same weekday.
        users: Users, likewise.
        new_item_share: Share of the rows whose item no trailing day has.
        event_mix: Largest absolute change of a kind's share of the rows.
        popularity_shift: Distance of the items' popularity, 0 to 1.
        lost_events: Kinds with less than a tenth of the rows to be expected.
        new_events: Kinds that no trailing day has.
        shifts: Distance of each of these days from the trailing days (itself left out).
    """

    day: date
    trailing: tuple[date, ...]
    rows: Figure | None
    users: Figure | None
    new_item_share: Figure | None
    event_mix: Figure | None
    popularity_shift: Figure | None
    lost_events: tuple[str, ...]
    new_events: tuple[str, ...]
    shifts: dict[date, float]


def profile_day(rows: pl.LazyFrame, day: date) -> DayProfile:
    """Count a day.

    Args:
        rows: Its interactions; only the columns user_id, item_id and event_type are read.
        day: Which it is.
    """
    totals, events, items = pl.collect_all(
        [
            rows.select(pl.len(), pl.col("user_id").hash().n_unique().alias("users")),
            rows.group_by("event_type").agg(pl.len()),
            rows.group_by(pl.col("item_id").hash().alias("item")).agg(pl.len().alias("rows")),
        ]
    )
    n_rows, n_users = totals.row(0)
    return DayProfile(day, n_rows, n_users, dict(sorted(events.iter_rows())), items)


def compare(day: DayProfile, trailing: Sequence[DayProfile]) -> Comparison:
    """Hold a day against the trailing days.

    What is usual of a share or distance is the median over the trailing days, each of them held
    against the others in the same way, so that a shop whose days differ much may go on doing so.

    Args:
        day: The day, with at least one row.
        trailing: At least two days, each with at least one row.
    """
    items = aligned_counts([*trailing, day])
    kinds, events = _event_counts([*trailing, day])
    usual_events = events[:, :-1].sum(axis=1)
    shifts = [_distance(*pair) for pair in _each_against_others(items[:, :-1])]
    shift = _popularity_shift(items, usual=median(shifts))
    enough = day.n_rows >= FEWEST_ROWS
    return Comparison(
        day=day.day,
        trailing=tuple(one.day for one in trailing),
        rows=volume(day.day, day.n_rows, {one.day: one.n_rows for one in trailing}),
        users=volume(day.day, day.n_users, {one.day: one.n_users for one in trailing}),
        new_item_share=_excess(new_item_share, items) if enough else None,
        event_mix=_excess(largest_change, events) if enough else None,
        popularity_shift=shift if enough else None,
        lost_events=tuple(kinds[at] for at in lost_kinds(events[:, -1], usual_events)),
        new_events=tuple(kinds[at] for at in np.flatnonzero(usual_events == 0)),
        shifts=dict(
            zip([one.day for one in (*trailing, day)], [*shifts, shift.value], strict=True)
        ),
    )


def aligned_counts(days: Sequence[DayProfile]) -> Counts:
    """`[n_items, n_days]` rows of each item on each day, by `item`."""
    stacked = pl.concat(
        [one.items.with_columns(at=pl.lit(at, dtype=pl.UInt16)) for at, one in enumerate(days)]
    )
    at_item = stacked["item"].rank("dense").to_numpy() - 1
    counts = np.zeros((stacked["item"].n_unique(), len(days)), np.int64)
    counts[at_item, stacked["at"].to_numpy()] = stacked["rows"].to_numpy()
    return counts


def volume(day: date, value: int, trailing: Mapping[date, int]) -> Figure | None:
    """A number of rows or users as a multiple of the usual.

    Usual is the median of the trailing days or the number of a week before, whichever is nearer:
    where nobody shops on Sundays, a Sunday is like the last one.

    Returns:
        None if both are below FEWEST_ROWS.
    """
    choices = [median(trailing.values())]
    if (week_before := trailing.get(day - timedelta(days=7))) is not None:
        choices.append(week_before)
    usual = min(choices, key=lambda choice: abs(log(value / choice)))
    return Figure(value, usual, value / usual) if max(value, usual) >= FEWEST_ROWS else None


def new_item_share(day: Counts, pool: Counts) -> float:
    """Share of a day's rows whose item is not in the pool.

    Args:
        day: `[n_items]` rows of each item on the day.
        pool: `[n_items]` rows of the same items on the other days.
    """
    return float(day[pool == 0].sum() / day.sum())


def largest_change(day: Counts, pool: Counts) -> float:
    """Largest absolute difference of a share, 0 to 1.

    Args:
        day: `[n_kinds]` rows of each kind of event on the day.
        pool: `[n_kinds]` rows of the same kinds on the other days.
    """
    return float(np.abs(day / day.sum() - pool / pool.sum()).max())


def lost_kinds(day: Counts, pool: Counts) -> list[int]:
    """Positions of the kinds of events that have (nearly) vanished.

    That is, with less than a tenth of the rows that their share on the other days lets expect,
    where these are at least 20.

    Args:
        day: `[n_kinds]` rows of each kind of event on the day.
        pool: `[n_kinds]` rows of the same kinds on the other days.
    """
    expected = day.sum() * pool / pool.sum()
    lost = (expected >= _EXPECTED_OF_LOST) & (day < _LOST_BELOW * expected)
    return [int(at) for at in np.flatnonzero(lost)]


def popularity_bins(day: Counts, pool: Counts, n_popular: int = N_POPULAR) -> tuple[Counts, Counts]:
    """Counts that two popularity distributions are compared on.

    Args:
        day: `[n_items]` rows of each item on the day.
        pool: `[n_items]` rows of the same items on the other days.
        n_popular: Items that have a bin of their own.

    Returns:
        Of the day and of the pool: a bin for each of the pool's most popular items (ties by
        position), one for all its other items, and one for items that it does not have.
    """
    known = pool > 0
    least = np.partition(pool, -n_popular)[-n_popular] if len(pool) > n_popular else 0
    popular = np.flatnonzero(known & (pool >= least))
    top = popular[np.argsort(-pool[popular], kind="stable")][:n_popular]

    def binned(counts: Counts) -> Counts:
        named, all_known = counts[top], counts[known].sum()
        return np.append(named, [all_known - named.sum(), counts.sum() - all_known])

    return binned(day), binned(pool)


def jensen_shannon_distance(p: ArrayLike, q: ArrayLike) -> float:
    """Square root of the Jensen-Shannon divergence in bits: 0 for equal, 1 for disjoint.

    It is biased: n draws from k bins are never exactly the distribution that they come from, so
    the distance of equal laws is about √((k-1) / (8 n ln 2)), not 0. That is why items are binned
    (`popularity_bins`) and why a day is held against what is usual and what chance alone makes
    (`chance_distance`), not against 0.

    Args:
        p: `[n_bins]` counts or probabilities, not all 0.
        q: `[n_bins]` the other ones.

    Source: Lin 1991, IEEE Transactions on Information Theory 37 (1), pages 145-151.
    """
    one, other = (np.asarray(counts, float) / np.sum(counts) for counts in (p, q))
    middle = (one + other) / 2
    bits = (_divergence(one, middle) + _divergence(other, middle)) / 2
    return float(np.sqrt(min(max(bits, 0.0), 1.0)))


def _divergence(p: Shares, q: Shares) -> float:
    """Kullback-Leibler divergence in bits; q is positive wherever p is."""
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())


def chance_distance(day: Counts, pool: Counts) -> float:
    """Mean distance from the pool of as many rows as the day has, drawn from the pool.

    Args:
        day: `[n_bins]` counts of the day; only their sum matters.
        pool: `[n_bins]` counts of the other days.
    """
    random = np.random.default_rng(0)
    draws = random.multinomial(int(day.sum()), pool / pool.sum(), size=_CHANCE_DRAWS)
    return float(np.mean([jensen_shannon_distance(draw, pool) for draw in draws]))


def _event_counts(days: Sequence[DayProfile]) -> tuple[list[str], Counts]:
    """The kinds of events and `[n_kinds, n_days]` rows of each kind on each day."""
    kinds = sorted({kind for one in days for kind in one.events})
    return kinds, np.array([[one.events.get(kind, 0) for one in days] for kind in kinds])


def _each_against_others(counts: Counts) -> Iterator[tuple[Counts, Counts]]:
    """Each column, and the sum of the other ones."""
    total = counts.sum(axis=1)
    for column in counts.T:
        yield column, total - column


def _distance(day: Counts, pool: Counts) -> float:
    return jensen_shannon_distance(*popularity_bins(day, pool))


def _popularity_shift(items: Counts, usual: float) -> Figure:
    """The last column against the others; usual is what other days show or chance, if larger."""
    binned, pool = popularity_bins(items[:, -1], items[:, :-1].sum(axis=1))
    distance = jensen_shannon_distance(binned, pool)
    usual = max(usual, chance_distance(binned, pool))
    return Figure(distance, usual, distance - usual)


def _excess(figure: Callable[[Counts, Counts], float], counts: Counts) -> Figure:
    """A figure of the last column, and what it is of the columns before it."""
    trailing = counts[:, :-1]
    value = figure(counts[:, -1], trailing.sum(axis=1))
    usual = median(figure(*pair) for pair in _each_against_others(trailing))
    return Figure(value, usual, value - usual)
