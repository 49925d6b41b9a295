"""NDCG@10 on validation events, full catalogue; it decides early stopping and the kept weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recsys_core.data.histories.cases import (
    Cases,
    FloatArray,
    Ranker,
    candidate_mask,
    read_cases,
)
from recsys_core.evaluation.metrics import Values, mean_per_user, ndcg_at_k
from recsys_core.evaluation.popularity import cold_start_by_item
from recsys_core.evaluation.ranking import rank_with_biases
from recsys_core.models.ensemble import AnyRecommender
from recsys_core.models.ranker import model_ranker


class Validator:
    """Mean over users of NDCG@10 on a fixed set of validation cases.

    Args:
        buckets: History files, read in order until there are enough cases. A hash of the user
            assigns users to buckets, so the first buckets are a random sample.
        items: The catalogue in the order of item_idx, with `candidate_validation` and counts.
        exclude_seen: Whether items in the history are left out of the candidates.
        max_cases: Stop reading at this many cases.

    Attributes:
        user_ids: The user of each case.
        lengths: Number of events before each case's target.
        targets: item_idx of each case's target.

    Raises:
        ValueError: The validation window holds no event to rank.
    """

    def __init__(
        self,
        buckets: Sequence[Path],
        items: pl.DataFrame,
        *,
        exclude_seen: bool,
        max_cases: int,
    ) -> None:
        self._candidates = candidate_mask(items, "validation")
        self._cold_start = cold_start_by_item(items)
        self._exclude_seen = exclude_seen
        self._buckets: list[Cases] = []
        n_cases = 0
        for bucket in buckets:
            if n_cases >= max_cases:
                break
            cases = read_cases(bucket, items, "validation", exclude_seen=exclude_seen)
            self._buckets.append(cases)
            n_cases += len(cases)
        if not n_cases:
            msg = (
                "The validation window holds no event that could be recommended, so early stopping "
                "is impossible. Make prepare.validation_days longer or check the run date."
            )
            raise ValueError(msg)
        self.user_ids = [user for cases in self._buckets for user in cases.user_id]
        self.lengths = np.concatenate([cases.positions for cases in self._buckets])
        self.targets = np.concatenate([cases.targets for cases in self._buckets])

    def __call__(self, model: AnyRecommender) -> float:
        """Mean over users of NDCG@10."""
        return float(self.by_user(self.ranker(model)).mean())

    def ranker(self, model: AnyRecommender) -> Ranker:
        """Ranks as evaluation and serving do: an empty history gets recent popularity."""
        return model_ranker(model, self._cold_start)

    def by_user(self, ranker: Ranker) -> Values:
        """NDCG@10 of each user, always in the same order."""
        return mean_per_user(self.by_case(ranker), self.user_ids)

    def by_case(self, ranker: Ranker) -> Values:
        """NDCG@10 of each case."""
        return self._by_case(ranker, (None,))[0]

    def with_biases(self, ranker: Ranker, biases: Sequence[FloatArray | None]) -> list[Values]:
        """NDCG@10 of each user with each of these item biases added to the scores.

        Args:
            ranker: Scores each case once.
            biases: `[n_items + 1]` by item_idx; None for nothing.
        """
        return [mean_per_user(by_case, self.user_ids) for by_case in self._by_case(ranker, biases)]

    def _by_case(self, ranker: Ranker, biases: Sequence[FloatArray | None]) -> list[Values]:
        ranks = [
            rank_with_biases(
                ranker, cases, self._candidates, biases=biases, exclude_seen=self._exclude_seen
            )
            for cases in self._buckets
        ]
        return [ndcg_at_k(of_one, 10) for of_one in np.concatenate(ranks, axis=1)]
