"""Slices on which a teacher ranks worse than a baseline: it should not be believed there.

The slices of validation cases are of two kinds:

- By history length. Both sides rank the same catalogue for the same users, so recent popularity is
  a fair baseline. Where the teacher is worse, its labels of positions with such a history don't
  count.
- By popularity of the target, which is selection by the outcome. A ranking that prefers popular
  items wins on head and loses on tail, whatever its merits, and popularity can never win on tail.
  So the baseline is item-kNN, and only tail decides. Head and mid are shown only. Where the teacher
  is worse, what it says of tail items counts at no position: both distributions are over the other
  items.

The cross-entropy, over all items, keeps its weight everywhere.

Source: Cui et al. 2024, "Distillation Matters" (DLLM2Rec), arXiv:2405.00338: in more than
30 % of the cases the teacher ranks worse than its student.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from recsys_core.evaluation.metrics import Values, mean_per_user
from recsys_core.evaluation.slices import popularity_groups
from recsys_core.evaluation.statistics import CONFIDENCE, paired_difference

PositionSlice = Literal["cold_users", "warm_users", "head", "mid", "tail"]
Baseline = Literal["popularity", "item_knn"]
"""What the teacher is compared with."""

BASELINES: Mapping[PositionSlice, Baseline] = MappingProxyType(
    {
        "cold_users": "popularity",
        "warm_users": "popularity",
        "head": "item_knn",
        "mid": "item_knn",
        "tail": "item_knn",
    }
)
DECIDING: frozenset[PositionSlice] = frozenset({"cold_users", "warm_users", "tail"})
"""The slices on which the teacher may be left out."""

_TITLES: Mapping[PositionSlice, str] = MappingProxyType(
    {
        "cold_users": "Cold users (at most {} events)",
        "warm_users": "Warm users (more than {} events)",
        "head": "Head items",
        "mid": "Mid items",
        "tail": "Tail items",
    }
)
_BASELINE_TITLES: Mapping[Baseline, str] = MappingProxyType(
    {"popularity": "recent popularity", "item_knn": "item-kNN"}
)


class PositionSlices:
    """The slices of positions; each position is in one by history and in one by target.

    A case that can't be a position of training, because its history is empty or its target has no
    training interaction, is in none.

    >>> slices = PositionSlices(np.array([6, 3, 1, 0]), cold_user_events=2)
    >>> masks = slices.of(np.array([0, 2, 3]), np.array([1, 2, 3]))
    >>> masks["cold_users"].tolist(), masks["mid"].tolist()
    ([False, True, False], [False, True, False])

    Args:
        train_count: `[n_items]` training interactions of item_idx 1 … n_items.
        cold_user_events: A user is cold after at most this many events.
    """

    def __init__(self, train_count: NDArray[np.int64], *, cold_user_events: int) -> None:
        self._groups = popularity_groups(train_count)
        self._is_trained = np.append(False, train_count > 0)
        self._cold_user_events = cold_user_events

    def title(self, name: PositionSlice) -> str:
        """A slice in words."""
        return _TITLES[name].format(self._cold_user_events)

    def of(
        self, lengths: NDArray[np.integer[Any]], targets: NDArray[np.integer[Any]]
    ) -> dict[PositionSlice, NDArray[np.bool_]]:
        """One mask per slice.

        Args:
            lengths: Events before each target in the user's whole history.
            targets: item_idx of the targets.
        """
        possible = (lengths > 0) & self._is_trained[targets]
        is_cold = lengths <= self._cold_user_events
        return {
            "cold_users": possible & is_cold,
            "warm_users": possible & ~is_cold,
            "head": possible & self._groups.head[targets],
            "mid": possible & self._groups.mid[targets],
            "tail": possible & self._groups.tail[targets],
        }


class SliceComparison(BaseModel):
    """The teacher and its baseline on one slice of the validation events.

    Attributes:
        slice: Which.
        baseline: What the teacher is compared with.
        n_cases: Number of events.
        n_users: Number of their users.
        teacher_ndcg_at_10: Mean over users.
        baseline_ndcg_at_10: The same of the baseline.
        difference: Teacher minus baseline.
        high: Upper confidence bound of the difference.
        worse: Whether the slice decides, has enough users, and `high` is below 0.
        sentence: The comparison in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slice: PositionSlice
    baseline: Baseline
    n_cases: int
    n_users: int
    teacher_ndcg_at_10: float
    baseline_ndcg_at_10: float
    difference: float
    high: float
    worse: bool
    sentence: str


def compare_slices(
    slices: PositionSlices,
    ndcg: Mapping[str, Values],
    *,
    user_ids: Sequence[str],
    lengths: NDArray[np.integer[Any]],
    targets: NDArray[np.integer[Any]],
    min_users: int,
    n_resamples: int,
) -> Iterator[SliceComparison]:
    """Compare the teacher with its baseline on each slice that has cases.

    Where it is worse beyond chance, its labels should not count at all. The ratio of both figures
    as their weight would change little, because the divergence weighs several times the
    cross-entropy. The confidence is that of `CONFIDENCE` for all deciding slices together.

    Args:
        slices: The slices.
        ndcg: NDCG@10 of each case, by "teacher", "popularity" and "item_knn".
        user_ids: The users of the cases.
        lengths: See `PositionSlices.of`.
        targets: See `PositionSlices.of`.
        min_users: With fewer users a slice decides nothing.
        n_resamples: Bootstrap samples of the users.
    """
    users = np.asarray(user_ids)
    for name, mask in slices.of(lengths, targets).items():
        if not mask.any():
            continue
        baseline = BASELINES[name]
        mine, other = (
            mean_per_user(ndcg[ranker][mask], users[mask]) for ranker in ("teacher", baseline)
        )
        confidence = 1 - (1 - CONFIDENCE) / len(DECIDING)
        difference = paired_difference(mine, other, confidence=confidence, n_resamples=n_resamples)
        yield SliceComparison(
            slice=name,
            baseline=baseline,
            n_cases=int(mask.sum()),
            n_users=len(mine),
            teacher_ndcg_at_10=float(mine.mean()),
            baseline_ndcg_at_10=float(other.mean()),
            difference=difference.mean,
            high=difference.high,
            worse=name in DECIDING and len(mine) >= min_users and difference.high < 0,
            sentence=f"{slices.title(name)}: the teacher's NDCG@10 is {mine.mean():.4f}, that of "
            f"{_BASELINE_TITLES[baseline]} {other.mean():.4f} (difference {difference.mean:+.4f}, "
            f"upper bound {difference.high:+.4f}, {len(mine):,} users).",
        )
