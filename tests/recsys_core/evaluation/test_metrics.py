import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from recsys_core.evaluation.metrics import (
    METRICS,
    mean_per_user,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank,
)

RANKS = np.array([1, 2, 3, 10, 11])


def test_ndcg_is_the_discount_of_the_rank_within_k():
    assert_allclose(ndcg_at_k(RANKS, 10), [1, 1 / np.log2(3), 1 / 2, 1 / np.log2(11), 0])
    assert_allclose(ndcg_at_k(RANKS, 2), [1, 1 / np.log2(3), 0, 0, 0])


def test_recall_is_a_hit_within_k():
    assert recall_at_k(RANKS, 10).tolist() == [1, 1, 1, 1, 0]
    assert recall_at_k(RANKS, 1).tolist() == [1, 0, 0, 0, 0]


def test_reciprocal_rank_looks_at_the_whole_list():
    assert_allclose(reciprocal_rank(RANKS), [1, 1 / 2, 1 / 3, 1 / 10, 1 / 11])


def test_a_user_with_many_cases_counts_once():
    values = np.array([1.0, 0.0, 0.0, 0.0, 0.5])
    means = mean_per_user(values, ["b", "a", "b", "b", "a"])
    assert_allclose(means, [1 / 4, 1 / 3])
    assert_allclose(mean_per_user(values, np.array([7, 3, 7, 7, 3])), means)


def test_no_cases_have_no_users():
    nothing = np.array([], dtype=np.int64)
    assert all(metric(nothing).size == 0 for metric in METRICS.values())
    assert mean_per_user(np.array([]), []).size == 0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_rank_zero_is_refused(metric):
    with pytest.raises(ValueError, match="count from 1, found 0"):
        metric(np.array([3, 0]))


def test_lists_without_places_are_refused():
    with pytest.raises(ValueError, match="k=0"):
        ndcg_at_k(RANKS, 0)


def test_values_without_users_are_refused():
    with pytest.raises(ValueError, match="2 values and 1 users"):
        mean_per_user(np.array([1.0, 2.0]), ["a"])


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
@given(ranks=st.lists(st.integers(1, 2**40), min_size=1, max_size=20))
def test_metrics_are_shares_and_better_ranks_never_lower_them(metric, ranks):
    values = metric(np.array(sorted(ranks)))
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(values) <= 0).all()


@given(
    pairs=st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abcd")), min_size=1, max_size=30)
)
def test_mean_per_user_equals_the_plain_loop(pairs):
    ranks, users = zip(*pairs, strict=True)
    values = reciprocal_rank(np.array(ranks))
    expected = [
        np.mean([value for value, owner in zip(values, users, strict=True) if owner == user])
        for user in sorted(set(users))
    ]
    assert_allclose(mean_per_user(values, users), expected)
