"""Which columns a position has, and that a sample of everything is the whole catalogue."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from recsys_core.distillation.candidates import candidates_of, distillation_candidates
from recsys_core.distillation.factorized_selection import SoftWeights, factorized_distillation
from recsys_core.distillation.sparse_selection import sparse_distillation
from recsys_core.training.batch import Batch
from recsys_core.training.gradients import Loss
from recsys_core.training.loop import TrainingConfig
from recsys_core.training.negative_sampling import (
    FULL_SOFTMAX_ITEMS,
    FullCatalogue,
    RestrictedBatch,
    SampledNegatives,
)
from recsys_core.training.sparse_batch import SparseBatch
from tests.recsys_core.distillation.sparse_problem import (
    DIM,
    ITEMS,
    POSITIONS,
    STATES,
    TARGETS,
    TOP_IDS,
    VECTORS,
    WEIGHTS,
    listed_logits,
)

CPU = torch.device("cpu")
HISTORY = torch.tensor([[9, 4, 11, 7, 1, 5, 8]])
"""Some of its items are listed later, and one is drawn; no target is among those before it."""
EARLIER = torch.tensor([[0, 0]])
EVERYTHING = torch.arange(1, ITEMS + 1)
LISTS = SparseBatch(TOP_IDS.where(TOP_IDS != 9, -1))
"""Item 9 is no candidate."""
SCORES = LISTS._replace(top_logits=listed_logits())
DISTRUSTED = torch.isin(torch.arange(ITEMS + 1), torch.tensor([2, 5, 10]))
LABELS = {
    "lists": LISTS,
    "scores": SCORES,
    "normalized": SCORES._replace(log_normalizer=torch.full((POSITIONS,), 9.0)),
    "draws": LISTS._replace(sample_ids=LISTS.top_ids, sample_counts=(TOP_IDS > 0).long()),
}


def _drawn(batch: Batch, drawn: torch.Tensor, log_expected: torch.Tensor) -> RestrictedBatch:
    return RestrictedBatch(batch, torch.arange(ITEMS + 1), drawn, log_expected)


def _of_labels(name: str) -> tuple[Loss, Batch]:
    batch = Batch(HISTORY, TARGETS[None], weights=WEIGHTS)
    if "states" in name:
        teacher = torch.randn(POSITIONS, DIM, generator=torch.Generator().manual_seed(1))
        vectors = torch.randn(ITEMS + 1, DIM, generator=torch.Generator().manual_seed(2))
        loss = factorized_distillation(
            vectors.numpy(),
            SoftWeights(divergence=2.0, hidden=0.5),
            divergence="forward_kl",
            temperature=3.0,
            on_device=None,
            distrusted=DISTRUSTED.numpy() if name == "states, distrusted items" else None,
        )
        lists = LISTS if name == "states, top items" else None
        return loss, batch._replace(teacher_states=teacher, sparse_labels=lists)
    labels = LABELS[name]
    columns = [column for column, part in labels._asdict().items() if part is not None]
    return (
        sparse_distillation(columns, kd_weight=2.0, temperature=1.0),
        batch._replace(sparse_labels=labels),
    )


def _with_gradients(loss: Loss, restricted: RestrictedBatch) -> list[torch.Tensor]:
    states, vectors = STATES.clone().requires_grad_(), VECTORS.clone().requires_grad_()
    value = loss(states, vectors, restricted)
    value.backward()
    assert states.grad is not None
    assert vectors.grad is not None
    return [value.detach(), states.grad, vectors.grad]


@pytest.mark.parametrize("earlier", [None, EARLIER], ids=["repeats", "exclude seen"])
@pytest.mark.parametrize(
    "name", ["states", "states, top items", "states, distrusted items", *LABELS]
)
def test_a_sample_of_everything_is_the_whole_catalogue(
    name: str, earlier: torch.Tensor | None
) -> None:
    loss, batch = _of_labels(name)
    batch = batch._replace(earlier=earlier)
    sampled = _with_gradients(loss, _drawn(batch, EVERYTHING, torch.zeros(ITEMS)))
    full = _with_gradients(loss, RestrictedBatch(batch))
    for found, expected in zip(sampled, full, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["states", "lists", "normalized", "draws"])
def test_many_draws_come_close_to_the_whole_catalogue(name: str) -> None:
    proposal = torch.linspace(1, 3, ITEMS) / torch.linspace(1, 3, ITEMS).sum()
    drawn = torch.multinomial(proposal, 100_000, True, generator=torch.Generator().manual_seed(0))
    loss, batch = _of_labels(name)
    log_expected = (len(drawn) * proposal[drawn]).log()
    sampled = _with_gradients(loss, _drawn(batch, drawn + 1, log_expected))
    full = _with_gradients(loss, RestrictedBatch(batch))
    for found, expected in zip(sampled, full, strict=True):
        assert (found - expected).norm() < 0.02 * expected.norm()


def test_a_listed_item_has_a_column_and_the_target_only_one() -> None:
    batch = Batch(torch.tensor([[8, 5]]), torch.tensor([[3, 4]]), earlier=torch.tensor([[6]]))
    listed = torch.tensor([[5, 3, 0, 8], [6, -1, 5, 1]])
    candidates = candidates_of(
        _drawn(batch, torch.tensor([2, 9]), torch.zeros(2)), ITEMS + 1, CPU, listed
    )
    assert candidates.sampled is not None
    assert candidates.targets.tolist() == [1, 1]
    assert candidates.listed is not None
    assert candidates.listed.tolist() == [[2, 1, 0, 5], [2, -1, 4, 5]]
    # Item 8 is in the history at both positions, 5 at the second, and 6 came before.
    assert candidates.sampled.positives.tolist() == [[3, 5, 0, 0, 0], [4, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("loss", "n_items", "kind"),
    [
        ("auto", 10, FullCatalogue),
        ("gbce", 10, FullCatalogue),
        ("softmax", FULL_SOFTMAX_ITEMS + 1, FullCatalogue),
        ("sampled_softmax", 10, SampledNegatives),
        ("auto", FULL_SOFTMAX_ITEMS + 1, SampledNegatives),
        ("gbce", FULL_SOFTMAX_ITEMS + 1, SampledNegatives),
    ],
)
def test_the_threshold_is_that_of_a_training_without_teacher(
    loss: str, n_items: int, kind: Callable[..., object]
) -> None:
    counts = np.arange(n_items + 1)
    config = TrainingConfig.model_validate({"loss": loss, "n_negatives": 50})
    candidates = distillation_candidates(counts, config)
    assert type(candidates) is kind
    if kind is SampledNegatives:
        batch = Batch(torch.tensor([[1]]), torch.tensor([[2]]))
        restricted = candidates.restrict(batch, (1,))
        assert restricted.log_expected is not None
        assert len(restricted.log_expected.unique()) > 1, "popular items are drawn more often"
