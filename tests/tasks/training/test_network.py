"""The stages that train: what they write, and that a kill changes none of it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from recsys_core.artifacts import Artifact
from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels.description import SoftLabelDescription, SoftLabelError
from recsys_core.data.soft_labels.sparse import SparseRows, SparseShape
from recsys_core.evaluation.teacher_slices import PositionSlice
from recsys_core.models.checkpoint import load_model
from recsys_core.models.ensemble import Ensemble, load_recommender
from recsys_core.training.batching import Recent
from tasks.contracts.network import Curve
from tasks.contracts.teacher import TeacherPlan
from tasks.engine.stage import StageRun
from tasks.stages.control import control
from tasks.stages.distill import DistillationConfig, distill
from tasks.stages.train_teacher import train_teacher
from tasks.training.network import NetworkConfig, build_network, train_without_teacher
from tasks.training.prepared import Prepared
from tasks.training.student import StudentConfig
from tasks.training.teacher import TeacherConfig
from tests.sparse_store import write_sparse_store
from tests.teacher_check import made_up_check

FILES = ("curve.json", "model.json", "model.safetensors", "summary.json")


def _bytes(run: StageRun) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.out.iterdir()}


def _ndcg(folder: Path, prepared: Artifact) -> float:
    return Prepared(prepared).validator(1000)(load_model(folder))


@pytest.fixture
def train(
    make_run: Callable[[str], StageRun],
    obvious_world: Artifact,
    trained_teacher: Artifact,
    teacher_check: Artifact,
    soft_labels: Artifact,
    tiny_network: NetworkConfig,
    full_training: TeacherPlan,
) -> Callable[..., tuple[StageRun, dict[str, Any]]]:
    """Run one of the training stages by name."""

    def run_stage(
        stage: str,
        folder: str = "out",
        *,
        network: NetworkConfig = tiny_network,
        distillation: DistillationConfig | None = None,
        labels: Artifact | None = None,
        check: Artifact = teacher_check,
        recovery: int = 0,
        progress: Callable[[float, str], None] | None = None,
        **teacher: Any,
    ) -> tuple[StageRun, dict[str, Any]]:
        run = make_run(folder)
        if progress is not None:
            run = replace(run, progress=progress)
        if stage != "distill":
            body = {"train_teacher": train_teacher, "control": control}[stage].body
            if stage == "control":
                return run, body(run, network, recovery_epochs=recovery, prepared=obvious_world)
            config = TeacherConfig.model_validate(network.model_dump() | teacher)
            planned = Artifact("plan_teacher", "plan", run.scratch)
            full_training.save(planned.folder)
            return run, body(run, config=config, prepared=obvious_world, teacher_plan=planned)
        body = distill.body
        summary = body(
            run,
            config=distillation or DistillationConfig(),
            student=StudentConfig.model_validate(network.model_dump()),
            prepared=obvious_world,
            teacher=trained_teacher,
            teacher_check=check,
            soft_labels=labels or soft_labels,
        )
        return run, summary

    return run_stage


def _narrow(network: NetworkConfig) -> NetworkConfig:
    model = network.model.model_copy(update={"embedding_dim": 8})
    return network.model_copy(update={"model": model})


@pytest.mark.parametrize("stage", ["train_teacher", "control", "distill"])
def test_a_stage_writes_the_model_that_it_summarises(
    train: Callable[..., tuple[StageRun, dict[str, Any]]],
    obvious_world: Artifact,
    tiny_network: NetworkConfig,
    stage: str,
) -> None:
    run, summary = train(stage, network=_narrow(tiny_network))
    lineage = ["lineage.json"] if stage == "train_teacher" else []
    assert sorted(_bytes(run)) == sorted([*FILES, *lineage])
    model = load_model(run.out)
    assert model.config == _narrow(tiny_network).model
    epochs = Curve.load(run.out).epochs
    assert [epoch.epoch for epoch in epochs] == list(range(1, 11))
    best = max(epochs, key=lambda epoch: epoch.validation_ndcg_at_10 or 0)
    assert summary.pop("mode", "full") == "full"
    assert summary == {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": 10,
        "best_epoch": best.epoch,
        "validation_ndcg_at_10": best.validation_ndcg_at_10,
        "recency_prior": None,  # under leave-one-out no event is more recent than others
    }
    assert _ndcg(run.out, obvious_world) == summary["validation_ndcg_at_10"] > 0.9


@pytest.mark.parametrize("stage", ["train_teacher", "distill"])
def test_a_kill_changes_no_byte(
    train: Callable[..., tuple[StageRun, dict[str, Any]]], stage: str
) -> None:
    undisturbed, summary = train(stage, "undisturbed")

    def kill(fraction: float, message: str) -> None:
        if fraction > 0.55:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stage, "killed", progress=kill)
    resumed: list[float] = []
    killed, again = train(stage, "killed", progress=lambda fraction, _: resumed.append(fraction))
    assert min(resumed) >= 0.5, "it continues after the last checkpoint"
    assert _bytes(killed) == _bytes(undisturbed)
    assert again == summary


@pytest.mark.parametrize("stage", ["train_teacher", "distill"])
def test_a_network_whose_weights_were_deleted_is_trained_again(
    train: Callable[..., tuple[StageRun, dict[str, Any]]],
    tiny_network: NetworkConfig,
    stage: str,
) -> None:
    """So does the engine with damaged files; the summary alone is no network."""
    short = tiny_network.training.model_copy(update={"epochs": 1})
    network = tiny_network.model_copy(update={"training": short})
    run, summary = train(stage, network=network)
    whole = _bytes(run)
    (run.out / "model.safetensors").unlink()
    shutil.rmtree(run.scratch)  # the engine has deleted it, with the checkpoint
    _, again = train(stage, network=network)
    assert again == summary
    assert _bytes(run) == whole


def test_weights_begin_with_the_seed(obvious_world: Artifact, tiny_network: NetworkConfig) -> None:
    data = Prepared(obvious_world)
    first, same = build_network(data, tiny_network), build_network(data, tiny_network)
    assert (first.id_embedding == same.id_embedding).all()
    training = tiny_network.training.model_copy(update={"seed": 2})
    other = build_network(data, tiny_network.model_copy(update={"training": training}))
    assert (first.id_embedding != other.id_embedding).any()


def test_distillation_pulls_the_student_towards_its_teacher(
    train: Callable[..., tuple[StageRun, dict[str, Any]]], tiny_network: NetworkConfig
) -> None:
    short = tiny_network.training.model_copy(update={"epochs": 1})
    network = tiny_network.model_copy(update={"training": short})
    plain = DistillationConfig(kd_weight=0, initialise="random")
    alone, alone_summary = train("control", "control", network=network)
    same, same_summary = train("distill", "same", network=network, distillation=plain)
    assert same_summary == alone_summary
    assert (same.out / "model.safetensors").read_bytes() == (
        alone.out / "model.safetensors"
    ).read_bytes()
    _, longer = train("control", "longer", network=network, recovery=2)
    assert longer["epochs"] == 3, "what ships is trained again after pruning"
    begun = DistillationConfig(kd_weight=0, initialise="teacher")
    _, with_teacher = train("distill", "begun", network=network, distillation=begun)
    assert with_teacher["validation_ndcg_at_10"] > alone_summary["validation_ndcg_at_10"] + 0.1


def test_the_divergence_that_is_set_trains_the_student(
    train: Callable[..., tuple[StageRun, dict[str, Any]]], tiny_network: NetworkConfig
) -> None:
    short = tiny_network.training.model_copy(update={"epochs": 1})
    network = tiny_network.model_copy(update={"training": short})

    def student(folder: str, **divergence: str) -> bytes:
        config = DistillationConfig.model_validate(divergence)
        run, _ = train("distill", folder, network=network, distillation=config)
        return (run.out / "model.safetensors").read_bytes()

    names = ("forward_kl", "reverse_kl", "jensen_shannon")
    students = [student(name, divergence=name) for name in names]
    assert student("default") == students[0]
    assert len(set(students)) == 3


def test_labels_of_a_slice_with_a_worse_teacher_do_not_count(
    train: Callable[..., tuple[StageRun, dict[str, Any]]],
    tiny_network: NetworkConfig,
    tmp_path: Path,
) -> None:
    """Without the labels of cold and of warm users, a student has events only."""
    short = tiny_network.training.model_copy(update={"epochs": 1})
    network = tiny_network.model_copy(update={"training": short})

    def student(folder: str, *worse: PositionSlice, **distillation: Any) -> bytes:
        check = Artifact("check_teacher", folder, tmp_path / folder)
        made_up_check(*worse, cold_user_events=6).save(check.folder)
        config = DistillationConfig.model_validate(distillation)
        run, _ = train("distill", folder, network=network, distillation=config, check=check)
        return (run.out / "model.safetensors").read_bytes()

    all_count = student("all")
    assert student("trusted", "cold_users", trust="everywhere") == all_count
    assert student("cold", "cold_users") not in (
        all_count,
        events_only := student("0", kd_weight=0),
    )
    assert student("both", "cold_users", "warm_users") == events_only


@pytest.mark.parametrize("weight", ["ranking_weight", "closure_weight", "hidden_weight"])
def test_each_weight_trains_the_student(
    train: Callable[..., tuple[StageRun, dict[str, Any]]], tiny_network: NetworkConfig, weight: str
) -> None:
    short = tiny_network.training.model_copy(update={"epochs": 1})
    network = tiny_network.model_copy(update={"training": short})
    config = DistillationConfig.model_validate({weight: 0.5})
    plain, _ = train("distill", "plain", network=network)
    with_weight, _ = train("distill", "weight", network=network, distillation=config)
    again, _ = train("distill", "again", network=network, distillation=config)
    assert _bytes(with_weight)["model.safetensors"] != _bytes(plain)["model.safetensors"]
    assert _bytes(again) == _bytes(with_weight)


def test_a_student_learns_on_drawn_candidates(
    train: Callable[..., tuple[StageRun, dict[str, Any]]], tiny_network: NetworkConfig
) -> None:
    drawing = {"loss": "sampled_softmax", "n_negatives": 8, "epochs": 8}
    training = tiny_network.training.model_copy(update=drawing)
    network = tiny_network.model_copy(update={"training": training})
    config = DistillationConfig(initialise="random")
    _, summary = train("distill", "drawn", network=network, distillation=config)
    assert summary["validation_ndcg_at_10"] > 0.9
    refused = DistillationConfig(closure_weight=1)
    with pytest.raises(ValueError, match=r"closure_weight is 1, and this training compares"):
        train("distill", "refused", network=network, distillation=refused)


def test_an_ensemble_is_as_good_as_its_members_and_goes_on_after_a_kill(
    train: Callable[..., tuple[StageRun, dict[str, Any]]],
    obvious_world: Artifact,
    tiny_network: NetworkConfig,
) -> None:
    others = [_narrow(tiny_network).model_dump()]
    undisturbed, summary = train("train_teacher", "undisturbed", n_seeds=2, others=others)
    teacher = load_recommender(undisturbed.out)
    assert isinstance(teacher, Ensemble)
    assert teacher.width == 16 + 16 + 8
    assert summary["validation_ndcg_at_10"] > 0.9
    assert len(summary["members"]) == 3
    assert Prepared(obvious_world).validator(1000)(teacher) == summary["validation_ndcg_at_10"]

    def kill(fraction: float, message: str) -> None:
        if fraction > 0.5:
            assert message.startswith("network 2 of 3, ")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("train_teacher", "killed", progress=kill, n_seeds=2, others=others)
    killed, again = train("train_teacher", "killed", n_seeds=2, others=others)
    assert again == summary
    for name in ("model.safetensors", "member-1/model.safetensors", "member-2/model.safetensors"):
        assert (killed.out / name).read_bytes() == (undisturbed.out / name).read_bytes()


@pytest.mark.parametrize("kind", ["lists", "scores", "draws"])
def test_a_student_learns_from_sparse_labels(
    train: Callable[..., tuple[StageRun, dict[str, Any]]],
    obvious_world: Artifact,
    tmp_path: Path,
    kind: str,
) -> None:
    """The teacher expects the item that comes next, after every other event; then a wrong one."""
    data = Prepared(obvious_world)

    def label(
        histories: ResidentHistories, events: NDArray[np.int64], rows: SparseRows
    ) -> SparseRows:
        upcoming = histories.items[events + 1]
        ids = np.stack([upcoming, upcoming % len(data.items) + 1], axis=1)
        if kind == "lists":
            return rows._replace(top_ids=ids)
        if kind == "scores":
            logits = np.tile(np.array([3, 1], np.float32), (len(ids), 1))
            normalizer = np.full(len(ids), 3.5, np.float32)
            return rows._replace(top_ids=ids, top_logits=logits, log_normalizer=normalizer)
        counts = np.tile([9, 1] + [0] * 8, (len(ids), 1))
        drawn = np.pad(ids, ((0, 0), (0, 8)))
        return rows._replace(top_ids=ids, sample_ids=drawn, sample_counts=counts)

    shape = SparseShape(
        2,
        with_logits=kind == "scores",
        with_normalizer=kind == "scores",
        n_samples=10 if kind == "draws" else 0,
    )
    store = write_sparse_store(
        tmp_path / "sparse", data.buckets, shape, label, n_items=len(data.items), every=2
    )
    store.description.model_copy(update={"item_index_sha256": data.split.item_index_sha256}).save(
        store.folder
    )
    labels = Artifact("write_soft_labels", "sparse", store.folder)
    random = DistillationConfig(initialise="random", kd_weight=4)
    _, summary = train("distill", labels=labels, distillation=random)
    assert summary["validation_ndcg_at_10"] > 0.9
    with pytest.raises(ValueError, match=r"distillation\.divergence is reverse_kl, but"):
        train("distill", labels=labels, distillation=DistillationConfig(divergence="reverse_kl"))


def test_labels_over_another_index_are_refused(
    train: Callable[..., tuple[StageRun, dict[str, Any]]], soft_labels: Artifact, tmp_path: Path
) -> None:
    older = replace(soft_labels, folder=tmp_path / "older")
    shutil.copytree(soft_labels.folder, older.folder)
    written = SoftLabelDescription.load(older)
    written.model_copy(update={"item_index_sha256": "older"}).save(older.folder)
    with pytest.raises(SoftLabelError, match="made over another item index"):
        train("distill", labels=older)


def test_a_warm_start_keeps_what_was_learnt_of_items_whose_events_are_gone(
    make_run: Callable[[str], StageRun],
    obvious_world: Artifact,
    trained_teacher: Artifact,
    tiny_network: NetworkConfig,
    tmp_path: Path,
) -> None:
    prepared = Artifact("prepare", "later", tmp_path / "later")
    shutil.copytree(obvious_world.folder, prepared.folder)
    gone = 4
    for path in prepared.file("histories").glob("*.parquet"):  # those who had it have left
        users = pl.read_parquet(path)
        users.filter(~pl.col("item_idx").list.contains(gone)).write_parquet(path)
    model = load_model(trained_teacher.folder)
    before = model.item_vectors().detach().clone()
    assert model.has_id_embedding(np.array([gone])).all()
    training = tiny_network.training.model_copy(update={"epochs": 1, "validate_every": 1})
    train_without_teacher(
        make_run("warm"),
        tiny_network.model_copy(update={"training": training}),
        Prepared(prepared),
        model=model,
        recent=Recent(0, 0.0),
    )
    assert model.has_id_embedding(np.array([gone])).all()
    after = model.item_vectors().detach()
    assert torch.cosine_similarity(after[gone], before[gone], dim=0) > 0.9
