import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from recsys_core.data.histories.cases import candidate_mask, read_cases
from recsys_core.evaluation.item_knn import item_knn_ranker, item_similarities
from recsys_core.evaluation.metrics import ndcg_at_k
from recsys_core.evaluation.popularity import popularity_ranker
from recsys_core.evaluation.ranking import rank_targets
from tests.shared_data import DATA
from tests.targets import PLAIN_EVENTS


def history(*items):
    return np.array(items, np.int32)


def dense_similarities(users, n_items, shrinkage):
    """The definition, pair by pair."""
    rows = np.zeros((len(users), n_items + 1))
    for row, items in enumerate(users):
        rows[row, list(set(items))] = 1 / np.sqrt(len(set(items)))
    products = rows.T @ rows
    norms = np.sqrt(np.diag(products))
    similarities = products / (norms[:, None] * norms + shrinkage)
    np.fill_diagonal(similarities, 0)
    return similarities


@pytest.mark.parametrize("block_cells", [1, 10**6])
def test_similarities_are_the_shrunk_cosine_of_training_events(write_bucket, block_cells):
    first = write_bucket({"a": ([1, 2, 2, 3, 5], 4, 5), "b": ([5], 0, 0)})
    second = write_bucket({"c": ([2, 3], 2, 2), "d": ([4, 1], 2, 2)}, "bucket-001.parquet")
    found = item_similarities(
        [first, second], 5, n_neighbours=9, shrinkage=0.5, block_cells=block_cells
    ).toarray()
    assert_allclose(found, dense_similarities([[1, 2, 3], [2, 3], [4, 1]], 5, 0.5), rtol=1e-6)
    assert not found[5].any()


def test_only_the_nearest_neighbours_are_kept(write_bucket):
    users = {"a": ([1, 2], 2, 2), "b": ([1, 2], 2, 2), "c": ([1, 3, 4], 3, 3)}
    found = item_similarities([write_bucket(users)], 4, n_neighbours=1, shrinkage=0.0)
    assert np.diff(found.indptr).max() == 1
    assert found[[1], :].toarray().argmax() == 2
    # 3 and 4 are as similar to each other as can be; a tie would go to the lower item_idx.
    assert found[[3], :].toarray().argmax() == 4


def test_the_newest_training_events_of_a_heavy_user_count(write_bucket):
    bucket = write_bucket({"heavy": ([1, 2, 3, 4], 4, 4)})
    found = item_similarities([bucket], 4, max_history=2, shrinkage=0.0).toarray()
    assert (found > 0).nonzero()[0].tolist() == [3, 4]


@pytest.fixture
def pairs(write_bucket):
    """Items 1 and 2 go together, and so do 3 and 4; 5 is merely popular."""
    users = {f"u{n}": ([1, 2] if n % 2 else [3, 4], 2, 2) for n in range(6)}
    return item_similarities([write_bucket(users)], 5, shrinkage=0.0)


def test_knn_recommends_the_neighbours_of_the_history(pairs):
    scores = item_knn_ranker(pairs, np.array([3, 3, 3, 3, 50]))([history(1), history(3)])
    assert scores.shape == (2, 6)
    assert scores.dtype == np.float32
    assert scores[:, 1:].argmax(axis=1).tolist() == [1, 3]


def test_knn_weighs_newer_events_more_and_forgets_old_ones(pairs):
    popularity = np.array([3, 3, 3, 3, 50])
    scores = item_knn_ranker(pairs, popularity, half_life=2)([history(1, 3)])[0]
    assert_allclose(scores[4] / scores[2], 2**0.5, rtol=1e-4)
    forgetful = item_knn_ranker(pairs, popularity, n_recent=1)([history(1, 3)])[0]
    assert forgetful[2] < 1e-6


def test_knn_without_neighbours_ranks_by_popularity(pairs):
    scores = item_knn_ranker(pairs, np.array([1, 2, 3, 4, 50]))([history(), history(5)])
    assert (np.diff(scores[:, 1:]) > 0).all()
    assert scores.max() < 1e-6


def test_knn_recommends_what_a_user_had_where_items_return(pairs):
    popularity = np.array([3, 3, 3, 3, 50])
    scores = item_knn_ranker(pairs, popularity, own_weight=1.5)([history(1, 3), history(5)])
    similar = pairs[[1], :].toarray()[0, 2]
    assert_allclose(scores[0, 3] / scores[0, 4], 1.5 / similar, rtol=1e-4)
    assert_allclose(scores[1, 5], 1.5, rtol=1e-4)


def test_knn_is_a_strong_baseline_on_ml_1m(tmp_path):
    source = DATA / "ml-1m" / "events.parquet"
    if not source.exists():
        pytest.skip(f"no ml-1m in {DATA}; set RECDISTILL_TEST_DATA")
    events = pl.read_parquet(source).sort("user_id", "timestamp")
    index = events["item_id"].unique().sort()
    histories = (
        events.select(
            pl.col("user_id").cast(pl.String),
            item_idx=pl.col("item_id").rank("dense").cast(pl.Int32),
        )
        .group_by("user_id", maintain_order=True)
        .agg("item_idx")
        .with_columns(
            train_end=pl.col("item_idx").list.len().cast(pl.Int32) - 2,
            validation_end=pl.col("item_idx").list.len().cast(pl.Int32) - 1,
        )
        .with_columns(*PLAIN_EVENTS)
    )
    bucket = tmp_path / "bucket-000.parquet"
    histories.write_parquet(bucket)
    trained = histories.select(pl.col("item_idx").list.slice(0, pl.col("train_end")).explode())
    counts = np.bincount(trained["item_idx"], minlength=len(index) + 1)[1:]
    items = pl.DataFrame(
        {
            "item_idx": pl.Series(range(1, len(index) + 1), dtype=pl.Int32),
            "candidate_validation": [True] * len(index),
        }
    )
    cases = read_cases(bucket, items, "validation", exclude_seen=True)
    candidates = candidate_mask(items, "validation")

    def ndcg(ranker):
        ranks = rank_targets(ranker, cases, candidates, exclude_seen=True)
        return ndcg_at_k(ranks, 10).mean()

    assert len(cases) == 6_040
    assert ndcg(popularity_ranker(counts)) == pytest.approx(0.0207, abs=5e-4)
    similarities = item_similarities([bucket], len(index))
    assert ndcg(item_knn_ranker(similarities, counts)) == pytest.approx(0.1165, abs=5e-4)
