"""How a synthetic world draws events: as exact probabilities and as a simulation.

Each attempt has an anchor: the last item or, less often, the one before. With
`successor_probability` the attempt continues the anchor's series. Otherwise its category follows
from the anchor's with `transition_probability`, or from taste and trend, and the item is drawn by
popularity and freshness. An attempt at an item that is not released yet, or that the user has had,
does not happen and changes nothing. So the law of an event is the law of an attempt, restricted to
the possible items and scaled to sum to 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_core.data.schema import MICROSECONDS_PER_DAY
from recsys_core.synthetic.latent import (
    SUCCESSOR_WEIGHTS,
    FloatArray,
    IntArray,
    Latent,
    Purpose,
    WorldConfig,
    generator,
)
from recsys_core.synthetic.market import Market, open_market

LAST_ITEM_WEIGHT = 0.7
"""Probability that the last item is the anchor; otherwise it is the item before the last."""

_SUCCESSOR_EDGES: FloatArray = np.cumsum(SUCCESSOR_WEIGHTS)[:-1]
_BURSTINESS = 0.25  # gamma shape of a user's attempts on a day: small = rare, long visits
_MOST_ATTEMPTS_A_DAY = 100
_LONG_GAP_SHARE = 0.15
_LONG_GAP = 60.0  # in mean short gaps: what separates two sessions


@dataclass(frozen=True)
class Day:
    """All that the law of a day depends on, except for the users' histories.

    Attributes:
        config: Laws of the world.
        latent: Hidden state, through this day at least.
        number: Day, 0 = the first.
        market: Items on offer.
    """

    config: WorldConfig
    latent: Latent
    number: int
    market: Market

    @classmethod
    def open(cls, config: WorldConfig, latent: Latent, number: int) -> "Day":
        """The day with this number."""
        return cls(config, latent, number, open_market(config, latent, number))

    def taste(self, users: IntArray) -> FloatArray:
        """`[batch, n_categories]` category probabilities by taste and the day's trend."""
        appeal = self.latent.users.taste[users] * self.latent.trend[self.number]
        return appeal / appeal.sum(axis=1, keepdims=True)


class DayEvents(NamedTuple):
    """Events of a day, one element per event, by time and then user.

    Attributes:
        day: Day, 0 = the first.
        user: User of the event.
        item: Item of the event.
        microsecond: Time since the day's midnight, strictly increasing within a user.
        purchase: Whether it was a purchase, not a click.
    """

    day: int
    user: IntArray
    item: IntArray
    microsecond: IntArray
    purchase: NDArray[np.bool_]


def attempt_probabilities(
    day: Day, users: IntArray, last: IntArray, before_last: IntArray
) -> FloatArray:
    """`[batch, available items]` probability that an attempt lands on each item.

    The rest to 1 is the probability of items not released yet and of empty categories.

    Args:
        day: The day of the attempt.
        users: `[batch]` users.
        last: `[batch]` last item, -1 without one.
        before_last: `[batch]` the item before, `last` where there is none.
    """
    config, items = day.config, day.latent.items
    n_available = len(day.market.items)
    started = last >= 0
    anchors = ((last, LAST_ITEM_WEIGHT), (before_last, 1 - LAST_ITEM_WEIGHT))
    by_category = day.taste(users)
    by_category[started] *= 1 - config.transition_probability
    for anchor, weight in anchors:
        transition = day.latent.transitions[items.category[anchor[started]]]
        by_category[started] += config.transition_probability * weight * transition
    probabilities = by_category[:, items.category[:n_available]] * day.market.item_probabilities
    probabilities[started] *= 1 - config.successor_probability
    for anchor, weight in anchors:
        for column, share in enumerate(SUCCESSOR_WEIGHTS):
            successor = items.successors[anchor, column]
            rows = np.flatnonzero(started & (successor >= 0) & (successor < n_available))
            probabilities[rows, successor[rows]] += config.successor_probability * weight * share
    return probabilities


def simulate(config: WorldConfig, latent: Latent, n_days: int) -> Iterator[DayEvents]:
    """Events day by day."""
    memory = _Memory(config.users_on(n_days - 1))
    for number in range(n_days):
        yield _simulate_day(Day.open(config, latent, number), memory)
        memory.end_day()


class _Memory:
    """Items of users so far: the last two and, unless repeats are allowed, all pairs."""

    def __init__(self, n_users: int) -> None:
        self.last = np.full(n_users, -1, np.int32)
        self.before_last = np.full(n_users, -1, np.int32)
        self._past = np.empty(0, np.int64)
        self._today = np.empty(0, np.int64)

    def has_seen(self, users: IntArray, items: IntArray) -> NDArray[np.bool_]:
        keys = _pair_keys(users, items)
        return _contains(self._past, keys) | _contains(self._today, keys)

    def add(self, users: IntArray, items: IntArray, *, pairs: bool) -> None:
        self.before_last[users] = np.where(self.last[users] < 0, items, self.last[users])
        self.last[users] = items
        if pairs:
            self._today = _merge(self._today, _pair_keys(users, items))

    def end_day(self) -> None:
        self._past = _merge(self._past, self._today)
        self._today = np.empty(0, np.int64)


def _pair_keys(users: IntArray, items: IntArray) -> NDArray[np.int64]:
    return users.astype(np.int64) << 32 | items.astype(np.int64)


def _contains(ordered: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(keys), np.bool_)
    return ordered[np.searchsorted(ordered, keys) % len(ordered)] == keys


def _merge(ordered: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.sort(np.concatenate((ordered, keys)), kind="stable")


def _simulate_day(day: Day, memory: _Memory) -> DayEvents:
    """In step k every user with more than k attempts on the day makes the k-th one."""
    config = day.config
    rng = generator(config, Purpose.EVENTS, day.number)
    visitors, attempts = _visitors(rng, day)
    times = _attempt_times(rng, attempts)
    first_attempt = np.cumsum(attempts) - attempts
    taste = np.cumsum(day.taste(visitors), axis=1)
    transitions = np.cumsum(day.latent.transitions, axis=1)
    nothing = np.empty(0, np.int64)
    users: list[IntArray] = [nothing]
    items: list[IntArray] = [nothing]
    places: list[NDArray[np.int64]] = [nothing]
    for step in range(attempts.max(initial=0)):
        n_present = np.searchsorted(-attempts, -step)
        present = visitors[:n_present]
        wanted = _attempt(
            rng,
            day,
            taste[:n_present],
            transitions,
            memory.last[present],
            memory.before_last[present],
        )
        happens = (wanted >= 0) & (wanted < len(day.market.items))
        if not config.allow_repeats:
            happens &= ~memory.has_seen(present, wanted)
        memory.add(present[happens], wanted[happens], pairs=not config.allow_repeats)
        users.append(present[happens])
        items.append(wanted[happens])
        places.append(first_attempt[:n_present][happens] + step)
    user, item = np.concatenate(users), np.concatenate(items)
    microsecond = times[np.concatenate(places)]
    order = np.lexsort((user, microsecond))
    user, item = user[order], item[order]
    return DayEvents(day.number, user, item, microsecond[order], _purchases(rng, day, user, item))


def _visitors(rng: np.random.Generator, day: Day) -> tuple[IntArray, IntArray]:
    """Users who come on a day and the number of their attempts, most first.

    A user who arrives on a day comes on that day.
    """
    n_users = day.config.users_on(day.number)
    activity = day.latent.users.activity[:n_users]
    burst = rng.standard_gamma(_BURSTINESS, n_users) / _BURSTINESS
    attempts = rng.poisson(day.config.events_per_user_day * activity * burst)
    if day.number > 0:
        arrived = slice(day.config.users_on(day.number - 1), n_users)
        attempts[arrived] = np.maximum(attempts[arrived], 1)
    attempts = np.minimum(attempts, _MOST_ATTEMPTS_A_DAY)
    visitors = np.argsort(-attempts, kind="stable")[: np.count_nonzero(attempts)]
    return visitors, attempts[visitors]


def _attempt_times(rng: np.random.Generator, attempts: IntArray) -> IntArray:
    """Microseconds of all attempts, user by user: sessions of short gaps between long ones."""
    n_gaps = attempts + 1  # before each attempt, and after the last one
    ends = np.cumsum(n_gaps)
    begins = ends - n_gaps
    gaps = rng.standard_exponential(int(n_gaps.sum()))
    gaps[rng.random(len(gaps)) < _LONG_GAP_SHARE] *= _LONG_GAP
    gaps[begins] *= _LONG_GAP
    gaps[ends - 1] *= _LONG_GAP
    elapsed = np.concatenate(([0.0], np.cumsum(gaps)))
    total = elapsed[ends] - elapsed[begins]
    share = (elapsed[1:] - np.repeat(elapsed[begins], n_gaps)) / np.repeat(total, n_gaps)
    # Each attempt adds a microsecond, which keeps the order strict after rounding.
    place = np.arange(len(gaps)) - np.repeat(begins, n_gaps)
    room = MICROSECONDS_PER_DAY - _MOST_ATTEMPTS_A_DAY - 1
    return np.delete((share * room).astype(np.int64) + place, ends - 1)


def _attempt(
    rng: np.random.Generator,
    day: Day,
    taste: FloatArray,
    transitions: FloatArray,
    last: IntArray,
    before_last: IntArray,
) -> IntArray:
    """`[batch]` item of each attempt by the law; -1 or beyond the market for none.

    Args:
        rng: The day's generator.
        day: The day of the attempt.
        taste: `[batch, n_categories]` running sums of the users' category probabilities.
        transitions: `[n_categories, n_categories]` running sums of the categories' successors.
        last: `[batch]` last item, -1 without one.
        before_last: `[batch]` the item before, `last` where there is none.
    """
    config, items = day.config, day.latent.items
    which, continues, follows, level, place = rng.random((5, len(last)))
    anchor = np.where(which < LAST_ITEM_WEIGHT, last, before_last)
    column = np.count_nonzero(place[:, None] >= _SUCCESSOR_EDGES, axis=1)
    in_context = (follows < config.transition_probability) & (last >= 0)
    edges = np.where(in_context[:, None], transitions[items.category[anchor]], taste)
    category = np.count_nonzero(level[:, None] >= edges[:, :-1], axis=1)
    in_series = (continues < config.successor_probability) & (last >= 0)
    return np.where(in_series, items.successors[anchor, column], day.market.pick(category, place))


def _purchases(
    rng: np.random.Generator, day: Day, users: IntArray, items: IntArray
) -> NDArray[np.bool_]:
    """Which events are purchases: most likely in the user's favourite category."""
    taste = day.latent.users.taste[users]
    liking = taste[np.arange(len(users)), day.latent.items.category[items]] / taste.max(axis=1)
    return rng.random(len(users)) < day.config.purchase_share * liking
