"""The items on offer on a day of a synthetic world, by popularity and freshness."""

from typing import NamedTuple

import numpy as np

from recsys_core.synthetic.latent import FloatArray, IntArray, Latent, WorldConfig


class Market(NamedTuple):
    """The items on offer on a day, and their probabilities within each category.

    Attributes:
        items: Available items, grouped by category.
        starts: `[n_categories + 1]` where each category begins in `items`.
        cumulative: `[n_available + 1]` running sum of the items' weights.
    """

    items: IntArray
    starts: IntArray
    cumulative: FloatArray

    @property
    def item_probabilities(self) -> FloatArray:
        """`[n_available]` probability of each item, by item, given its own category."""
        weights = np.diff(self.cumulative)
        edges = self.cumulative[self.starts]
        totals = np.repeat(np.diff(edges), np.diff(self.starts))
        probabilities = np.empty(len(self.items))
        probabilities[self.items] = weights / totals
        return probabilities

    def pick(self, category: IntArray, uniform: FloatArray) -> IntArray:
        """An item of each category by inverse transform; -1 where the category is empty."""
        low, high = self.starts[category], self.starts[category + 1]
        edge = self.cumulative[low]
        level = edge + uniform * (self.cumulative[high] - edge)
        position = np.searchsorted(self.cumulative, level, side="right") - 1
        item = self.items[np.clip(position, low, np.maximum(high - 1, low)) % len(self.items)]
        return np.where(high > low, item, -1)


def open_market(config: WorldConfig, latent: Latent, day: int) -> Market:
    """The items on offer on a day."""
    n = config.items_on(day)
    age = day - latent.items.release_day[:n]
    freshness = 1 + config.freshness_boost * np.exp2(-age / config.freshness_half_life_days)
    category = latent.items.category[:n]
    items = np.argsort(category, kind="stable")
    weights = (latent.items.appeal[:n] * freshness)[items]
    return Market(
        items=items,
        starts=np.searchsorted(category[items], np.arange(config.n_categories + 1)),
        cumulative=np.concatenate(([0.0], np.cumsum(weights))),
    )
