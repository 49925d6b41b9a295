import numpy as np

from recsys_core.evaluation.popularity import popularity_ranker


def history(*items):
    return np.array(items, np.int32)


def test_popularity_ranks_by_recent_then_by_all_training_interactions():
    rank = popularity_ranker(np.array([0, 5, 0, 0]), np.array([3, 5, 9, 3]))
    scores = rank([history(1), history()])
    assert scores.shape == (2, 5)
    assert scores.dtype == np.float32
    assert scores[0, 1:].tolist() == [0, 2, 1, 0]


def test_popularity_keeps_counts_apart_that_float32_cannot():
    counts = np.array([2**24, 2**24 + 1])
    scores = popularity_ranker(counts)([history()])
    assert scores[0, 1] < scores[0, 2]
