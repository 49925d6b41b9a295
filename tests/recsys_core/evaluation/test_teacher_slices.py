"""Slices of positions, and the rule that leaves labels out."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.evaluation.teacher_slices import (
    PositionSlice,
    PositionSlices,
    SliceComparison,
    compare_slices,
)

N_USERS = 200


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
)
def test_a_position_has_one_slice_by_history_and_one_by_target(
    train_count: list[int], cold_user_events: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 20, 30)
    targets = random.integers(1, len(train_count) + 1, 30)
    slices = PositionSlices(np.array(train_count), cold_user_events=cold_user_events)
    masks = slices.of(lengths, targets)
    possible = (lengths > 0) & (np.array(train_count)[targets - 1] > 0)
    np.testing.assert_array_equal(masks["cold_users"] ^ masks["warm_users"], possible)
    by_target = np.sum([masks[name] for name in ("head", "mid", "tail")], axis=0)
    np.testing.assert_array_equal(by_target, possible)
    np.testing.assert_array_equal(masks["cold_users"], possible & (lengths <= cold_user_events))


@pytest.fixture
def slices() -> PositionSlices:
    """Items 1, 2 and 3 are head, mid and tail; item 4 has no training interaction."""
    return PositionSlices(np.array([60, 35, 5, 0]), cold_user_events=10)


def _compared(
    slices: PositionSlices,
    ndcg: Mapping[str, np.ndarray],
    *,
    lengths: int = 5,
    target: int = 1,
    n_users: int = N_USERS,
    min_users: int = 50,
) -> dict[PositionSlice, SliceComparison]:
    """The comparisons of one case for each user."""
    compared = compare_slices(
        slices,
        {name: values[:n_users] for name, values in ndcg.items()},
        user_ids=[f"u{user:03d}" for user in range(n_users)],
        lengths=np.full(n_users, lengths),
        targets=np.full(n_users, target),
        min_users=min_users,
        n_resamples=500,
    )
    return {comparison.slice: comparison for comparison in compared}


def _ndcg(
    *, teacher: float, popularity: float = 0.0, item_knn: float = 0.0
) -> dict[str, np.ndarray]:
    """Each user has 1 or 0, and the given share of them has 1."""
    place = np.random.default_rng(2).permutation(N_USERS) / N_USERS
    shares = {"teacher": teacher, "popularity": popularity, "item_knn": item_knn}
    return {name: (place < share).astype(np.float64) for name, share in shares.items()}


@pytest.mark.parametrize(
    ("teacher", "popularity", "worse"),
    [(0.2, 0.3, True), (0.29, 0.3, False), (0.3, 0.3, False), (0.3, 0.2, False)],
    ids=["worse", "a little worse", "equal", "better"],
)
def test_a_slice_is_worse_if_chance_does_not_explain_it(
    slices: PositionSlices, teacher: float, popularity: float, *, worse: bool
) -> None:
    ndcg = _ndcg(teacher=teacher, popularity=popularity)
    cold = _compared(slices, ndcg, lengths=10)["cold_users"]
    warm = _compared(slices, ndcg, lengths=11)["warm_users"]
    for comparison in (cold, warm):
        assert comparison.worse == worse
        assert comparison.baseline == "popularity"
        assert (comparison.n_cases, comparison.n_users) == (N_USERS, N_USERS)
        assert comparison.teacher_ndcg_at_10 == pytest.approx(teacher)
        assert comparison.baseline_ndcg_at_10 == pytest.approx(popularity)
        assert comparison.difference == pytest.approx(teacher - popularity)
        assert comparison.difference <= comparison.high


def test_few_users_decide_nothing(slices: PositionSlices) -> None:
    ndcg = _ndcg(teacher=0.0, popularity=1.0)
    assert _compared(slices, ndcg, n_users=50)["cold_users"].worse
    assert not _compared(slices, ndcg, n_users=49)["cold_users"].worse
    assert _compared(slices, ndcg, n_users=49, min_users=49)["cold_users"].worse


def test_by_target_only_the_tail_decides_and_against_item_knn(slices: PositionSlices) -> None:
    ndcg = _ndcg(teacher=0.1, item_knn=0.5)
    by_target = {
        name: _compared(slices, ndcg, target=target)[name]
        for target, name in enumerate(("head", "mid", "tail"), start=1)
    }
    assert {name: comparison.worse for name, comparison in by_target.items()} == {
        "head": False,
        "mid": False,
        "tail": True,
    }
    assert {comparison.baseline for comparison in by_target.values()} == {"item_knn"}
    popular = _ndcg(teacher=0.1, popularity=0.5)
    assert not _compared(slices, popular, target=3)["tail"].worse


def test_cases_that_are_no_training_position_decide_nothing(slices: PositionSlices) -> None:
    ndcg = _ndcg(teacher=0.0, popularity=1.0, item_knn=1.0)
    assert _compared(slices, ndcg, lengths=0) == {}
    assert _compared(slices, ndcg, target=4) == {}


def test_users_count_equally(slices: PositionSlices) -> None:
    """User a has three cases with 0 and one with 1, user b one case with 1."""
    (cold, _) = compare_slices(
        slices,
        {
            "teacher": np.array([0.0, 0.0, 0.0, 1.0, 1.0]),
            "popularity": np.zeros(5),
            "item_knn": np.zeros(5),
        },
        user_ids=["a", "a", "a", "a", "b"],
        lengths=np.full(5, 3),
        targets=np.full(5, 1),
        min_users=1,
        n_resamples=100,
    )
    assert (cold.n_cases, cold.n_users) == (5, 2)
    assert cold.teacher_ndcg_at_10 == 0.625


def test_the_sentence_has_the_figures(slices: PositionSlices) -> None:
    comparison = _compared(slices, _ndcg(teacher=0.2, popularity=0.3))["cold_users"]
    assert comparison.sentence == (
        "Cold users (at most 10 events): the teacher's NDCG@10 is 0.2000, that of recent "
        f"popularity 0.3000 (difference -0.1000, upper bound {comparison.high:+.4f}, 200 users)."
    )
