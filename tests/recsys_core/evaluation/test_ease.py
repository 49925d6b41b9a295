import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from recsys_core.evaluation.ease import (
    CatalogueTooLargeError,
    PenaltyTooSmallError,
    ease_ranker,
    ease_weights,
)


def history(*items):
    return np.array(items, np.int32)


def dense_ease(users, l2):
    """The closed form of the paper, in float64."""
    inverse = np.linalg.inv(users.T @ users + l2 * np.eye(users.shape[1]))
    return np.eye(users.shape[1]) - inverse / np.diag(inverse)


def objective(users, weights, l2):
    return ((users - users @ weights) ** 2).sum() + l2 * (weights**2).sum()


@pytest.mark.parametrize("l2", [0.5, 20])
def test_weights_are_the_closed_form(l2):
    users = (np.random.default_rng(1).random((60, 25)) < 0.2).astype(np.float64)
    found = ease_weights(sparse.csr_array(users.T @ users), l2=l2)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert not np.diag(found).any()
    assert_allclose(found, dense_ease(users, l2), atol=1e-5)


def test_no_other_weights_without_a_diagonal_reconstruct_better():
    random = np.random.default_rng(2)
    users = (random.random((40, 8)) < 0.4).astype(np.float64)
    found = ease_weights(sparse.csr_array(users.T @ users), l2=3).astype(np.float64)
    least = objective(users, found, 3)
    for _ in range(20):
        change = random.normal(size=found.shape) * 0.01
        np.fill_diagonal(change, 0)
        assert objective(users, found + change, 3) > least


def test_a_penalty_too_small_for_float32_is_an_error():
    users = np.ones((3000, 3))
    with pytest.raises(PenaltyTooSmallError, match=r"l2 = 1e-06.*Make l2 larger"):
        ease_weights(sparse.csr_array(users.T @ users), l2=1e-6)


@pytest.fixture
def bucket(write_bucket):
    """Items 1 and 2 go together; 4 is bought beside 5 or 6; 3 has no training event."""
    users = {f"a{n}": ([1, 2], 2, 2) for n in range(4)}
    users |= {f"b{n}": ([4, 5 + n % 2, 3], 2, 3) for n in range(4)}
    return write_bucket(users)


POPULARITY = np.array([4, 4, 90, 4, 2, 2])


def test_the_history_decides_by_hand(bucket):
    # Of items 1 and 2: XᵀX + I = [[5, 4], [4, 5]], P = [[5, -4], [-4, 5]] / 9, B₁₂ = 4/5.
    scores = ease_ranker([bucket], POPULARITY, l2=1)([history(1), history(1, 1, 3)])
    assert scores.shape == (2, 7)
    assert scores.dtype == np.float32
    assert_allclose(scores[:, 2], [0.8, 0.8], rtol=1e-5)
    assert np.abs(scores[:, [1, 3, 4, 5, 6]]).max() < 2e-6


def test_equal_scores_are_ordered_by_popularity(bucket):
    rank = ease_ranker([bucket], POPULARITY, l2=1)
    scores = rank([history(), history(3)])
    assert scores[:, 1:].argmax(axis=1).tolist() == [2, 2]
    assert scores[0, 4] > scores[0, 5]


def test_users_of_all_buckets_count(bucket, write_bucket):
    alone = ease_ranker([bucket], POPULARITY, l2=1)([history(4)])
    other = write_bucket({"c": ([4, 5], 2, 2)}, "bucket-001.parquet")
    both = ease_ranker([bucket, other], POPULARITY, l2=1)([history(4)])
    assert both[0, 5] > alone[0, 5]


def test_too_many_items_are_refused(bucket):
    ease_ranker([bucket], POPULARITY, l2=1, max_items=5)
    with pytest.raises(CatalogueTooLargeError, match=r"5 items.*max_items = 4"):
        ease_ranker([bucket], POPULARITY, l2=1, max_items=4)
