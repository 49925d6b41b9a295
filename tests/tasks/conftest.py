"""Trained models of the tiny world, made once by the stages' own bodies; an empty registry."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_core.artifacts import Artifact
from recsys_core.data.histories.cases import read_cases
from recsys_core.evaluation.results import (
    ChampionNote,
    EvaluationMetrics,
    ModelResult,
    SliceResult,
    UserMean,
)
from recsys_core.models.recommender import ModelConfig
from recsys_core.training.loop import TrainingConfig
from tasks.contracts.family import MAIN, Family, FamilyMember
from tasks.contracts.network import Curve, Epoch
from tasks.contracts.teacher import TeacherPlan
from tasks.engine.night import Night
from tasks.engine.stage import StageRun
from tasks.registry.store import Registry, RegistryConfig
from tasks.stages.train_teacher import train_teacher
from tasks.stages.write_soft_labels import SoftLabelConfig, write_soft_labels
from tasks.training.network import NetworkConfig
from tasks.training.teacher import TeacherConfig
from tests.teacher_check import made_up_check


@pytest.fixture(scope="session")
def tiny_network() -> NetworkConfig:
    """A network that learns the obvious world in about a second."""
    return NetworkConfig(
        model=ModelConfig(
            embedding_dim=16, n_layers=1, n_heads=2, ffn_dim=16, max_length=8, dropout=0.1
        ),
        training=TrainingConfig(
            epochs=10, batch_size=16, learning_rate=1e-2, validate_every=5, precision="fp32"
        ),
        content_features=8,
    )


def _run(folder: Path) -> StageRun:
    scratch = folder / "scratch"
    scratch.mkdir()
    return StageRun.bare(folder, folder, scratch=scratch)


@pytest.fixture(scope="session")
def full_training() -> TeacherPlan:
    """The plan of a first night."""
    return TeacherPlan(
        mode="full",
        parent=None,
        reasons=("There is no earlier teacher that fits.",),
        since=None,
        last=None,
        drift=0.0,
        full_events=100,
        warm_events=0,
        transferred_from=None,
    )


@pytest.fixture(scope="session")
def trained_teacher(
    obvious_world: Artifact,
    tiny_network: NetworkConfig,
    full_training: TeacherPlan,
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact:
    folder = tmp_path_factory.mktemp("teacher")
    body = train_teacher.body
    config = TeacherConfig.model_validate(tiny_network.model_dump())
    planned = Artifact("plan_teacher", "plan-key", tmp_path_factory.mktemp("plan"))
    full_training.save(planned.folder)
    body(_run(folder), config=config, prepared=obvious_world, teacher_plan=planned)
    return Artifact("train_teacher", "teacher-key", folder)


@pytest.fixture(scope="session")
def soft_labels(
    obvious_world: Artifact, trained_teacher: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    folder = tmp_path_factory.mktemp("soft_labels")
    body = write_soft_labels.body
    body(
        _run(folder),
        SoftLabelConfig(),
        max_length=8,
        label_store=None,
        loss="auto",
        prepared=obvious_world,
        teacher=trained_teacher,
    )
    return Artifact("write_soft_labels", "labels-key", folder)


@pytest.fixture(scope="session")
def teacher_check(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The check of a teacher that is worse than a baseline on no slice."""
    folder = tmp_path_factory.mktemp("teacher_check")
    made_up_check().save(folder)
    return Artifact("check_teacher", "check-key", folder)


@pytest.fixture
def shifted_world(obvious_world: Artifact, tmp_path: Path) -> Artifact:
    """The obvious world where the items of the validation window have been popular lately."""
    items = pl.read_parquet(obvious_world.file("items.parquet"))
    targets = np.concatenate(
        [
            read_cases(bucket, items, "validation", exclude_seen=True).targets
            for bucket in sorted(obvious_world.file("histories").glob("*.parquet"))
        ]
    )
    counts = np.bincount(targets, minlength=items.height + 1)[1:]
    folder = tmp_path / "shifted"
    folder.mkdir()
    for path in obvious_world.folder.iterdir():
        if path.name != "items.parquet":
            (folder / path.name).symlink_to(path)
    items.with_columns(recent_count=pl.Series(10 * counts**2)).write_parquet(
        folder / "items.parquet"
    )
    return Artifact("prepare", "shifted", folder)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables: it does so once, and tests copy the file."""
    workspace = tmp_path_factory.mktemp("mlflow")
    Registry(workspace, RegistryConfig()).client.search_registered_models()
    return workspace / "mlflow.db"


@pytest.fixture
def workspace(night: Night, migrated_database: Path) -> Path:
    """The night's workspace with an empty registry."""
    night.workspace.mkdir(exist_ok=True)
    shutil.copy(migrated_database, night.workspace / "mlflow.db")
    return night.workspace


@pytest.fixture
def registry(workspace: Path) -> Registry:
    return Registry(workspace, RegistryConfig())


@pytest.fixture
def made(served_folder: Path, tmp_path: Path) -> Callable[[str], Artifact]:
    """Outputs of earlier stages: "compressed", "evaluated", or a trained network's."""

    def make(stage: str) -> Artifact:
        folder = tmp_path / stage
        if stage == "compressed":
            shutil.copytree(served_folder, folder, dirs_exist_ok=True)
            only = FamilyMember(
                name=MAIN, size_bytes=4096, ndcg_at_10=0.25, low=0.0, fits=True, is_good_enough=True
            )
            Family(members=(only,), shipped=MAIN).save(folder)
        elif stage == "evaluated":
            _metrics().save(folder)
        else:
            first = Epoch(epoch=1, loss=3.5, validation_ndcg_at_10=None)
            second = Epoch(epoch=2, loss=3.25, validation_ndcg_at_10=0.125)
            Curve(epochs=[first, second]).save(folder)
        return Artifact(stage, f"key-{stage}", folder)

    return make


def _metrics() -> EvaluationMetrics:
    value = UserMean(mean=0.25, low=0.125, high=0.5)
    no_value = UserMean(mean=None, low=None, high=None)
    slices = {
        "all": SliceResult(n_users=7, ndcg_at_10=value, recall_at_10=value, mrr=value),
        "cold_users": SliceResult(
            n_users=0, ndcg_at_10=no_value, recall_at_10=no_value, mrr=no_value
        ),
    }
    return EvaluationMetrics(
        split="test",
        n_cases=1234,
        n_users=7,
        dropped={},
        champion=ChampionNote(version=None, not_compared_because="There is no champion yet."),
        models={
            "compressed": ModelResult(size_bytes=4096, slices=slices),
            "popularity": ModelResult(size_bytes=None, slices=slices),
        },
    )
