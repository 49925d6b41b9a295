from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recsys_core.artifacts import Artifact, read_json, write_json
from recsys_core.data.soft_labels.label_origin import LabelOrigin
from recsys_core.serving.folder import write_item_ids
from recsys_core.serving.scorer import Scorer
from tasks.contracts.registry import Registered
from tasks.engine.stage import StageRun
from tasks.registry.store import CHALLENGER, Registry, RegistryConfig
from tasks.stages.register import SmokeTestError, register

Made = Callable[[str], Artifact]
OUTPUTS = ("teacher", "soft_labels", "student", "control", "compressed", "evaluated")
LABELS = LabelOrigin(
    teacher="a language model",
    trained_through=None,
    store_sha256="ab12",
    labels=1_200,
    stale=34,
    users=900,
    n_users=1_000,
    positions=1_200,
    n_positions=9_000,
)


@pytest.fixture
def run(workspace: Path, make_run: Callable[[str], StageRun]) -> StageRun:
    run = make_run("register-key")
    config = {"name": "test", "student": {"model": {"n_layers": 1}}, "gate": {"rules": [1, 2]}}
    return replace(run, settings=config)


def register_body(run: StageRun, made: Made, **changed: Any) -> dict[str, Any]:
    inputs = {"name": "test", "run_date": date(2026, 3, 10), **changed}
    for output in {*OUTPUTS} - inputs.keys():
        inputs[output] = made(output)
    return register.body(run, RegistryConfig(), **inputs)


def test_a_student_is_registered_as_challenger(
    run: StageRun, made: Made, registry: Registry, served_folder: Path
) -> None:
    summary = register_body(run, made)
    assert Registered.model_validate(summary) == Registered.load(run.out)
    assert (summary["name"], summary["version"]) == ("test-student", 1)
    assert summary["tracking_uri"] == registry.uri
    assert registry.version_of("test-student", CHALLENGER) == 1
    found = registry.load_student("test-student", CHALLENGER).predict(
        pd.DataFrame({"history": [["i3", "i17"], []]}), params={"k": 4}
    )
    expected = Scorer(served_folder).recommend([["i3", "i17"], []], k=4)
    assert found["item_ids"].tolist() == [answer.item_ids for answer in expected]


def test_the_night_is_logged(run: StageRun, made: Made, registry: Registry) -> None:
    summary = register_body(run, made)
    logged = registry.client.get_run(summary["run_id"])
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "2026-03-10"
    assert logged.data.params == {
        "name": "test",
        "student.model.n_layers": "1",
        "gate.rules": "[1, 2]",
    }
    metrics = logged.data.metrics
    assert metrics["test/compressed/all/ndcg_at_10"] == 0.25
    assert metrics["test/popularity/all/n_users"] == 7
    assert metrics["size_bytes/compressed"] == 4096
    assert metrics["curve/teacher/validation_ndcg_at_10"] == 0.125
    assert not [name for name in metrics if "cold_users/ndcg" in name]
    loss = registry.client.get_metric_history(summary["run_id"], "curve/student/loss")
    assert sorted((point.step, point.value) for point in loss) == [(1, 3.5), (2, 3.25)]


def test_the_version_says_what_it_was_made_of(
    run: StageRun, made: Made, registry: Registry
) -> None:
    register_body(run, made)
    version = registry.client.get_model_version("test-student", "1")
    assert version.tags["run_date"] == "2026-03-10"
    assert version.tags["trained_through"] == "2026-03-08T00:00:00+00:00"
    assert version.tags["made_of.compressed"] == "key-compressed"
    assert version.tags["made_of.teacher"] == "key-teacher"
    assert not [name for name in version.tags if name.startswith("labels.")]
    folder = registry.download("test-student", 1) / "artifacts" / "model"
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "item_ids.json.bz2",
        "config.json",
        "metrics.json",
        "model_card.md",
    }
    card = (folder / "model_card.md").read_text()
    assert "made elsewhere" not in card
    assert card == version.description
    assert "| compressed | 0.2500 | 0.1250 to 0.5000 | 0.2500 |" in card
    assert "1,234 events of 7 users (test)" in card
    assert "- Student: `main`, attention, 1 layers, width 16, 16 channels" in card
    assert "- No recent popularity is added to scores" in card
    assert version.tags["student.size"] == "main"
    assert version.tags["student.network"] == "attention, 1 layers, width 16, 16 channels"
    assert not [name for name in version.tags if name.startswith("recency_prior.")]


def test_the_version_says_which_student_ships_and_its_prior(
    run: StageRun, made: Made, registry: Registry
) -> None:
    compressed = made("compressed")
    served = read_json(compressed.file("config.json"))
    prior = {"gamma": 2.0, "delta": 0.5, "ndcg_without": 0.1, "ndcg_at_10": 0.125}
    served["metadata"] |= {"size": "XS", "recency_prior": prior}
    write_json(compressed.file("config.json"), served)
    register_body(run, made, compressed=compressed)
    version = registry.client.get_model_version("test-student", "1")
    assert version.tags["student.size"] == "XS"
    assert version.tags["recency_prior.gamma"] == "2.0"
    assert version.tags["recency_prior.delta"] == "0.5"
    card = version.description or ""
    assert "- Student: `XS`, attention" in card
    assert "- Recent popularity is added to scores: γ=2, δ=0.5: " in card


def test_the_version_says_which_labels_taught_it(
    run: StageRun, made: Made, registry: Registry
) -> None:
    LABELS.save(made("soft_labels").folder)
    register_body(run, made, teacher=None)
    version = registry.client.get_model_version("test-student", "1")
    assert version.tags["labels.teacher"] == "a language model"
    assert version.tags["labels.store_sha256"] == "ab12"
    assert version.tags["labels.positions"] == "1200"
    assert version.tags["made_of.soft_labels"] == "key-soft_labels"
    assert "made_of.teacher" not in version.tags
    card = version.description or ""
    assert "distilled from soft labels of `a language model`, with" in card
    assert "- Labels: 1,200 used, 34 left out" in card
    assert "- Coverage: 1,200 of 9,000 training positions, 900 of 1,000 users" in card


def test_a_repeated_attempt_makes_no_second_version(
    run: StageRun, made: Made, registry: Registry
) -> None:
    first = register_body(run, made)
    for path in run.out.iterdir():
        path.unlink()
    assert register_body(run, made) == first
    assert len(registry.client.search_model_versions("name = 'test-student'")) == 1
    assert len(registry.client.search_runs([_experiment(registry)])) == 1


def _experiment(registry: Registry) -> str:
    experiment = registry.client.get_experiment_by_name("test")
    assert experiment is not None
    return experiment.experiment_id


def test_what_answers_otherwise_than_its_source_gets_no_alias(
    run: StageRun, made: Made, registry: Registry
) -> None:
    register_body(run, made)
    registry.client.delete_registered_model_alias("test-student", CHALLENGER)
    stored = registry.download("test-student", 1) / "artifacts" / "model"
    write_item_ids(stored, Scorer(stored).item_ids[::-1])
    with pytest.raises(SmokeTestError, match="stays without an alias"):
        register_body(run, made)
    assert registry.version_of("test-student", CHALLENGER) is None


def test_a_catalogue_of_one_item_can_be_registered(
    run: StageRun, made: Made, registry: Registry, tmp_path: Path
) -> None:
    from recsys_core.compression.export import export_onnx
    from recsys_core.compression.quantization import quantize
    from recsys_core.models.recommender import ModelConfig, Recommender

    compressed = made("compressed")
    shape = ModelConfig(embedding_dim=16, n_layers=1, n_heads=1, ffn_dim=8, max_length=2)
    export_onnx(Recommender(1, shape), tmp_path / "a.onnx", active=[1])
    quantize(tmp_path / "a.onnx", compressed.folder / "model.onnx")
    write_item_ids(compressed.folder, ["only"])
    config = read_json(compressed.folder / "config.json")
    write_json(compressed.folder / "config.json", {**config, "n_items": 1, "max_length": 2})
    assert register_body(run, made, compressed=compressed)["version"] == 1
    loaded = registry.load_student("test-student", CHALLENGER)
    answer = loaded.predict(pd.DataFrame({"history": [["only"], []]}))
    assert answer["item_ids"].tolist() == [[], ["only"]]


def test_a_missing_file_says_so(run: StageRun, made: Made) -> None:
    compressed = made("compressed")
    (compressed.folder / "item_ids.json.bz2").unlink()
    with pytest.raises(FileNotFoundError, match=r"item_ids\.json\.bz2"):
        register_body(run, made, compressed=compressed)
