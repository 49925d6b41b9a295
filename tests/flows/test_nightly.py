"""Whole nights on a tiny synthetic world, through Prefect."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prefect.artifacts import Artifact as PrefectArtifact

from benchmarks import score_registered
from flows.config import NightlyConfig
from flows.nightly import nightly, plan
from flows.pipeline import PIPELINE
from recsys_core.artifacts import damaged_files, read_json
from recsys_core.data.soft_labels.description import SoftLabelError
from recsys_core.serving.scorer import Scorer
from tasks.registry.store import CHALLENGER, CHAMPION, Registry, champion_version
from tasks.stages.compress import compress
from tasks.stages.evaluate import evaluate
from tasks.stages.gate import gate
from tasks.stages.ingest import ingest
from tasks.stages.prepare import prepare
from tasks.stages.train_teacher import train_teacher
from tests.tiny import RUN_DATE, tiny_settings

STUDENT = "tiny-student"


def changed(config: NightlyConfig, **changes: Any) -> NightlyConfig:
    """The configuration with some top-level fields replaced."""
    return NightlyConfig.model_validate({**config.model_dump(), **changes})


def test_a_night_registers_a_champion_that_answers(first_night: NightlyConfig) -> None:
    registry = Registry(first_night.workspace, first_night.registry)
    assert registry.version_of(STUDENT, CHAMPION) == registry.version_of(STUDENT, CHALLENGER) == 1

    model = registry.load_student(STUDENT, CHAMPION)
    outcome = plan(first_night, RUN_DATE)
    item_ids = Scorer(outcome[compress].folder).item_ids
    answer = model.predict(pd.DataFrame({"history": [item_ids[:2], []]}), params={"k": 5})

    assert [len(items) for items in answer["item_ids"]] == [5, 5]
    assert not set(answer["item_ids"][0]) & set(item_ids[:2])


def test_the_registered_model_scores_what_was_evaluated(first_night: NightlyConfig) -> None:
    """Counted anew from the source files, through `predict`, without the pipeline's code."""
    model = Registry(first_night.workspace, first_night.registry).load_student(STUDENT, 1)
    cases = list(
        score_registered.by_time(
            score_registered.read_events(first_night),
            score_registered.read_listing(first_night),
            first_night,
            RUN_DATE,
            "test",
        )
    )

    ndcg, hit_rate = score_registered.score(model, cases)

    metrics = read_json(plan(first_night, RUN_DATE)[evaluate].file("metrics.json"))
    evaluated = metrics["models"]["compressed"]["slices"]["all"]
    assert len(cases) == metrics["n_cases"]
    assert ndcg == pytest.approx(evaluated["ndcg_at_10"]["mean"], abs=1e-6)
    assert hit_rate == pytest.approx(evaluated["recall_at_10"]["mean"], abs=1e-6)


def test_a_second_run_of_the_same_night_does_no_work_twice(first_night: NightlyConfig) -> None:
    before = _modified(first_night.workspace / "stages")

    summary = read_json(nightly(first_night, RUN_DATE))

    assert summary["ran"] == []
    assert summary["skipped"] == [step.stage.name for step in PIPELINE.steps]
    assert _modified(first_night.workspace / "stages") == before


def test_every_artifact_is_whole(first_night: NightlyConfig) -> None:
    for decision in plan(first_night, RUN_DATE):
        assert damaged_files(decision.artifact.folder) == [], decision.stage


def test_a_changed_loss_weight_reruns_only_what_depends_on_it(first_night: NightlyConfig) -> None:
    distillation = {**first_night.distillation.model_dump(), "kd_weight": 0.3}

    decisions = list(plan(changed(first_night, distillation=distillation), RUN_DATE))

    assert [decision.stage for decision in decisions if not decision.runs] == [
        "ingest",
        "validate",
        "prepare",
        "choose_recipe",
        "plan_teacher",
        "train_teacher",
        "check_teacher",
        "write_soft_labels",
        "control",
    ]
    reason = next(decision.reason for decision in decisions if decision.stage == "distill")
    assert reason == "changed since the last output: config.kd_weight (4.0 → 0.3)"


def test_the_next_night_sees_one_more_day_and_yesterdays_champion(
    first_night: NightlyConfig,
) -> None:
    summary = read_json(nightly(first_night, RUN_DATE + timedelta(days=1)))

    outcome = plan(first_night, RUN_DATE + timedelta(days=1))
    ingested = read_json(outcome[ingest].file("ingest.json"))
    assert [file["source"] for file in ingested["files"] if file["new"]] == [
        f"interactions/{RUN_DATE}.parquet",
        "items/items.parquet",
    ]
    assert "champion" in [row["model"] for row in summary["models"]]
    verdict = read_json(outcome[gate].file("verdict.json"))
    assert [rule["outcome"] for rule in verdict["rules"]] == ["pass", "pass"]


def test_a_refused_night_leaves_the_champion_and_says_why(first_night: NightlyConfig) -> None:
    impossible = {"name": "impossible", "metric": "ndcg_at_10", "at_least": 2.0}
    strict = changed(first_night, gate={"rules": [impossible]})
    champion = champion_version(strict.workspace, strict.registry, strict.name)

    summary = read_json(nightly(strict, RUN_DATE))

    assert not summary["passed"]
    assert "impossible" in summary["verdict"]
    assert champion_version(strict.workspace, strict.registry, strict.name) == champion


def test_leave_one_out_compares_with_no_champion(first_night: NightlyConfig) -> None:
    prepare = {**first_night.prepare.model_dump(), "split": "leave_one_out"}

    summary = read_json(nightly(changed(first_night, prepare=prepare), RUN_DATE))

    assert "champion" not in [row["model"] for row in summary["models"]]


def test_a_failed_validation_trains_nothing(prefect_server: None, tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path / "workspace") | {"validation": {"min_rows": 10_000_000}}
    config = NightlyConfig.model_validate(settings)

    with pytest.raises(ValueError, match="rows"):
        nightly(config, RUN_DATE)

    decisions = plan(config, RUN_DATE)
    assert [decision.stage for decision in decisions if not decision.runs] == ["ingest"]
    (stopped,) = (config.workspace / "stages" / "validate").glob("*/validation.md")
    shown: Any = PrefectArtifact.get("validation")
    assert shown is not None
    assert shown.data == stopped.read_text(encoding="utf-8")
    assert stopped.with_name("validation.html").exists()
    assert stopped.with_name("data_docs").is_dir()
    assert not stopped.with_name("manifest.json").exists()


def test_without_labels_the_night_says_where_the_histories_are_and_trains_nothing(
    first_night: NightlyConfig,
) -> None:
    teacher = first_night.teacher.model_dump()
    teacher["training"]["seed"] = 5
    config = changed(first_night, teacher=teacher, soft_labels={"store": "labels"})

    with pytest.raises(SoftLabelError, match=r"labels holds no soft labels.* import them") as said:
        nightly(config, RUN_DATE)

    outcome = plan(config, RUN_DATE)
    assert str(outcome[prepare].file("histories").resolve()) in str(said.value)
    assert outcome.decisions[train_teacher].runs


def _modified(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
