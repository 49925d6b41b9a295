"""The recency prior of a network: fitted on validation events, read by all that rank."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_core.artifacts import Artifact, read_json, write_json
from recsys_core.compression.export import export_onnx
from recsys_core.compression.quantization import quantize
from recsys_core.evaluation.popularity import cold_start_scores
from recsys_core.models.checkpoint import load_model
from recsys_core.models.ensemble import load_recommender, member_folders
from recsys_core.models.ranker import model_ranker
from recsys_core.models.recommender import Recommender
from recsys_core.serving.folder import write_item_ids
from recsys_core.serving.ranker import scorer_ranker
from recsys_core.serving.scorer import Scorer
from recsys_core.training.loop import TrainingConfig
from tasks.contracts.network import NetworkSummary
from tasks.contracts.teacher import TeacherPlan
from tasks.engine.stage import StageRun
from tasks.stages.compress import CompressionConfig, compress
from tasks.stages.control import control
from tasks.stages.distill import DistillationConfig
from tasks.stages.train_teacher import train_teacher
from tasks.training.network import NetworkConfig, build_network
from tasks.training.prepared import Prepared
from tasks.training.recency import fit_recency_prior
from tasks.training.teacher import TeacherConfig


@pytest.fixture
def untrained(shifted_world: Artifact, tiny_network: NetworkConfig) -> Recommender:
    return build_network(Prepared(shifted_world), tiny_network).eval()


def test_an_ignorant_network_gets_recent_popularity(
    shifted_world: Artifact, untrained: Recommender, make_run: Callable[[str], StageRun]
) -> None:
    data = Prepared(shifted_world)
    validator = data.validator(1000)
    before = validator(untrained)
    prior = fit_recency_prior(make_run("fit"), untrained, data, validator)
    assert prior is not None
    assert prior.ndcg_without == before
    assert validator(untrained) == prior.ndcg_at_10 > before + 0.05
    again = fit_recency_prior(make_run("again"), untrained, data, validator)
    assert again == prior, "an earlier prior does not count"


def test_a_network_that_knows_better_gets_none(
    shifted_world: Artifact, trained_teacher: Artifact, make_run: Callable[[str], StageRun]
) -> None:
    data, model = Prepared(shifted_world), load_model(trained_teacher.folder)
    assert fit_recency_prior(make_run("fit"), model, data, data.validator(1000)) is None
    assert model.item_bias is None


def test_without_times_there_is_none(
    obvious_world: Artifact, untrained: Recommender, make_run: Callable[[str], StageRun]
) -> None:
    data = Prepared(obvious_world)
    assert fit_recency_prior(make_run("fit"), untrained, data, data.validator(1000)) is None
    assert untrained.item_bias is None


@pytest.mark.parametrize("rounded", [False, True])
def test_the_served_graph_adds_what_the_network_adds(
    shifted_world: Artifact,
    untrained: Recommender,
    make_run: Callable[[str], StageRun],
    served_folder: Path,
    tmp_path: Path,
    *,
    rounded: bool,
) -> None:
    data = Prepared(shifted_world)
    plain = copy.deepcopy(untrained)
    fit_recency_prior(make_run("fit"), untrained, data, data.validator(1000))
    graph = tmp_path / "model.onnx"
    by_popularity = data.items[np.argsort(-cold_start_scores(data.items))]
    export_onnx(untrained, graph, active=by_popularity["item_idx"].to_list())
    if rounded:
        quantize(graph, graph)
    ids = data.items["item_id"].to_list()
    write_item_ids(tmp_path, by_popularity["item_id"].to_list())
    config = read_json(served_folder / "config.json")
    write_json(tmp_path / "config.json", config | {"n_items": len(ids)})
    scorer = Scorer(tmp_path)
    histories = [np.array(items, np.int32) for items in ([3], [5, 1, 2], [7, 7, 9, 4])]
    expected = model_ranker(untrained)(histories)[:, 1:]
    scores = scorer_ranker(scorer, ids)(histories)[:, 1:]
    np.testing.assert_allclose(scores, expected, atol=0.05 if rounded else 1e-5)
    assert np.abs(scores - model_ranker(plain)(histories)[:, 1:]).max() > 0.5
    cold_start = scorer.recommend([[]], k=len(ids))[0].item_ids
    assert cold_start == by_popularity["item_id"].to_list()


def _barely_trained(network: NetworkConfig, **changes: Any) -> NetworkConfig:
    training = network.training.model_copy(update={"epochs": 1, "learning_rate": 1e-6})
    return network.model_copy(update={"training": training, **changes})


def test_a_trained_network_fits_its_own(
    shifted_world: Artifact,
    tiny_network: NetworkConfig,
    make_run: Callable[[str], StageRun],
) -> None:
    """What is saved ranks as its summary says."""
    run, data = make_run("control"), Prepared(shifted_world)
    network = _barely_trained(tiny_network)
    summary = control.body(run, network, recovery_epochs=0, prepared=shifted_world)
    saved = NetworkSummary.load(run.out)
    assert saved.recency_prior is not None
    assert summary["recency_prior"] == saved.recency_prior.model_dump()
    assert data.validator(1000)(load_model(run.out)) == saved.validation_ndcg_at_10
    assert saved.validation_ndcg_at_10 == saved.recency_prior.ndcg_at_10


Press = Callable[..., dict[str, Any]]


@pytest.fixture
def press(
    make_run: Callable[[str], StageRun],
    shifted_world: Artifact,
    soft_labels: Artifact,
) -> Press:
    """Export and round a student, unpruned."""

    def run_stage(name: str, student: Path, *, recency_prior: bool) -> dict[str, Any]:
        return compress.body(
            make_run(name),
            CompressionConfig(ffn_keep_share=1.0, min_overlap_at_10=0.0),
            distillation=DistillationConfig(),
            training=TrainingConfig(),
            recency_prior=recency_prior,
            max_bytes=None,
            prepared=shifted_world,
            student=Artifact("distill", "student", student),
            teacher_check=None,
            soft_labels=soft_labels,
        )

    return run_stage


def test_the_compressed_student_fits_its_own_by_the_setting_alone(
    press: Press,
    shifted_world: Artifact,
    tiny_network: NetworkConfig,
    make_run: Callable[[str], StageRun],
) -> None:
    """Whether the student had one before its compression does not matter."""
    data, students = Prepared(shifted_world), {}
    for name in ("with", "without"):
        network = _barely_trained(tiny_network, recency_prior=name == "with")
        run = make_run(name)
        control.body(run, network, recovery_epochs=0, prepared=shifted_world)
        students[name] = run.out
    of_one, of_other = (
        press(f"press {name}", folder, recency_prior=True)["recency_prior"]
        for name, folder in students.items()
    )
    assert of_one == of_other
    assert of_one["ndcg_at_10"] > of_one["ndcg_without"]
    ids = data.items["item_id"].to_list()

    def reached(name: str) -> float:
        served = scorer_ranker(Scorer(make_run(name).out), ids)
        return float(data.validator(1000).by_user(served).mean())

    assert reached("press without") == pytest.approx(of_one["ndcg_at_10"], abs=0.05)
    assert press("press off", students["with"], recency_prior=False)["recency_prior"] is None
    assert reached("press off") == pytest.approx(of_one["ndcg_without"], abs=0.05)


@pytest.fixture
def train_teacher_in(
    make_run: Callable[[str], StageRun], tiny_network: NetworkConfig, tmp_path: Path
) -> Callable[..., tuple[StageRun, dict[str, Any]]]:
    """Train or reuse a teacher that knows next to nothing."""
    config = TeacherConfig.model_validate(_barely_trained(tiny_network).model_dump())

    def run_stage(
        name: str, world: Artifact, plan: TeacherPlan, **changes: Any
    ) -> tuple[StageRun, dict[str, Any]]:
        run = make_run(name)
        planned = Artifact("plan_teacher", name, tmp_path / f"plan {name}")
        plan.save(planned.folder)
        changed = config.model_copy(update=changes)
        return run, train_teacher.body(run, config=changed, prepared=world, teacher_plan=planned)

    return run_stage


def test_a_reused_teacher_fits_its_prior_to_tonights_counts(
    train_teacher_in: Callable[..., tuple[StageRun, dict[str, Any]]],
    obvious_world: Artifact,
    shifted_world: Artifact,
    full_training: TeacherPlan,
) -> None:
    last, summary = train_teacher_in("last", obvious_world, full_training)
    assert summary["recency_prior"] is None
    write_json(last.out / "manifest.json", {"files": {}})
    reuse = full_training.model_copy(update={"mode": "reuse", "parent": last.out.name, "since": 0})
    tonight, summary = train_teacher_in("tonight", shifted_world, reuse)
    assert summary["epochs"] == 0
    assert summary["recency_prior"]["ndcg_at_10"] > summary["recency_prior"]["ndcg_without"]
    before, after = (load_model(run.out) for run in (last, tonight))
    assert torch.equal(before.id_embedding, after.id_embedding)
    assert after.item_bias is not None
    assert summary["validation_ndcg_at_10"] == Prepared(shifted_world).validator(1000)(after)


def test_an_ensemble_fits_one_prior_as_a_whole(
    train_teacher_in: Callable[..., tuple[StageRun, dict[str, Any]]],
    shifted_world: Artifact,
    full_training: TeacherPlan,
) -> None:
    run, summary = train_teacher_in("two", shifted_world, full_training, n_seeds=2)
    assert [load_model(folder).item_bias for folder in member_folders(run.out)] == [None, None]
    validate = Prepared(shifted_world).validator(1000)
    ensemble = load_recommender(run.out)
    assert validate(ensemble) == summary["validation_ndcg_at_10"]
    assert summary["validation_ndcg_at_10"] == summary["recency_prior"]["ndcg_at_10"]
    ensemble.item_bias = None
    assert validate(ensemble) == summary["recency_prior"]["ndcg_without"]


def test_it_can_be_switched_off(
    shifted_world: Artifact, tiny_network: NetworkConfig, make_run: Callable[[str], StageRun]
) -> None:
    run = make_run("control")
    network = _barely_trained(tiny_network, recency_prior=False)
    summary = control.body(run, network, recovery_epochs=0, prepared=shifted_world)
    assert summary["recency_prior"] is None
    assert load_model(run.out).item_bias is None
