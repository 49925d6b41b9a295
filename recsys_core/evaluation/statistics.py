"""Bootstrap over users: confidence bounds of a mean, or of the difference of two means."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_core.evaluation.metrics import METRICS, Ranks, Values, mean_per_user

CONFIDENCE = 0.95
N_RESAMPLES = 2_000
_CHUNK_CELLS = 4_000_000


class Interval(NamedTuple):
    """A mean and its confidence bounds; all NaN where there are no values."""

    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """The figures by name; NaN becomes null, because JSON has no NaN."""
        return {name: None if isnan(x) else x for name, x in self._asdict().items()}


def bootstrap_mean(
    values: Values,
    *,
    confidence: float = CONFIDENCE,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of the users' values with a two-sided percentile interval.

    Args:
        values: One value per user.
        confidence: Probability that the interval covers the mean, between 0 and 1.
        n_resamples: Number of samples of the users that are drawn with replacement.
        seed: Seed of the draws; equal seeds draw the same users.

    Raises:
        ValueError: `confidence` is not between 0 and 1, or `n_resamples` is below 1.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    tail = (1 - confidence) / 2
    return _intervals(values[:, None], tail, n_resamples, seed)[0]


def paired_difference(
    a: Values,
    b: Values,
    *,
    confidence: float = CONFIDENCE,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """mean(a) - mean(b) over the same users, each bound one-sided.

    A test of non-inferiority compares `low` with -margin: the true difference lies below `low` with
    probability 1 - confidence. Both bounds together hold with 2 × confidence - 1.

    >>> student = np.array([0.5, 0.4, 0.6, 0.3])
    >>> teacher = np.array([0.5, 0.5, 0.6, 0.4])
    >>> difference = paired_difference(student, teacher)
    >>> round(difference.mean, 3), bool(difference.low > -0.2)
    (-0.05, True)

    Args:
        a: One value per user.
        b: The other model's values, of the same users in the same order.
        confidence: Confidence of either bound.
        n_resamples: Number of samples of the users that are drawn with replacement.
        seed: Seed of the draws.

    Raises:
        ValueError: `a` and `b` differ in length, or see `bootstrap_mean`.
    """
    if a.shape != b.shape:
        msg = f"Pairs need the same users on both sides, got {len(a)} and {len(b)} values."
        raise ValueError(msg)
    return _intervals((a - b)[:, None], 1 - confidence, n_resamples, seed)[0]


def summarise(
    ranks: Mapping[str, Ranks],
    user_ids: Sequence[str] | NDArray[Any],
    *,
    confidence: float = CONFIDENCE,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """All metrics of all models over the same cases, from one set of resamples.

    Args:
        ranks: Ranks of the cases, by model.
        user_ids: The users of the cases.
        confidence: Confidence of the two-sided intervals.
        n_resamples: Number of samples of the users.
        seed: Seed of the draws.

    Returns:
        By model: `n_users` and, by metric, `mean`, `low`, `high` (null where there are no cases).
    """
    codes = np.unique(np.asarray(user_ids), return_inverse=True)[1]
    columns = [
        mean_per_user(metric(model_ranks), codes)
        for model_ranks in ranks.values()
        for metric in METRICS.values()
    ]
    if not columns:
        return {}
    tail = (1 - confidence) / 2
    intervals = iter(_intervals(np.stack(columns, axis=1), tail, n_resamples, seed))
    n_users = len(columns[0])
    return {
        model: {"n_users": n_users} | {metric: next(intervals).as_json() for metric in METRICS}
        for model in ranks
    }


def _intervals(values: Values, tail: float, n_resamples: int, seed: int) -> list[Interval]:
    """One interval per column, with the share `tail` of the resampled means beyond either bound."""
    if not 0 < tail < 1 or n_resamples < 1:
        msg = (
            "A bootstrap needs a confidence between 0 and 1 and at least one resample, got "
            f"{n_resamples} resamples with {tail:.3g} of them beyond either bound."
        )
        raise ValueError(msg)
    if not len(values):
        return [Interval(np.nan, np.nan, np.nan)] * values.shape[1]
    low, high = np.quantile(_resampled_means(values, n_resamples, seed), [tail, 1 - tail], axis=0)
    return [
        Interval(float(mean), float(lower), float(upper))
        for mean, lower, upper in zip(values.mean(axis=0), low, high, strict=True)
    ]


def _resampled_means(values: Values, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """`[n_resamples, columns]`; draws are counted per user: one matrix product gives all means."""
    random = np.random.default_rng(seed)
    n_users = len(values)
    chunk = max(1, _CHUNK_CELLS // n_users)
    means: list[NDArray[np.float64]] = []
    for begin in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - begin)
        drawn = random.integers(0, n_users, (size, n_users)) + n_users * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n_users).reshape(size, n_users)
        means.append(counts @ values / n_users)
    return np.concatenate(means)
