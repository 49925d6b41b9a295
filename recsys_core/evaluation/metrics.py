"""Ranking metrics of cases that have one relevant item each; ranks count from 1."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.integer[Any]]
Values = NDArray[np.float64]
Metric = Callable[[Ranks], Values]
"""Turns the ranks of cases into one value in [0, 1] per case."""


def ndcg_at_k(ranks: Ranks, k: int) -> Values:
    """Normalised discounted cumulative gain: 1 / log2(rank + 1) within the first k, else 0.

    With one relevant item the ideal gain is 1, so there is nothing to normalise.

    >>> ndcg_at_k(np.array([1, 3, 11]), k=10).tolist()
    [1.0, 0.5, 0.0]

    Args:
        ranks: Rank of each case's target, from 1.
        k: Length of the recommended list.

    Returns:
        One value per case.

    Raises:
        ValueError: A rank or k is below 1.

    Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques".
    """
    _check(ranks, k)
    return np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0)


def recall_at_k(ranks: Ranks, k: int) -> Values:
    """1 where the target is among the first k, else 0; with one target also the hit rate.

    >>> recall_at_k(np.array([1, 3, 11]), k=10).tolist()
    [1.0, 1.0, 0.0]

    Raises:
        ValueError: A rank or k is below 1.
    """
    _check(ranks, k)
    return (ranks <= k).astype(np.float64)


def reciprocal_rank(ranks: Ranks) -> Values:
    """1 / rank, over the whole list; its mean is the MRR.

    Raises:
        ValueError: A rank is below 1.
    """
    _check(ranks, 1)
    return 1 / ranks.astype(np.float64)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "ndcg_at_10": partial(ndcg_at_k, k=10),
        "recall_at_10": partial(recall_at_k, k=10),
        "mrr": reciprocal_rank,
    }
)
"""The reported metrics by name."""


def mean_per_user(values: Values, user_ids: Sequence[str] | NDArray[Any]) -> Values:
    """Mean over each user's cases, so that a user with many cases counts once.

    >>> mean_per_user(np.array([1.0, 0.0, 0.5]), ["ann", "ann", "bob"]).tolist()
    [0.5, 0.5]

    Args:
        values: One value per case.
        user_ids: The user of each case, as ids or as codes.

    Returns:
        One mean per user, in ascending order of the user ids; empty if there are no cases.

    Raises:
        ValueError: There are not as many users as values.
    """
    if len(values) != len(user_ids):
        msg = f"Every value needs its user: got {len(values)} values and {len(user_ids)} users."
        raise ValueError(msg)
    users, user_of_case = np.unique(np.asarray(user_ids), return_inverse=True)
    sums = np.bincount(user_of_case, weights=values, minlength=len(users))
    return sums / np.bincount(user_of_case, minlength=len(users))


def _check(ranks: Ranks, k: int) -> None:
    if k < 1:
        msg = f"A list has at least 1 place, got k={k}."
        raise ValueError(msg)
    if ranks.size and ranks.min() < 1:
        msg = f"Ranks count from 1, found {ranks.min()}; a target that is absent ranks last, not 0."
        raise ValueError(msg)
