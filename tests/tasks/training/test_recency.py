"""The recency prior of a network: fitted on validation events, read by all that rank."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_core.artifacts import Artifact, read_json, write_json
from recsys_core.compression.export import export_onnx
from recsys_core.compression.quantization import quantize
from recsys_core.data.histories.cases import read_cases
from recsys_core.evaluation.popularity import cold_start_scores
from recsys_core.models.checkpoint import load_model
from recsys_core.models.ranker import model_ranker
from recsys_core.models.recommender import Recommender
from recsys_core.serving.folder import write_item_ids
from recsys_core.serving.ranker import scorer_ranker
from recsys_core.serving.scorer import Scorer
from tasks.contracts.network import NetworkSummary
from tasks.engine.stage import StageRun
from tasks.stages.compress import CompressionConfig, compress
from tasks.stages.control import control
from tasks.stages.distill import DistillationConfig
from tasks.training.network import NetworkConfig, build_network
from tasks.training.prepared import Prepared
from tasks.training.recency import fit_recency_prior


def _with_recent_counts(world: Artifact, folder: Path, recent: pl.Series) -> Artifact:
    """The world with other recent counts."""
    folder.mkdir()
    for path in world.folder.iterdir():
        if path.name != "items.parquet":
            (folder / path.name).symlink_to(path)
    items = pl.read_parquet(world.file("items.parquet"))
    items.with_columns(recent_count=recent).write_parquet(folder / "items.parquet")
    return Artifact("prepare", "shifted", folder)


@pytest.fixture
def shifted_world(obvious_world: Artifact, tmp_path: Path) -> Artifact:
    """The obvious world where the items of the validation window have been popular lately."""
    items = pl.read_parquet(obvious_world.file("items.parquet"))
    targets = np.concatenate(
        [
            read_cases(bucket, items, "validation", exclude_seen=True).targets
            for bucket in Prepared(obvious_world).buckets
        ]
    )
    counts = np.bincount(targets, minlength=items.height + 1)[1:]
    return _with_recent_counts(obvious_world, tmp_path / "shifted", pl.Series(10 * counts**2))


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


def test_each_network_of_a_night_fits_its_own(
    shifted_world: Artifact,
    soft_labels: Artifact,
    tiny_network: NetworkConfig,
    make_run: Callable[[str], StageRun],
) -> None:
    """What is saved ranks as its summary says; the compressed student is fitted after recovery."""
    run, data = make_run("control"), Prepared(shifted_world)
    network = _barely_trained(tiny_network)
    summary = control.body(run, network, recovery_epochs=0, prepared=shifted_world)
    saved = NetworkSummary.load(run.out)
    assert saved.recency_prior is not None
    assert summary["recency_prior"] == saved.recency_prior.model_dump()
    assert data.validator(1000)(load_model(run.out)) == saved.validation_ndcg_at_10
    assert saved.validation_ndcg_at_10 == saved.recency_prior.ndcg_at_10

    compressing = make_run("compress")
    recovery = tiny_network.training.model_copy(update={"epochs": 1, "learning_rate": 1e-6})
    summary = compress.body(
        compressing,
        CompressionConfig(recovery=recovery, min_overlap_at_10=0.0),
        distillation=DistillationConfig(),
        training=tiny_network.training,
        prepared=shifted_world,
        student=Artifact("distill", "student", run.out),
        teacher_check=None,
        soft_labels=soft_labels,
    )
    assert summary["recency_prior"]["ndcg_at_10"] > summary["recency_prior"]["ndcg_without"]
    served = scorer_ranker(Scorer(compressing.out), data.items["item_id"].to_list())
    reached = data.validator(1000).by_user(served).mean()
    assert reached == pytest.approx(summary["recency_prior"]["ndcg_at_10"], abs=0.05)


def test_it_can_be_switched_off(
    shifted_world: Artifact, tiny_network: NetworkConfig, make_run: Callable[[str], StageRun]
) -> None:
    run = make_run("control")
    network = _barely_trained(tiny_network, recency_prior=False)
    summary = control.body(run, network, recovery_epochs=0, prepared=shifted_world)
    assert summary["recency_prior"] is None
    assert load_model(run.out).item_bias is None
