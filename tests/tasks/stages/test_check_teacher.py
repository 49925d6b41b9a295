"""The teacher check: against recent popularity and the last teacher, before anything is built."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys_core.artifacts import Artifact, write_json
from recsys_core.evaluation.recency_prior import PriorWeights, prior_bias
from recsys_core.models.checkpoint import load_model, save_model
from recsys_core.models.ranker import model_ranker
from recsys_core.models.recommender import ModelConfig, Recommender
from tasks.contracts.network import Curve, Epoch
from tasks.contracts.teacher import Lineage, TeacherCheck, TeacherPlan
from tasks.engine.stage import StageRun
from tasks.registry.store import Registry, RegistryConfig
from tasks.stages.check_teacher import (
    TeacherCheckConfig,
    TeacherRefusedError,
    check_teacher,
    widened,
)
from tasks.training.prepared import Prepared

Check = Callable[..., TeacherCheck]


@pytest.fixture
def untrained(trained_teacher: Artifact, tmp_path: Path) -> Artifact:
    """A teacher that has learnt nothing, beside the others."""
    torch.manual_seed(0)
    trained = load_model(trained_teacher.folder)
    folder = tmp_path / "train_teacher" / "untrained"
    folder.mkdir(parents=True)
    content = trained.content and trained.content.features
    save_model(folder, Recommender(trained.n_items, trained.config, content))
    for name in (Curve.file_name, Lineage.file_name):
        (folder / name).write_bytes(trained_teacher.file(name).read_bytes())
    return Artifact("train_teacher", "untrained", folder)


@pytest.fixture
def check(
    make_run: Callable[[str], StageRun],
    obvious_world: Artifact,
    workspace: Path,
    tmp_path: Path,
    full_training: TeacherPlan,
) -> Check:
    """Run the stage and return its `check.json`."""
    assert workspace.exists()

    def run_stage(
        teacher: Artifact,
        last: Artifact | None = None,
        prepared: Artifact = obvious_world,
        **changes: Any,
    ) -> TeacherCheck:
        run = make_run("check")
        plan = tmp_path / "plan"
        key = None if last is None else last.key
        full_training.model_copy(update={"last": key}).save(plan)
        check_teacher.body(
            run,
            config=TeacherCheckConfig(**changes),
            registry=RegistryConfig(),
            name="test",
            run_date=date(2026, 3, 10),
            prepared=prepared,
            teacher_plan=Artifact("plan_teacher", "plan", plan),
            teacher=teacher,
        )
        return TeacherCheck.load(run.out)

    return run_stage


def _beside(teacher: Artifact, other: Artifact) -> Artifact:
    """The other one, as an output of the same stage in the same workspace."""
    folder = teacher.folder.with_name(other.key)
    if not folder.exists():
        folder.symlink_to(other.folder)
    write_json(folder / "manifest.json", {"files": {}})
    return Artifact("train_teacher", other.key, folder)


def test_a_good_teacher_is_registered_with_its_lineage(
    check: Check, trained_teacher: Artifact, workspace: Path
) -> None:
    checked = check(trained_teacher)
    assert checked.ndcg_at_10["teacher"] > 0.9 > checked.ndcg_at_10["popularity"]
    assert checked.objections == []
    registry = Registry(workspace, RegistryConfig())
    (version,) = registry.versions("test-teacher")
    assert version.number == checked.version == 1
    assert version.tags["made_of.train_teacher"] == "teacher-key"
    assert version.tags["lineage.mode"] == "full"
    model = load_model(registry.download("test-teacher", 1))
    expected = load_model(trained_teacher.folder)
    torch.testing.assert_close(model.item_vectors(), expected.item_vectors(), atol=0, rtol=0)
    assert check(trained_teacher).version == 1, "a rerun registers nothing twice"


def test_the_curves_of_all_members_are_logged(
    check: Check, trained_teacher: Artifact, workspace: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "train_teacher" / "two"
    shutil.copytree(trained_teacher.folder, folder)
    shutil.copytree(trained_teacher.folder, folder / "member-1")
    curve = Curve(epochs=[Epoch(epoch=1, loss=2.5, validation_ndcg_at_10=None)])
    curve.save(folder / "member-1")
    check(Artifact("train_teacher", "two", folder))
    client = Registry(workspace, RegistryConfig()).client
    run_id = client.get_model_version("test-teacher", "1").run_id
    assert run_id is not None
    run = client.get_run(run_id)
    assert run.data.metrics["curve/teacher-1/loss"] == 2.5
    assert "curve/teacher/loss" in run.data.metrics
    assert "curve/teacher-1/validation_ndcg_at_10" not in run.data.metrics


def test_a_teacher_below_popularity_stops_the_night(
    check: Check, untrained: Artifact, workspace: Path
) -> None:
    with pytest.raises(TeacherRefusedError, match=r"recent popularity alone at 0\.\d+"):
        check(untrained)
    assert Registry(workspace, RegistryConfig()).versions("test-teacher") == []
    assert check(untrained, enabled=False).objections


@pytest.fixture
def other_habits(obvious_world: Artifact, tmp_path: Path) -> Artifact:
    """The obvious world, but users with at most 6 events go on to one popular item.

    No training event says so. Those who had the item are gone.
    """
    prepared = Artifact("prepare", "other", tmp_path / "other")
    shutil.copytree(obvious_world.folder, prepared.folder)
    popular = 7
    items = pl.read_parquet(prepared.file("items.parquet"))
    recent = pl.when(pl.col("item_idx") == popular).then(1000).otherwise("recent_count")
    items.with_columns(recent_count=recent).write_parquet(prepared.file("items.parquet"))
    history, end = pl.col("item_idx"), pl.col("train_end")
    walked = pl.concat_list(history.list.head(end), pl.lit(popular, pl.Int32), history.list.tail(1))
    for path in prepared.file("histories").glob("*.parquet"):
        users = pl.read_parquet(path).filter((end > 6) | ~history.list.contains(popular))
        changed = pl.when(end <= 6).then(walked).otherwise(history)
        users.with_columns(item_idx=changed).write_parquet(path)
    return prepared


def test_it_says_on_which_slice_the_teacher_is_worse(
    check: Check, trained_teacher: Artifact, other_habits: Artifact
) -> None:
    changes = {"cold_user_events": 6, "min_slice_users": 10}
    checked = check(trained_teacher, prepared=other_habits, **changes)
    assert checked.teacher == "teacher-key"
    assert checked.cold_user_events == 6
    by_name = {comparison.slice: comparison for comparison in checked.slices}
    cold, warm = by_name["cold_users"], by_name["warm_users"]
    assert min(cold.n_users, warm.n_users) > 10
    assert cold.teacher_ndcg_at_10 < 0.9 < cold.baseline_ndcg_at_10
    assert warm.teacher_ndcg_at_10 > warm.baseline_ndcg_at_10
    assert checked.left_out("by_slice", "teacher-key") == (cold,)
    assert checked.left_out("everywhere", "teacher-key") == ()
    assert checked.left_out("by_slice", "another one") == ()
    few = check(trained_teacher, prepared=other_habits, **changes | {"min_slice_users": 50})
    assert few.left_out("by_slice", "teacher-key") == ()


def test_a_good_teacher_is_worse_nowhere(check: Check, trained_teacher: Artifact) -> None:
    checked = check(trained_teacher, min_slice_users=1)
    assert {comparison.slice for comparison in checked.slices} >= {"cold_users", "head", "mid"}
    assert not any(comparison.worse for comparison in checked.slices)
    assert checked.ndcg_at_10.keys() == {
        "teacher",
        "teacher without prior",
        "popularity",
        "item_knn",
    }
    assert checked.ndcg_at_10["teacher"] == checked.ndcg_at_10["teacher without prior"]


def _with_prior(teacher: Artifact, prepared: Artifact, name: str) -> Artifact:
    """The teacher, which ranks by recent popularity alone where its prior counts."""
    data = Prepared(prepared)
    folder = teacher.folder.with_name(name)
    shutil.copytree(teacher.folder, folder)
    model = load_model(folder)
    counts = (data.items[column].to_numpy() for column in ("recent_count", "train_count"))
    model.item_bias = torch.from_numpy(1000 * prior_bias(PriorWeights(1.0, 0.0), *counts))
    save_model(folder, model)
    return Artifact("train_teacher", name, folder)


def test_the_prior_counts_against_popularity_but_not_against_item_knn(
    check: Check, untrained: Artifact, shifted_world: Artifact
) -> None:
    """Popularity knows what is recent, item-kNN does not."""
    teacher = _with_prior(untrained, shifted_world, "popular")
    changes = {"prepared": shifted_world, "min_slice_users": 1, "enabled": False}
    plain, checked = check(untrained, **changes), check(teacher, **changes)
    figures = checked.ndcg_at_10
    assert figures["teacher"] == pytest.approx(figures["popularity"], abs=0.02)
    assert figures["teacher without prior"] == plain.ndcg_at_10["teacher"] < figures["teacher"]
    for before, after in zip(plain.slices, checked.slices, strict=True):
        if after.baseline == "item_knn":
            assert after == before
        else:
            assert after.teacher_ndcg_at_10 > before.teacher_ndcg_at_10


def test_teachers_of_two_nights_are_compared_without_their_priors(
    check: Check, untrained: Artifact, shifted_world: Artifact
) -> None:
    """The last night's prior knows nothing of this one's counts."""
    tonight = _with_prior(untrained, shifted_world, "tonight")
    last = _beside(tonight, untrained)
    figures = check(tonight, last, prepared=shifted_world, enabled=False).ndcg_at_10
    assert figures["last teacher"] == figures["teacher without prior"] < figures["teacher"]
    figures = check(last, _beside(last, tonight), prepared=shifted_world, enabled=False).ndcg_at_10
    assert figures["last teacher"] == figures["teacher"]


def test_a_teacher_that_is_worse_than_the_last_one_stops_the_night(
    check: Check, untrained: Artifact, trained_teacher: Artifact
) -> None:
    last = _beside(untrained, trained_teacher)
    with pytest.raises(TeacherRefusedError, match=r"the last teacher at 1\.0000 on the same"):
        check(untrained, last)


def test_a_teacher_as_good_as_the_last_one_passes(
    check: Check, untrained: Artifact, trained_teacher: Artifact
) -> None:
    same = _beside(untrained, trained_teacher)
    checked = check(same, same)
    assert checked.ndcg_at_10["last teacher"] == checked.ndcg_at_10["teacher"]
    assert checked.objections == []


def test_a_last_teacher_that_was_deleted_is_not_compared_with(
    check: Check, trained_teacher: Artifact
) -> None:
    gone = Artifact("train_teacher", "gone", trained_teacher.folder)
    assert "last teacher" not in check(trained_teacher, gone).ndcg_at_10


def test_what_an_earlier_model_does_not_know_it_never_recommends() -> None:
    torch.manual_seed(0)
    config = ModelConfig(embedding_dim=8, n_layers=1, n_heads=1, ffn_dim=8, max_length=5)
    model = Recommender(4, config, None).eval()
    known, new = np.array([1, 2], np.int32), np.array([1, 6, 2], np.int32)
    only_new = np.array([6, 5], np.int32)
    cold_start = np.arange(7, dtype=np.float32)
    scores = widened(model, cold_start)([known, new, only_new])
    assert scores.shape == (3, 7)
    np.testing.assert_array_equal(scores[:2, :5], model_ranker(model)([known, known]))
    assert scores[2, :5].tolist() == [0, 1, 2, 3, 4], "it knows nothing of this history"
    assert np.isneginf(scores[:, 5:]).all()
