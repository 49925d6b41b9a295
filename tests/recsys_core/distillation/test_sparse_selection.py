"""The loss that fits what the labels hold."""

import pytest
import torch
import torch.nn.functional as F

from recsys_core.distillation.losses.ranked_list import ranked_list_loss
from recsys_core.distillation.losses.sparse_kl import (
    sampled_kl_loss,
    top_k_kl_loss,
    within_list_kl_loss,
)
from recsys_core.distillation.sparse_selection import sparse_distillation
from recsys_core.training.batching import Batch
from recsys_core.training.negative_sampling import RestrictedBatch
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


def test_the_loss_uses_most_of_the_teacher() -> None:
    common = {"kd_weight": 2.0, "weights": WEIGHTS}
    scores = {"top_ids": TOP_IDS, "top_logits": listed_logits()}
    expected = [
        (LISTS, ranked_list_loss(*GIVEN, top_ids=TOP_IDS, **common)),
        (SCORES, within_list_kl_loss(*GIVEN, temperature=1.0, **scores, **common)),
        (
            NORMALIZED,
            top_k_kl_loss(*GIVEN, log_normalizer=torch.full((POSITIONS,), 9.0), **scores, **common),
        ),
        (
            DRAWS,
            sampled_kl_loss(
                *GIVEN, sample_ids=TOP_IDS, sample_counts=(TOP_IDS > 0).long(), **common
            ),
        ),
    ]
    found = [_chosen(labels) for labels, _ in expected]
    assert torch.equal(torch.stack(found), torch.stack([loss for _, loss in expected]))
    assert len({loss.item() for loss in found}) == len(found)
    softened = within_list_kl_loss(*GIVEN, temperature=3.0, **scores, **common)
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
