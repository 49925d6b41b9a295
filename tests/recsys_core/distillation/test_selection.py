"""Each setting changes value and gradient as its float64 reference says, or is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys_core.data.soft_labels.factorized import describe
from recsys_core.data.soft_labels.sparse import SparseShape
from recsys_core.data.soft_labels.sparse_writing import describe_sparse
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.distillation.factorized_selection import (
    DivergenceName,
    SoftWeights,
    factorized_distillation,
)
from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.distillation.selection import distilling_loss
from recsys_core.training.batch import Batch
from recsys_core.training.negative_sampling import (
    CandidateSet,
    FullCatalogue,
    RestrictedBatch,
    SampledNegatives,
)
from tests.recsys_core.distillation.losses import problem

SEED = 7
COUNTS = np.ones(problem.ITEMS + 1, np.int64)
FULL, SAMPLED = FullCatalogue(COUNTS), SampledNegatives(COUNTS, n_negatives=5, uniform=True)


def _change(weights: SoftWeights) -> problem.Loss:
    """What these weights add to the cross-entropy."""
    history = torch.ones(1, problem.POSITIONS, dtype=torch.int64)
    batch = Batch(history, problem.TARGETS[None], problem.TEACHER_STATES, problem.WEIGHTS)

    def loss(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(SEED)
        selected, plain = (
            factorized_distillation(
                problem.TEACHER_VECTORS.numpy(),
                chosen,
                divergence="forward_kl",
                temperature=1.0,
                on_device="cpu",
            )(states, vectors, RestrictedBatch(batch))
            for chosen in (weights, SoftWeights(divergence=0.0))
        )
        return selected - plain

    return loss


def _reference(soft: problem.SoftReference, weight: float) -> problem.Loss:
    def loss(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        with_soft, alone = (
            problem.reference(soft, chosen, seen=False)(states, vectors) for chosen in (weight, 0.0)
        )
        return with_soft - alone

    return loss


def _drawn(n: int) -> torch.Tensor:
    torch.manual_seed(SEED)
    return torch.randint(1, problem.ITEMS + 1, (problem.POSITIONS, n))


def test_the_ranking_weight_adds_ranking_distillation() -> None:
    expected = problem.ranking_reference(_drawn(40), 40)
    problem.assert_same_value_and_gradients(
        _change(SoftWeights(divergence=0.0, ranking=0.3)), _reference(expected, 0.3)
    )


def test_the_closure_weight_adds_rejuvenated_cross_entropy() -> None:
    expected = problem.closure_reference(_drawn(100), 100, 3.0)
    problem.assert_same_value_and_gradients(
        _change(SoftWeights(divergence=0.0, closure=0.3)), _reference(expected, 0.3)
    )


def test_the_divergence_weight_adds_the_divergence() -> None:
    def kl(
        student: torch.Tensor, teacher: torch.Tensor, columns: list[int], position: int
    ) -> torch.Tensor:
        del position
        of_student = student[columns].log_softmax(0)
        return F.kl_div(of_student, teacher[columns].softmax(0), reduction="sum")

    problem.assert_same_value_and_gradients(
        _change(SoftWeights(divergence=0.3)), _reference(kl, 0.3)
    )


def test_the_hidden_weight_adds_the_distance_of_directions() -> None:
    """The projection is the minimum of a ridge regression, solved here as least squares."""

    def loss(states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        labelled, weights = problem.LABELLED, problem.WEIGHTS.double()
        student = states[labelled]
        teacher = F.normalize(problem.TEACHER_STATES[labelled].double(), dim=1)
        with torch.no_grad():
            roots = weights[labelled].sqrt()[:, None]
            ridge = 1e-3 * (student * roots).square().sum() / problem.DIM
            penalty = ridge.sqrt() * torch.eye(problem.DIM, dtype=torch.float64)
            left = torch.cat([student * roots, penalty])
            right = torch.cat([teacher * roots, penalty.new_zeros(problem.DIM, teacher.shape[1])])
            projection = torch.linalg.lstsq(left, right).solution
        cosines = F.cosine_similarity(student @ projection, teacher)
        untouched = 0 * vectors.sum()
        return 0.3 * ((2 - 2 * cosines) * weights[labelled]).sum() / weights.sum() + untouched

    problem.assert_same_value_and_gradients(_change(SoftWeights(divergence=0.0, hidden=0.3)), loss)


def test_without_other_weights_it_is_the_distillation_loss_to_the_bit() -> None:
    batch = Batch(
        torch.ones(1, problem.POSITIONS, dtype=torch.int64),
        problem.TARGETS[None],
        problem.TEACHER_STATES,
    )
    loss = factorized_distillation(
        problem.TEACHER_VECTORS.numpy(),
        SoftWeights(divergence=4.0),
        divergence="forward_kl",
        temperature=1.0,
        on_device="cpu",
    )
    before = torch.get_rng_state()
    found = loss(problem.STATES, problem.VECTORS, RestrictedBatch(batch))
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn"
    expected = distillation_loss(
        problem.STATES,
        problem.VECTORS,
        problem.TARGETS,
        teacher_states=problem.TEACHER_STATES,
        teacher_item_vectors=problem.TEACHER_VECTORS,
        kd_weight=4.0,
        temperature=1.0,
    )
    assert torch.equal(found, expected)


def _store(folder: Path, layout: str) -> SoftLabels:
    common = {"teacher": "t", "item_index_sha256": "index", "trained_through": None}
    if layout == "factorized":
        describe(folder, item_vectors=problem.TEACHER_VECTORS.numpy(), **common)
    else:
        describe_sparse(folder, n_items=problem.ITEMS, shape=SparseShape(4), **common)
    return SoftLabels(folder, item_index_sha256="index")


@pytest.mark.parametrize(
    ("layout", "candidates", "weights", "divergence", "sentence"),
    [
        ("sparse", FULL, {}, "reverse_kl", "divergence is reverse_kl, but .* lists of items"),
        ("sparse", FULL, {"ranking": 0.1}, "forward_kl", "ranking_weight is 0.1, but"),
        ("sparse", FULL, {"closure": 2.0}, "forward_kl", "closure_weight is 2, but"),
        ("sparse", SAMPLED, {"hidden": 1.0}, "forward_kl", "hidden_weight is 1, but"),
        ("factorized", SAMPLED, {"ranking": 0.1}, "forward_kl", "ranking_weight is 0.1, and"),
        ("factorized", SAMPLED, {"closure": 0.1}, "forward_kl", "13 items occur in it"),
    ],
)
def test_what_cannot_be_fed_is_refused_before_training(
    tmp_path: Path,
    layout: str,
    candidates: CandidateSet,
    weights: dict[str, float],
    divergence: DivergenceName,
    sentence: str,
) -> None:
    with pytest.raises(ValueError, match=sentence):
        distilling_loss(
            _store(tmp_path, layout),
            candidates,
            SoftWeights(divergence=4.0, **weights),
            divergence=divergence,
            temperature=1.0,
            device="cpu",
        )
