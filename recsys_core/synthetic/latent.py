"""The hidden state of a synthetic world: items, users and daily trends.

Arrivals and changes of a day are drawn from a generator of their own (seed, purpose, day), so a
longer world has the same days as a shorter one.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys_core.settings import Settings

IntArray = NDArray[np.int32 | np.int64]
FloatArray = NDArray[np.float64]

FAMILY_SIZE = 4
"""Categories per family: users who change category within a session stay in the family."""

SUCCESSOR_OFFSETS = (1, 2, 3)
SUCCESSOR_WEIGHTS = (0.65, 0.25, 0.10)
"""Probabilities of the next three items of a series for a user who continues it."""

_TREND_MEMORY = 0.97
_OLDEST_RELEASE_DAYS = 365
_TASTE_FLOOR = 1e-3


class WorldConfig(Settings):
    """Size and laws of a synthetic world, without the number of its days."""

    seed: int = Field(
        default=0, ge=0, description="Seed; two worlds with the same settings are equal."
    )
    n_users: int = Field(default=2_400, ge=1, description="Users on the first day.")
    n_items: int = Field(
        default=1_000, ge=1, description="Items in the catalogue on the first day."
    )
    n_categories: int = Field(default=16, ge=1, le=1_000, description="Item categories.")
    new_user_share: float = Field(
        default=0.01, ge=0, le=1, description="Users arriving each day, as a share of n_users."
    )
    new_item_share: float = Field(
        default=0.006, ge=0, le=1, description="Items arriving each day, as a share of n_items."
    )
    events_per_user_day: float = Field(
        default=2.0,
        gt=0,
        le=20,
        description="Mean number of events that a user attempts per day; without repeats, an "
        "attempt at an item of the user's history does not happen.",
    )
    zipf_exponent: float = Field(
        default=1.1,
        ge=0,
        le=3,
        description="Popularity of the n-th item is proportional to n to minus this.",
    )
    taste_concentration: float = Field(
        default=0.2,
        ge=0.01,
        le=100,
        description="Dirichlet concentration of tastes; small: few categories per user.",
    )
    successor_probability: float = Field(
        default=0.3,
        ge=0,
        lt=1,
        description="Probability that the next item continues the series of one of the last two.",
    )
    transition_probability: float = Field(
        default=0.3,
        ge=0,
        lt=1,
        description="Without a series: probability that the next category follows from that of one "
        "of the last two items, not from taste.",
    )
    series_length: int = Field(default=8, ge=4, le=100, description="Items per series.")
    trend_drift: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Standard deviation of the daily change of a category's log appeal.",
    )
    freshness_boost: float = Field(
        default=2.0,
        ge=0,
        le=100,
        description="Extra appeal of an item on its release day, as a multiple of its own.",
    )
    freshness_half_life_days: float = Field(
        default=7.0, gt=0, le=365, description="Days in which the extra appeal halves."
    )
    purchase_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Probability that an event in the user's favourite category is a purchase, "
        "not a click; lower in other categories, in proportion to taste.",
    )
    modalities: bool = Field(
        default=False,
        description="Add two columns of item vectors, text and image; some items lack them.",
    )
    allow_repeats: bool = Field(
        default=False,
        description="Allow a user to have an item several times; faster for very large worlds.",
    )

    def users_on(self, day: int) -> int:
        """Users that have arrived by a day (0 = the first)."""
        return self.n_users + round(self.n_users * self.new_user_share * day)

    def items_on(self, day: int) -> int:
        """Items that are available on a day (0 = the first)."""
        return self.n_items + round(self.n_items * self.new_item_share * day)


class Purpose(IntEnum):
    """Purpose of a random generator; part of its seed, so the numbers must not change."""

    ITEMS = 1
    USERS = 2
    TREND = 3
    TRANSITIONS = 4
    EVENTS = 5
    MODALITIES = 6


def generator(config: WorldConfig, purpose: Purpose, day: int = 0) -> np.random.Generator:
    """The random generator of one purpose on one day."""
    return np.random.default_rng([config.seed, int(purpose), day])


class Items(NamedTuple):
    """One row per item, in order of arrival.

    Attributes:
        category: Category of the item.
        series: Number of its series within the category.
        number: Place in the series, from 0.
        appeal: Popularity weight without freshness.
        release_day: Day from which it is available, below 0 for the initial catalogue.
        successors: `[n_items, 3]` items of the same series at SUCCESSOR_OFFSETS, counted in a
            circle; -1 where the series does not go that far yet.
    """

    category: IntArray
    series: IntArray
    number: IntArray
    appeal: FloatArray
    release_day: IntArray
    successors: IntArray


class Users(NamedTuple):
    """One row per user, in order of arrival.

    Attributes:
        taste: `[n_users, n_categories]` preference for each category, rows sum to 1.
        activity: Factor on the mean number of events, 1 on average.
    """

    taste: NDArray[np.float32]
    activity: NDArray[np.float32]


class Latent(NamedTuple):
    """The hidden state of a world over its days.

    Attributes:
        items: Items that arrive on or before the last day.
        users: Users that arrive on or before the last day.
        trend: `[n_days, n_categories]` positive factors on the categories' appeal.
        transitions: `[n_categories, n_categories]` category of the next item given the last one's.
    """

    items: Items
    users: Users
    trend: FloatArray
    transitions: FloatArray


def build_latent(config: WorldConfig, n_days: int) -> Latent:
    """The hidden state of a world of some number of days."""
    return Latent(
        _items(config, n_days), _users(config, n_days), _trend(config, n_days), _transitions(config)
    )


def _items(config: WorldConfig, n_days: int) -> Items:
    categories: list[IntArray] = []
    ranks: list[IntArray] = []
    releases: list[IntArray] = []
    for day in range(n_days):
        rng = generator(config, Purpose.ITEMS, day)
        n_new = config.items_on(day) - (config.items_on(day - 1) if day else 0)
        categories.append(rng.integers(config.n_categories, size=n_new, dtype=np.int32))
        if day == 0:
            ranks.append(rng.permutation(n_new) + 1)
            releases.append(-rng.integers(_OLDEST_RELEASE_DAYS, size=n_new, dtype=np.int32))
        else:
            ranks.append(rng.integers(1, config.n_items, size=n_new, endpoint=True))
            releases.append(np.full(n_new, day, np.int32))
    category = np.concatenate(categories)
    place = _place_in_group(category, config.n_categories)
    return Items(
        category=category,
        series=place // config.series_length,
        number=place % config.series_length,
        appeal=np.concatenate(ranks).astype(np.float64) ** -config.zipf_exponent,
        release_day=np.concatenate(releases),
        successors=_successors(category, place, config),
    )


def _place_in_group(group: IntArray, n_groups: int) -> NDArray[np.int64]:
    """How many earlier elements are in the same group."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(n_groups))
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - starts[group[order]]
    return place


def _successors(category: IntArray, place: NDArray[np.int64], config: WorldConfig) -> IntArray:
    order = np.argsort(category, kind="stable")
    bounds = np.searchsorted(category[order], np.arange(config.n_categories + 1))
    first_of_series = place - place % config.series_length
    columns: list[IntArray] = []
    for offset in SUCCESSOR_OFFSETS:
        target = first_of_series + (place + offset) % config.series_length
        position = bounds[category] + target
        exists = position < bounds[category + 1]
        successor = order[np.where(exists, position, 0)]
        columns.append(np.where(exists, successor, -1).astype(np.int32))
    return np.stack(columns, axis=1)


def _users(config: WorldConfig, n_days: int) -> Users:
    tastes: list[NDArray[np.float32]] = []
    activities: list[NDArray[np.float32]] = []
    for day in range(n_days):
        rng = generator(config, Purpose.USERS, day)
        n_new = config.users_on(day) - (config.users_on(day - 1) if day else 0)
        shape = (n_new, config.n_categories)
        taste = rng.standard_gamma(config.taste_concentration, shape, dtype=np.float32)
        taste += _TASTE_FLOOR
        tastes.append(taste / taste.sum(axis=1, keepdims=True))
        activities.append(rng.standard_exponential(n_new, dtype=np.float32))
    return Users(np.concatenate(tastes), np.concatenate(activities))


def _trend(config: WorldConfig, n_days: int) -> FloatArray:
    """A mean-reverting random walk of the categories' log appeal, in its steady state."""
    log_trend = np.empty((n_days, config.n_categories))
    for day in range(n_days):
        step = generator(config, Purpose.TREND, day).standard_normal(config.n_categories)
        step *= config.trend_drift
        if day == 0:
            log_trend[day] = step / np.sqrt(1 - _TREND_MEMORY**2)
        else:
            log_trend[day] = _TREND_MEMORY * log_trend[day - 1] + step
    return np.exp(log_trend)


def _transitions(config: WorldConfig) -> FloatArray:
    """Half of the time the same category, otherwise one of its family by fixed preferences."""
    n = config.n_categories
    family = np.arange(n) // FAMILY_SIZE
    preference = generator(config, Purpose.TRANSITIONS).standard_exponential((n, n)) ** 2
    preference *= family[:, None] == family[None, :]
    return 0.5 * np.eye(n) + 0.5 * preference / preference.sum(axis=1, keepdims=True)
