"""The loss that fits what the labels hold."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys_core.distillation.losses.listed import ListTerm, listed_loss
from recsys_core.distillation.losses.ranked_list import ranked_list
from recsys_core.distillation.losses.sampled_kl import sampled_kl
from recsys_core.distillation.losses.top_k_kl import top_k_kl
from recsys_core.distillation.losses.within_list_kl import within_list_kl
from recsys_core.distillation.sparse_selection import sparse_distillation
from recsys_core.training.batch import Batch
from recsys_core.training.negative_sampling import FullCatalogue, RestrictedBatch
from recsys_core.training.sparse_batch import SparseBatch
from tests.recsys_core.distillation.sparse_problem import (
    POSITIONS,
    STATES,
    TARGETS,
    TOP_IDS,
    VECTORS,
    WEIGHTS,
    listed_logits,
)

LISTS = SparseBatch(TOP_IDS)
SCORES = LISTS._replace(top_logits=listed_logits())
NORMALIZED = SCORES._replace(log_normalizer=torch.full((POSITIONS,), 9.0))
DRAWS = NORMALIZED._replace(sample_ids=TOP_IDS, sample_counts=(TOP_IDS > 0).long())
GIVEN = (STATES, VECTORS, TARGETS)


def _columns(labels: SparseBatch) -> list[str]:
    return [name for name, part in labels._asdict().items() if part is not None]


def _chosen(labels: SparseBatch, temperature: float = 1.0) -> torch.Tensor:
    history = torch.ones(1, POSITIONS, dtype=torch.int64)
    batch = Batch(history, TARGETS[None], weights=WEIGHTS, sparse_labels=labels)
    loss = sparse_distillation(_columns(labels), kd_weight=2.0, temperature=temperature)
    return loss(STATES, VECTORS, RestrictedBatch(batch))


def _loss(term: ListTerm) -> torch.Tensor:
    return listed_loss(*GIVEN, term, ids=TOP_IDS, kd_weight=2.0, weights=WEIGHTS)


def test_the_loss_uses_most_of_the_teacher() -> None:
    normalizers = torch.full((POSITIONS,), 9.0)
    expected = [
        (LISTS, ranked_list()),
        (SCORES, within_list_kl(listed_logits(), temperature=1.0)),
        (NORMALIZED, top_k_kl(listed_logits(), normalizers)),
        (DRAWS, sampled_kl((TOP_IDS > 0).long())),
    ]
    found = [_chosen(labels) for labels, _ in expected]
    assert torch.equal(torch.stack(found), torch.stack([_loss(term) for _, term in expected]))
    assert len({loss.item() for loss in found}) == len(found)
    softened = _loss(within_list_kl(listed_logits(), temperature=3.0))
    assert torch.equal(_chosen(SCORES, temperature=3.0), softened)


def test_what_the_user_had_does_not_compete() -> None:
    """Item 3 is in the history, so neither side gives it anything."""
    history, targets = torch.tensor([[3, 1]]), torch.tensor([[1, 2]])
    labels = SparseBatch(torch.tensor([[3, 4], [4, 3]]))
    earlier = torch.zeros(1, 1, dtype=torch.int64)
    batch = Batch(history, targets, earlier=earlier, sparse_labels=labels)
    vectors = VECTORS.clone().requires_grad_()
    loss = sparse_distillation(["top_ids"], kd_weight=2.0, temperature=1.0)
    loss(F.normalize(STATES[:2]), vectors, RestrictedBatch(batch)).backward()
    assert vectors.grad is not None
    assert not vectors.grad[3].any()
    assert vectors.grad[4].any()


@pytest.mark.parametrize("labels", [LISTS, NORMALIZED, DRAWS], ids=["lists", "scores", "draws"])
def test_a_temperature_of_which_the_labels_say_nothing_is_refused(labels: SparseBatch) -> None:
    with pytest.raises(ValueError, match=r"found distillation.temperature = 2.0. Set it to 1"):
        sparse_distillation(_columns(labels), kd_weight=1.0, temperature=2.0)


def test_the_probability_of_an_item_without_training_events_counts_as_no_other_items() -> None:
    """Item 3 of four never occurs, and the teacher gives it ½, and ¼ to item 1.

    So the teacher gives item 1 half of what competes, and items 2 and 4 the other half.
    """
    labels = SparseBatch(
        torch.tensor([[3, 1]]),
        top_logits=torch.tensor([[2.0, 1.0]]).log(),
        log_normalizer=torch.tensor([4.0]).log(),
    )
    batch = Batch(torch.tensor([[4]]), torch.tensor([[2]]), sparse_labels=labels)
    restricted = FullCatalogue(np.array([0, 1, 1, 0, 1])).restrict(batch, (1,))
    loss = sparse_distillation(_columns(labels), kd_weight=10.0, temperature=1.0)
    found = loss(torch.zeros(1, 2), torch.ones(4, 2), restricted)
    divergence = (math.log((1 / 2) / (1 / 3)) + math.log((1 / 2) / (2 / 3))) / 2
    assert found.item() == pytest.approx(math.log(3) + 10 * divergence, rel=1e-5)
