"""Which of several students ships: the smallest that ranks nearly as well as the best."""

from collections.abc import Mapping
from typing import NamedTuple

from recsys_core.evaluation.metrics import Values
from recsys_core.evaluation.statistics import paired_difference


class Candidate(NamedTuple):
    """A student that could ship: its bytes on disk, and NDCG@10 of each user."""

    size_bytes: int
    ndcg_at_10: Values


class Judged(NamedTuple):
    """How far a student is from the best one: the difference's lower bound, and the verdict."""

    low: float
    is_good_enough: bool


def judge(candidates: Mapping[str, Candidate], *, max_loss: float) -> dict[str, Judged]:
    """Compare each student with the best one, over the same users.

    A student is good enough if the lower bound of its difference, one-sided at 95 %, is at most the
    allowed share of the best one's NDCG@10 below zero. In doubt a larger one ships.

    Args:
        candidates: The students by name.
        max_loss: Share of the best one's NDCG@10 that a student may lose.
    """
    best = max(candidates.values(), key=lambda candidate: float(candidate.ndcg_at_10.mean()))
    allowed = -max_loss * float(best.ndcg_at_10.mean())
    judged: dict[str, Judged] = {}
    for name, candidate in candidates.items():
        is_best = candidate is best
        low = 0.0 if is_best else paired_difference(candidate.ndcg_at_10, best.ndcg_at_10).low
        judged[name] = Judged(low, is_best or low >= allowed)
    return judged


def smallest(candidates: Mapping[str, Candidate], judged: Mapping[str, Judged]) -> str:
    """Name of the smallest student that is good enough; of equal ones, the first."""
    good = [name for name in candidates if judged[name].is_good_enough]
    return min(good, key=lambda name: candidates[name].size_bytes)
