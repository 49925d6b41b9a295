"""Which soft labels count, and what the distillation loss makes of those that don't."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from recsys_core.artifacts import Artifact
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.evaluation.slices import popularity_groups
from recsys_core.evaluation.teacher_slices import PositionSlice
from recsys_core.models.recommender import Recommender
from recsys_core.training.batch import Batch
from recsys_core.training.negative_sampling import FullCatalogue
from tasks.contracts.teacher import Trust
from tasks.stages.distill import DistillationConfig, loss_of
from tasks.training.network import NetworkConfig, build_network, training_set_of
from tasks.training.prepared import Prepared
from tasks.training.trust import Trusted, trusted_labels
from tests.teacher_check import made_up_check

COLD_USER_EVENTS = 4


@pytest.fixture
def labels(soft_labels: Artifact) -> SoftLabels:
    return SoftLabels(soft_labels.folder, item_index_sha256="index")


def _check(folder: Path, *worse: PositionSlice, teacher: str = "teacher-key") -> Artifact:
    made_up_check(*worse, teacher=teacher, cold_user_events=COLD_USER_EVENTS).save(folder)
    return Artifact("check_teacher", "check-key", folder)


@pytest.mark.parametrize(
    ("worse", "trust", "teacher"),
    [
        ((), "by_slice", "teacher-key"),
        (("cold_users",), "everywhere", "teacher-key"),
        (("cold_users",), "by_slice", "another one"),
    ],
    ids=["nowhere worse", "trusted everywhere", "labels of another teacher"],
)
def test_all_labels_count(
    obvious_world: Artifact,
    labels: SoftLabels,
    tmp_path: Path,
    worse: tuple[PositionSlice, ...],
    trust: Trust,
    teacher: str,
) -> None:
    check = _check(tmp_path, *worse, teacher=teacher)
    assert trusted_labels(Prepared(obvious_world), check, labels, trust) == Trusted()


@pytest.mark.parametrize(
    ("worse", "counts"),
    [
        (("cold_users",), [False, True]),
        (("warm_users",), [True, False]),
        (("cold_users", "warm_users", "tail"), [False, False]),
    ],
)
def test_labels_of_worse_slices_do_not_count(
    obvious_world: Artifact,
    labels: SoftLabels,
    tmp_path: Path,
    worse: tuple[PositionSlice, ...],
    counts: list[bool],
) -> None:
    trusted = trusted_labels(Prepared(obvious_world), _check(tmp_path, *worse), labels, "by_slice")
    assert trusted.positions is not None
    assert trusted.positions(np.array([4, 5])).tolist() == counts


def test_the_teacher_is_not_believed_of_a_worse_tail(
    obvious_world: Artifact, labels: SoftLabels, tmp_path: Path
) -> None:
    data = Prepared(obvious_world)
    trusted = trusted_labels(data, _check(tmp_path, "tail"), labels, "by_slice")
    tail = popularity_groups(data.items["train_count"].to_numpy()).tail
    assert trusted.positions is None
    assert trusted.distrusted_items is not None
    assert trusted.distrusted_items.tolist() == tail.tolist()
    assert tail.any()


@pytest.mark.parametrize("kd_weight", [0.0, 4.0])
def test_the_loss_is_that_of_weighted_divergences(
    obvious_world: Artifact,
    labels: SoftLabels,
    tiny_network: NetworkConfig,
    tmp_path: Path,
    kd_weight: float,
) -> None:
    """A weight of 0 for the divergence of cold positions, and of 1 for the cross-entropy of all."""
    data = Prepared(obvious_world)
    model = build_network(data, tiny_network).eval()
    training_set = training_set_of(
        data,
        model.max_length,
        tiny_network.training,
        labels=labels,
        trusted=trusted_labels(data, _check(tmp_path, "cold_users"), labels, "by_slice").positions,
    )
    whole = training_set_of(data, model.max_length, tiny_network.training, labels=labels)
    config = DistillationConfig(kd_weight=kd_weight, temperature=2.0)
    candidates = FullCatalogue(training_set.item_counts(len(data.items)))
    loss = loss_of(config, labels, candidates, "cpu")
    n_left_out = 0
    for batch, full in zip(training_set.epoch(0, 1), whole.epoch(0, 1), strict=True):
        assert batch.teacher_states is not None
        states, vectors = _states(model, batch)
        found = loss(states, vectors, candidates.restrict(batch, (1, 0, 0)))
        lengths = _events_before(batch)
        counts = (lengths > COLD_USER_EVENTS).double()
        expected = _reference(states, vectors, full, labels, counts, kd_weight, temperature=2.0)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
        n_left_out += int((counts == 0).sum())
        assert torch.equal(batch.teacher_states.isnan().any(dim=1), counts == 0)
    assert n_left_out > 20


def _states(model: Recommender, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        vectors = model.item_vectors()
        return model.encode(batch.history, vectors)[batch.targets > 0], vectors


def _events_before(batch: Batch) -> torch.Tensor:
    """Events of the whole history up to each position with a target."""
    assert batch.earlier is not None
    n_earlier = (batch.earlier > 0).sum(dim=1, keepdim=True)
    lengths = n_earlier + torch.arange(1, batch.history.shape[1] + 1)
    return lengths[batch.targets > 0]


def _reference(
    states: torch.Tensor,
    vectors: torch.Tensor,
    batch: Batch,
    labels: SoftLabels,
    label_weights: torch.Tensor,
    kd_weight: float,
    *,
    temperature: float = 1.0,
    distrusted: NDArray[np.bool_] | None = None,
) -> torch.Tensor:
    """All logits at once in float64, one row per position; seen items don't compete."""
    assert batch.teacher_states is not None
    assert batch.earlier is not None
    teacher_vectors = torch.from_numpy(labels.item_vectors()).double()
    student = states.double() @ vectors[1:].double().T
    teacher = batch.teacher_states.double() @ teacher_vectors[1:].T
    losses: list[torch.Tensor] = []
    rows, places = torch.nonzero(batch.targets, as_tuple=True)
    for i, (row, place) in enumerate(zip(rows.tolist(), places.tolist(), strict=True)):
        seen = torch.cat([batch.earlier[row], batch.history[row, : place + 1]])
        competes = torch.ones(len(vectors), dtype=torch.bool)
        competes[seen] = False
        competes = competes[1:]
        target = competes[: batch.targets[row, place] - 1].sum()
        hard = student[i, competes].log_softmax(0)[target]
        if distrusted is not None:
            competes &= ~torch.from_numpy(distrusted[1:])
        q, p = student[i, competes], teacher[i, competes]
        divergence = F.kl_div(
            (q / temperature).log_softmax(0), (p / temperature).softmax(0), reduction="sum"
        )
        soft = kd_weight * temperature**2 * label_weights[i] * divergence
        losses.append(soft - hard)
    return torch.stack(losses).mean()


def test_distrusted_items_count_on_neither_side_of_the_divergence(
    obvious_world: Artifact, labels: SoftLabels, tiny_network: NetworkConfig
) -> None:
    """The reference with these items as if they were seen, but in the cross-entropy."""
    data = Prepared(obvious_world)
    model = build_network(data, tiny_network).eval()
    training_set = training_set_of(data, model.max_length, tiny_network.training, labels=labels)
    distrusted = np.zeros(len(data.items) + 1, np.bool_)
    distrusted[[3, 8, 14]] = True
    candidates = FullCatalogue(training_set.item_counts(len(data.items)))
    config = DistillationConfig(kd_weight=4.0)
    loss = loss_of(config, labels, candidates, "cpu", distrusted)
    for batch in training_set.epoch(0, 1):
        states, vectors = _states(model, batch)
        found = loss(states, vectors, candidates.restrict(batch, (1, 0, 0)))
        expected = _reference(
            states, vectors, batch, labels, torch.ones(len(states)), 4.0, distrusted=distrusted
        )
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
