"""Popularity: a baseline that a model has to beat, and the answer to an empty history."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.histories.cases import FloatArray, IntArray, Ranker

Counts = NDArray[np.int64]


def popularity_ranker(recent_count: Counts, train_count: Counts | None = None) -> Ranker:
    """Rank by recent interactions, equal ones by all training interactions; the same for all users.

    Args:
        recent_count: `[n_items]` interactions of item_idx 1 … n_items in the recent window.
        train_count: `[n_items]` interactions of the whole training period; a short window leaves
            most items with equal counts, which would make too weak a baseline.

    Returns:
        A ranker whose scores are ranks from the bottom: 0 for the least popular; equal counts have
        equal scores.

    >>> popularity_ranker(np.array([5, 9, 5]))([[], [2]]).tolist()  # column 0 is the padding
    [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    scores = popularity_scores(recent_count, train_count)

    def rank(histories: Sequence[IntArray]) -> FloatArray:
        return np.broadcast_to(scores, (len(histories), len(scores)))

    return rank


def cold_start_scores(items: pl.DataFrame) -> FloatArray:
    """Scores for an empty history: recent popularity, as ranks from the bottom, from 1.

    Equal counts are ordered by all training interactions, then by item_idx. So no two scores are
    equal, and the served order is the evaluated one.

    Args:
        items: `item_idx`, `train_count`, `recent_count`.

    Returns:
        One score per row; float32 holds them exactly up to 16 million items.
    """
    place = pl.struct("recent_count", "train_count", -pl.col("item_idx")).rank("ordinal")
    return items.select(place.cast(pl.Float32).alias("place"))["place"].to_numpy()


def cold_start_by_item(items: pl.DataFrame) -> FloatArray:
    """`[n_items + 1]`: `cold_start_scores` of the whole catalogue, 0 for the padding.

    Args:
        items: The catalogue in the order of item_idx.
    """
    return np.append(np.float32(0), cold_start_scores(items))


def popularity_scores(count: Counts, then_count: Counts | None) -> FloatArray:
    """`[n_items + 1]`: dense ranks from 0, which float32 holds exactly however large the counts."""
    columns = [count] if then_count is None else [count, then_count]
    order = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1]
    return np.append(0, order.ravel()).astype(np.float32)
