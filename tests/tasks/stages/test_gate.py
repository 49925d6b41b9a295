"""The gate stage: the verdict on figures of the evaluation, which is written even if it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_core.artifacts import Artifact, read_json
from recsys_core.evaluation.gate_config import GateConfig, GateRule
from recsys_core.evaluation.results import (
    ChampionNote,
    EvaluationMetrics,
    ModelResult,
    SliceResult,
)
from recsys_core.evaluation.statistics import summarise
from tasks.contracts.evaluation import Latencies, Latency
from tasks.engine.stage import StageRun
from tasks.stages.gate import gate

N_USERS = 60
SIZES = {"compressed": 1_000}
RANKS = {"compressed": 1, "teacher": 1, "popularity": 9}

Judge = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
"""Runs the stage for some rules; returns its summary and the verdict that it wrote."""


@pytest.fixture
def evaluated(tmp_path: Path) -> Artifact:
    folder = tmp_path / "evaluate"
    ranks = {model: np.full(N_USERS, rank) for model, rank in RANKS.items()}
    users = [f"u{user:02}" for user in range(N_USERS)]
    folder.mkdir()
    pl.DataFrame(
        {"user_id": users, **{f"rank_{model}": column for model, column in ranks.items()}}
    ).write_parquet(folder / "ranks.parquet")
    models = {
        model: ModelResult(
            size_bytes=SIZES.get(model), slices={"all": SliceResult.model_validate(figures)}
        )
        for model, figures in summarise(ranks, users).items()
    }
    EvaluationMetrics(
        split="test",
        n_cases=N_USERS,
        n_users=N_USERS,
        dropped={},
        champion=ChampionNote(version=None, not_compared_because="There is no champion yet."),
        models=models,
    ).save(folder)
    Latencies(models={"compressed": Latency(latency_ms_p50=0.5)}).save(folder)
    return Artifact("evaluate", "k1", folder)


@pytest.fixture
def judge_night(tmp_path: Path, evaluated: Artifact) -> Judge:
    run = StageRun.bare(tmp_path, tmp_path / "out", scratch=tmp_path)

    def judge(
        *rules: GateRule, champion: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        config = GateConfig(rules=rules) if rules else GateConfig()
        summary = gate.body(run, config, evaluated=evaluated, champion=champion)
        return summary, read_json(run.out / "verdict.json")

    return judge


def test_the_default_rules_pass_a_good_first_night(judge_night: Judge) -> None:
    summary, verdict = judge_night()
    assert summary["passed"] is verdict["passed"] is True
    assert summary["rules"] == {
        "better than popularity": "pass",
        "not worse than the champion": "skipped",
        "close to the teacher": "pass",
    }


def test_a_champion_that_was_not_compared_refuses(judge_night: Judge) -> None:
    summary, verdict = judge_night(champion=1)
    assert summary["rules"]["not worse than the champion"] == "fail"
    assert "There is no champion yet." in verdict["sentence"]


def test_size_is_the_evaluated_one(judge_night: Judge) -> None:
    rule = GateRule(name="small", metric="size_bytes", at_most=1_000)
    assert judge_night(rule)[0]["passed"]
    assert not judge_night(rule.model_copy(update={"at_most": 999.0}))[0]["passed"]


def test_latency_is_the_measured_one_and_a_missing_one_fails(judge_night: Judge) -> None:
    fast = GateRule(name="fast", metric="latency_ms_p50", at_most=0.5)
    assert judge_night(fast)[0]["passed"]
    assert not judge_night(fast.model_copy(update={"model": "teacher"}))[0]["passed"]


def test_refusing_is_a_verdict_not_an_error(judge_night: Judge) -> None:
    summary, verdict = judge_night(GateRule(name="dream", at_least=1.01))
    assert not summary["passed"]
    assert "dream: ndcg_at_10 of compressed on all is 1.0000" in verdict["sentence"]
