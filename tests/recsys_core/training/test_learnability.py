"""The contract of everything that learns: where the rule is obvious, it is found."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch

from recsys_core.artifacts import Artifact
from recsys_core.compression.structure import initialise_from_teacher
from recsys_core.data.histories.cases import candidate_mask, read_cases
from recsys_core.data.soft_labels.factorized import describe
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.distillation.labelling import label_bucket
from recsys_core.distillation.losses.soft_targets import distillation_loss
from recsys_core.evaluation.ranking import rank_targets
from recsys_core.models.ranker import model_ranker
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.training.batching import TrainingSet
from recsys_core.training.gradients import Loss
from recsys_core.training.loop import TrainingConfig, fit
from recsys_core.training.losses.full_softmax import next_item_cross_entropy
from recsys_core.training.negative_sampling import FullCatalogue, RestrictedBatch
from recsys_core.training.validation import Validator

TEACHER = ModelConfig(
    embedding_dim=16, n_layers=2, n_heads=2, ffn_dim=32, max_length=12, dropout=0.1
)
STUDENT = ModelConfig(embedding_dim=8, n_layers=1, n_heads=1, ffn_dim=16, max_length=12, dropout=0)
KINDS = [
    STUDENT,
    STUDENT.model_copy(update={"n_repeats": 2}),
    STUDENT.model_copy(update={"encoder": "gru"}),
    STUDENT.model_copy(update={"encoder": "pooling", "n_heads": 2}),
]
KIND_NAMES = ["attention", "repeated", "gru", "pooling"]
CONFIG = TrainingConfig(
    epochs=30, batch_size=12, learning_rate=1e-2, validate_every=10, patience=3, precision="fp32"
)


def _hard(
    states: torch.Tensor, item_vectors: torch.Tensor, restricted: RestrictedBatch
) -> torch.Tensor:
    targets = restricted.batch.targets
    return next_item_cross_entropy(states, item_vectors, targets[targets > 0])


def _soft(labels: SoftLabels, kd_weight: float) -> Loss:
    teacher_item_vectors = torch.from_numpy(labels.item_vectors())

    def loss(
        states: torch.Tensor, item_vectors: torch.Tensor, restricted: RestrictedBatch
    ) -> torch.Tensor:
        batch = restricted.batch
        assert batch.teacher_states is not None
        return distillation_loss(
            states,
            item_vectors,
            batch.targets[batch.targets > 0],
            teacher_states=batch.teacher_states,
            teacher_item_vectors=teacher_item_vectors,
            kd_weight=kd_weight,
            temperature=2.0,
        )

    return loss


Learn = Callable[..., Recommender]


@pytest.fixture(scope="module")
def learn(obvious_world: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Learn:
    buckets = sorted(obvious_world.file("histories").glob("*.parquet"))
    items = pl.read_parquet(obvious_world.file("items.parquet"))
    validator = Validator(buckets, items, exclude_seen=True, max_cases=1000)

    def run(size: ModelConfig, loss: Loss, labels: SoftLabels | None = None) -> Recommender:
        torch.manual_seed(CONFIG.seed)
        model = Recommender(16, size, None)
        training_set = TrainingSet(
            buckets, max_length=size.max_length, batch_size=CONFIG.batch_size, labels=labels
        )
        checkpoint = tmp_path_factory.mktemp("checkpoint")
        fit(
            model,
            training_set,
            CONFIG,
            candidates=FullCatalogue(training_set.item_counts(16)),
            loss=loss,
            validate=validator,
            checkpoint=checkpoint,
            clock=float,
        )
        return model

    return run


@pytest.fixture(scope="module")
def teacher(learn: Learn) -> Recommender:
    return learn(TEACHER, _hard)


@pytest.fixture(scope="module")
def labels(
    obvious_world: Artifact, teacher: Recommender, tmp_path_factory: pytest.TempPathFactory
) -> SoftLabels:
    folder = tmp_path_factory.mktemp("soft")
    for bucket in sorted(obvious_world.file("histories").glob("*.parquet")):
        label_bucket(teacher, bucket, folder / "labels" / bucket.name)
    describe(
        folder,
        teacher="teacher",
        item_index_sha256="index",
        trained_through=None,
        item_vectors=teacher.item_vectors().detach().numpy(),
    )
    return SoftLabels(folder, item_index_sha256="index")


def _withheld_ranks(model: Recommender, world: Artifact) -> np.ndarray:
    items = pl.read_parquet(world.file("items.parquet"))
    ranks: list[np.ndarray] = []
    for bucket in sorted(world.file("histories").glob("*.parquet")):
        cases = read_cases(bucket, items, "test", exclude_seen=True)
        candidates = candidate_mask(items, "test")
        ranks.append(rank_targets(model_ranker(model), cases, candidates, exclude_seen=True))
    return np.concatenate(ranks)


def test_the_teacher_learns_the_rule(teacher: Recommender, obvious_world: Artifact) -> None:
    assert _withheld_ranks(teacher, obvious_world).tolist() == [1] * 60


@pytest.mark.parametrize("size", KINDS, ids=KIND_NAMES)
def test_the_control_learns_the_rule(
    learn: Learn, obvious_world: Artifact, size: ModelConfig
) -> None:
    assert _withheld_ranks(learn(size, _hard), obvious_world).tolist() == [1] * 60


@pytest.mark.parametrize("size", KINDS, ids=KIND_NAMES)
@pytest.mark.parametrize("kd_weight", [1.0, 20.0])
def test_the_student_learns_the_rule(
    learn: Learn, labels: SoftLabels, obvious_world: Artifact, size: ModelConfig, kd_weight: float
) -> None:
    student = learn(size, _soft(labels, kd_weight), labels)
    assert _withheld_ranks(student, obvious_world).tolist() == [1] * 60


def test_chance_does_not_know_the_rule(obvious_world: Artifact) -> None:
    torch.manual_seed(0)
    ranks = _withheld_ranks(Recommender(16, STUDENT, None).eval(), obvious_world)
    assert (ranks == 1).mean() < 0.5


def test_a_student_begins_where_its_teacher_is(
    teacher: Recommender, obvious_world: Artifact
) -> None:
    student = Recommender(16, TEACHER, None).eval()
    initialise_from_teacher(student, teacher)
    assert _withheld_ranks(student, obvious_world).tolist() == [1] * 60
