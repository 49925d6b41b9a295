"""Who competes: what occurs in training, renumbered; negatives as their proposal says."""

import numpy as np
import pytest
import torch

from recsys_core.training.batching import Batch
from recsys_core.training.negative_sampling import FullCompetition, Narrowed, SampledCompetition

COUNTS = np.array([0, 5, 0, 1, 30, 0, 100, 2])
BATCH = Batch(torch.tensor([[4, 6, 0], [1, 4, 6]]), torch.tensor([[6, 3, 0], [4, 6, 7]]))


def _widened(narrowed: Narrowed) -> Batch:
    assert narrowed.items is not None
    assert narrowed.items[0] == 0
    return Batch(narrowed.items[narrowed.batch.history], narrowed.items[narrowed.batch.targets])


@pytest.mark.parametrize(
    "competition",
    [FullCompetition(COUNTS), SampledCompetition(COUNTS, n_negatives=3, uniform=False)],
)
def test_rows_are_the_same_items(competition: FullCompetition | SampledCompetition) -> None:
    narrowed = competition.narrow(BATCH, (1, 2))
    widened = _widened(narrowed)
    assert torch.equal(widened.history, BATCH.history)
    assert torch.equal(widened.targets, BATCH.targets)
    assert narrowed.items is not None
    assert torch.equal(narrowed.items, narrowed.items.unique())


def test_an_item_that_never_occurs_does_not_compete() -> None:
    items = FullCompetition(COUNTS).narrow(BATCH, ()).items
    assert items is not None
    assert items.tolist() == [0, 1, 3, 4, 6, 7]
    sampled = SampledCompetition(COUNTS, n_negatives=5000, uniform=True)
    drawn = sampled.narrow(BATCH, (0,)).items
    assert drawn is not None
    assert drawn.tolist() == [0, 1, 3, 4, 6, 7]


def test_where_all_items_occur_nothing_is_renumbered() -> None:
    narrowed = FullCompetition(np.array([0, 1, 1])).narrow(BATCH, ())
    assert narrowed.batch is BATCH
    assert narrowed.items is None


@pytest.mark.parametrize("uniform", [False, True])
def test_draws_follow_the_proposal_that_corrects_them(uniform: bool) -> None:
    n = 50_000
    narrowed = SampledCompetition(COUNTS, n_negatives=n, uniform=uniform).narrow(BATCH, (3,))
    assert narrowed.items is not None
    assert narrowed.negatives is not None
    assert narrowed.log_expected is not None
    drawn = narrowed.items[narrowed.negatives].numpy()
    for item in (1, 3, 4, 6, 7):
        rows = drawn == item
        expected = float(narrowed.log_expected[torch.from_numpy(rows)][0].exp())
        assert rows.sum() == pytest.approx(expected, rel=0.05)
    shares = np.array([(drawn == item).mean() for item in (3, 6)])
    assert shares[1] == pytest.approx(shares[0], rel=0.05) if uniform else shares[1] > 3 * shares[0]


def test_the_same_seed_draws_the_same() -> None:
    competition = SampledCompetition(COUNTS, n_negatives=20, uniform=False)
    first, again, other = (competition.narrow(BATCH, (1, seed)).negatives for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert first.shape == other.shape
    assert not torch.equal(first, other)
