"""A day of interactions as counts, and how far it is from the days before it.

All figures are functions of counts, so each can be checked by hand.
"""

# SciPy ships no types, and its sources infer badly.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import log
from statistics import median
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr

FEWEST_ROWS = 100
"""With fewer rows (or users) chance alone moves a figure too far to draw a conclusion."""

N_POPULAR = 1000
"""Items that have a bin of their own in the popularity shift; the others share one."""

_CHANCE_DRAWS = 5
_EXPECTED_OF_LOST = 20
_LOST_BELOW = 0.1

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class DayProfile:
    """The counts of a day.

    Attributes:
        day: The date.
        n_rows: Number of its rows.
        n_users: Number of its users.
        events: Number of rows by kind of event.
        items: `item` and `rows`, one row per item. `item` is a hash of the id: half as long as the
            id and twice as fast to count.
    """

    day: date
    n_rows: int
    n_users: int
    events: dict[str, int]
    items: pl.DataFrame


class DayFigure(NamedTuple):
    """A figure of a day.

    Attributes:
        value: The figure.
        usual: The same figure on the trailing days.
        deviation: Value relative to the usual: their ratio for numbers of rows and users, their
            difference for shares and distances.
    """

    value: float
    usual: float
    deviation: float


@dataclass(frozen=True)
class Comparison:
    """A day compared with the trailing days; a figure is None where there are too few rows.

    Attributes:
        day: The date.
        trailing: The dates that it is compared with.
        rows: Number of rows, see `volume`.
        users: Number of users, see `volume`.
        new_item_share: Share of the rows whose item occurs on no trailing day.
        event_mix: Largest absolute change of a kind's share of the rows.
        popularity_shift: Distance between the popularity of the items, 0 to 1.
        lost_events: Kinds with less than a tenth of their expected rows.
        new_events: Kinds that occur on no trailing day.
        shifts: Popularity distance of each of these days from the other trailing days.
    """

    day: date
    trailing: tuple[date, ...]
    rows: DayFigure | None
    users: DayFigure | None
    new_item_share: DayFigure | None
    event_mix: DayFigure | None
    popularity_shift: DayFigure | None
    lost_events: tuple[str, ...]
    new_events: tuple[str, ...]
    shifts: dict[date, float]


def profile_day(rows: pl.LazyFrame, day: date) -> DayProfile:
    """Count the rows of a day.

    Args:
        rows: Interactions of the day; only user_id, item_id and event_type are read.
        day: The date.
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
    """Compare a day with the trailing days.

    The usual value of a share or distance is its median over the trailing days, each compared with
    the others in the same way. So a shop whose days always differ much raises no alarm.

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
        trailing=tuple(past.day for past in trailing),
        rows=volume(day.day, day.n_rows, {past.day: past.n_rows for past in trailing}),
        users=volume(day.day, day.n_users, {past.day: past.n_users for past in trailing}),
        new_item_share=_excess(new_item_share, items) if enough else None,
        event_mix=_excess(largest_change, events) if enough else None,
        popularity_shift=shift if enough else None,
        lost_events=tuple(kinds[at] for at in lost_kinds(events[:, -1], usual_events)),
        new_events=tuple(kinds[at] for at in np.flatnonzero(usual_events == 0)),
        shifts=dict(
            zip([profile.day for profile in (*trailing, day)], [*shifts, shift.value], strict=True)
        ),
    )


def aligned_counts(days: Sequence[DayProfile]) -> Counts:
    """`[n_items, n_days]` rows of each item on each day, by `item`."""
    stacked = pl.concat(
        [
            profile.items.with_columns(at=pl.lit(at, dtype=pl.UInt16))
            for at, profile in enumerate(days)
        ]
    )
    at_item = stacked["item"].rank("dense").to_numpy() - 1
    counts = np.zeros((stacked["item"].n_unique(), len(days)), np.int64)
    counts[at_item, stacked["at"].to_numpy()] = stacked["rows"].to_numpy()
    return counts


def volume(day: date, value: int, trailing: Mapping[date, int]) -> DayFigure | None:
    """A number of rows or users as a multiple of the usual.

    The usual number is the median of the trailing days or the number a week before, whichever is
    nearer: for a shop that is closed on Sundays, a Sunday is compared with the last Sunday.

    Returns:
        None if both are below FEWEST_ROWS.
    """
    choices = [median(trailing.values())]
    if (week_before := trailing.get(day - timedelta(days=7))) is not None:
        choices.append(week_before)
    usual = min(choices, key=lambda choice: abs(log(value / choice)))
    return DayFigure(value, usual, value / usual) if max(value, usual) >= FEWEST_ROWS else None


def new_item_share(day: Counts, pool: Counts) -> float:
    """Share of a day's rows whose item does not occur on the other days.

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

    A kind is lost if its share on the other days predicts at least 20 rows and the day has less
    than a tenth of them.

    Args:
        day: `[n_kinds]` rows of each kind of event on the day.
        pool: `[n_kinds]` rows of the same kinds on the other days.
    """
    expected = day.sum() * pool / pool.sum()
    lost = (expected >= _EXPECTED_OF_LOST) & (day < _LOST_BELOW * expected)
    return [int(at) for at in np.flatnonzero(lost)]


def popularity_bins(day: Counts, pool: Counts, n_popular: int = N_POPULAR) -> tuple[Counts, Counts]:
    """Counts of items in few bins, so that two popularity distributions can be compared.

    Args:
        day: `[n_items]` rows of each item on the day.
        pool: `[n_items]` rows of the same items on the other days.
        n_popular: Items that have a bin of their own.

    Returns:
        Counts of the day and of the pool: one bin for each of the pool's most popular items (ties
        by position), one for its other items, and one for items that the pool lacks.
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

    Args:
        p: `[n_bins]` counts or probabilities, not all 0.
        q: `[n_bins]` counts or probabilities of the other distribution.

    Source: Lin 1991, IEEE Transactions on Information Theory 37 (1), pages 145-151.
    """
    # The estimate is biased: n draws from k bins never match their distribution exactly, so the
    # distance between samples of one law is about sqrt((k - 1) / (8 n ln 2)), not 0. That is why
    # items are binned (`popularity_bins`), and why a day is compared with the usual distance and
    # with that of chance alone (`chance_distance`), not with 0.
    one, other = (np.asarray(counts, float) / np.sum(counts) for counts in (p, q))
    middle = (one + other) / 2
    nats = (rel_entr(one, middle).sum() + rel_entr(other, middle).sum()) / 2
    # Rounding may take it out of [0, 1]; SciPy's `jensenshannon` then gives NaN.
    return float(np.sqrt(np.clip(nats / log(2), 0, 1)))


def chance_distance(day: Counts, pool: Counts) -> float:
    """Distance that chance alone makes: the mean over samples of the pool as large as the day.

    Args:
        day: `[n_bins]` counts of the day; only their sum matters.
        pool: `[n_bins]` counts of the other days.
    """
    random = np.random.default_rng(0)
    draws = random.multinomial(int(day.sum()), pool / pool.sum(), size=_CHANCE_DRAWS)
    return float(np.mean([jensen_shannon_distance(draw, pool) for draw in draws]))


def _event_counts(days: Sequence[DayProfile]) -> tuple[list[str], Counts]:
    """The kinds of events and `[n_kinds, n_days]` rows of each kind on each day."""
    kinds = sorted({kind for profile in days for kind in profile.events})
    return kinds, np.array([[profile.events.get(kind, 0) for profile in days] for kind in kinds])


def _each_against_others(counts: Counts) -> Iterator[tuple[Counts, Counts]]:
    """Each column, and the sum of the other ones."""
    total = counts.sum(axis=1)
    for column in counts.T:
        yield column, total - column


def _distance(day: Counts, pool: Counts) -> float:
    return jensen_shannon_distance(*popularity_bins(day, pool))


def _popularity_shift(items: Counts, usual: float) -> DayFigure:
    """The last column against the others; the usual distance is at least that of chance."""
    binned, pool = popularity_bins(items[:, -1], items[:, :-1].sum(axis=1))
    distance = jensen_shannon_distance(binned, pool)
    usual = max(usual, chance_distance(binned, pool))
    return DayFigure(distance, usual, distance - usual)


def _excess(figure: Callable[[Counts, Counts], float], counts: Counts) -> DayFigure:
    """A figure of the last column, and its usual value among the columns before it."""
    trailing = counts[:, :-1]
    value = figure(counts[:, -1], trailing.sum(axis=1))
    usual = median(figure(*pair) for pair in _each_against_others(trailing))
    return DayFigure(value, usual, value - usual)
