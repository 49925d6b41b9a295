"""Who competes: what occurs in training, renumbered; negatives as their proposal says."""

import numpy as np
import pytest
import torch

from recsys_core.training.batch import Batch
from recsys_core.training.negative_sampling import FullCatalogue, RestrictedBatch, SampledNegatives
from recsys_core.training.sparse_batch import SparseBatch

COUNTS = np.array([0, 5, 0, 1, 30, 0, 100, 2])
BATCH = Batch(torch.tensor([[4, 6, 0], [1, 4, 6]]), torch.tensor([[6, 3, 0], [4, 6, 7]]))


def _widened(restricted: RestrictedBatch) -> Batch:
    assert restricted.items is not None
    assert restricted.items[0] == 0
    return Batch(
        restricted.items[restricted.batch.history], restricted.items[restricted.batch.targets]
    )


@pytest.mark.parametrize(
    "candidates",
    [FullCatalogue(COUNTS), SampledNegatives(COUNTS, n_negatives=3, uniform=False)],
)
def test_rows_are_the_same_items(candidates: FullCatalogue | SampledNegatives) -> None:
    restricted = candidates.restrict(BATCH, (1, 2))
    widened = _widened(restricted)
    assert torch.equal(widened.history, BATCH.history)
    assert torch.equal(widened.targets, BATCH.targets)
    assert restricted.items is not None
    assert torch.equal(restricted.items, restricted.items.unique())


def test_an_item_that_never_occurs_does_not_compete() -> None:
    items = FullCatalogue(COUNTS).restrict(BATCH, ()).items
    assert items is not None
    assert items.tolist() == [0, 1, 3, 4, 6, 7]
    sampled = SampledNegatives(COUNTS, n_negatives=5000, uniform=True)
    drawn = sampled.restrict(BATCH, (0,)).items
    assert drawn is not None
    assert drawn.tolist() == [0, 1, 3, 4, 6, 7]


def test_earlier_items_are_renumbered_too() -> None:
    earlier = torch.tensor([[3, 0], [7, 1]])
    batch = BATCH._replace(earlier=earlier)
    restricted = FullCatalogue(COUNTS).restrict(batch, ())
    assert restricted.items is not None
    assert restricted.batch.earlier is not None
    assert torch.equal(restricted.items[restricted.batch.earlier], earlier)
    one_drawn = SampledNegatives(COUNTS * (np.arange(8) == 6), n_negatives=1, uniform=True)
    batch = BATCH._replace(earlier=torch.tensor([[2, 5], [7, 99]]))
    restricted = one_drawn.restrict(batch, ())
    assert restricted.items is not None
    assert restricted.batch.earlier is not None
    rows = restricted.items[restricted.batch.earlier]
    assert rows.tolist() == [[0, 0], [7, 0]], "what nobody competes with has no row"


@pytest.mark.parametrize(
    "candidates",
    [FullCatalogue(COUNTS), SampledNegatives(COUNTS, n_negatives=1, uniform=True)],
)
def test_items_of_sparse_labels_are_renumbered_too(
    candidates: FullCatalogue | SampledNegatives,
) -> None:
    labels = SparseBatch(
        torch.tensor([[4, 6, 0], [2, 7, 5], [0, 0, 0], [1, 0, 0], [3, 4, 6]]),
        torch.randn(5, 3),
        sample_ids=torch.tensor([[6, 2], [7, 0], [0, 0], [5, 1], [3, 0]]),
        sample_counts=torch.ones(5, 2, dtype=torch.int64),
    )
    restricted = candidates.restrict(BATCH._replace(sparse_labels=labels), (1, 2))
    found = restricted.batch.sparse_labels
    assert restricted.items is not None
    assert found is not None
    assert found.sample_ids is not None
    # Items 2 and 5 never occur in training, so they are no candidates.
    no_candidate = torch.tensor(-1)
    listed, drawn = (
        torch.where(ids < 0, no_candidate, restricted.items[ids])
        for ids in (found.top_ids, found.sample_ids)
    )
    assert listed.tolist() == [[4, 6, 0], [-1, 7, -1], [0, 0, 0], [1, 0, 0], [3, 4, 6]]
    assert drawn.tolist() == [[6, -1], [7, 0], [0, 0], [-1, 1], [3, 0]]
    assert found.top_logits is labels.top_logits
    assert found.sample_counts is labels.sample_counts


def test_where_all_items_occur_nothing_is_renumbered() -> None:
    restricted = FullCatalogue(np.array([0, 1, 1])).restrict(BATCH, ())
    assert restricted.batch is BATCH
    assert restricted.items is None


@pytest.mark.parametrize("uniform", [False, True])
def test_draws_follow_the_proposal_that_corrects_them(uniform: bool) -> None:
    n = 50_000
    restricted = SampledNegatives(COUNTS, n_negatives=n, uniform=uniform).restrict(BATCH, (3,))
    assert restricted.items is not None
    assert restricted.negatives is not None
    assert restricted.log_expected is not None
    drawn = restricted.items[restricted.negatives].numpy()
    for item in (1, 3, 4, 6, 7):
        rows = drawn == item
        expected = float(restricted.log_expected[torch.from_numpy(rows)][0].exp())
        assert rows.sum() == pytest.approx(expected, rel=0.05)
    shares = np.array([(drawn == item).mean() for item in (3, 6)])
    assert shares[1] == pytest.approx(shares[0], rel=0.05) if uniform else shares[1] > 3 * shares[0]


def test_the_same_seed_draws_the_same() -> None:
    candidates = SampledNegatives(COUNTS, n_negatives=20, uniform=False)
    first, again, other = (candidates.restrict(BATCH, (1, seed)).negatives for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert first.shape == other.shape
    assert not torch.equal(first, other)
