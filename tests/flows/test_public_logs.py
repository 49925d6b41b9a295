"""The benchmark of public logs, on the tiny night and on the logs that are here."""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks import accuracy, public_logs
from benchmarks import tuned_baselines as tuned_module
from benchmarks.log_result import LogResult
from benchmarks.public_logs import LOGS, adjusted, configuration, result_of
from benchmarks.tuned_baselines import tuned_baselines
from flows.config import NightlyConfig
from recsys_core.artifacts import Artifact
from recsys_core.evaluation.ease import PenaltyTooSmallError, ease_ranker
from tasks.training.prepared import Prepared
from tests.shared_data import DATA
from tests.tiny import RUN_DATE

BASELINES = {"popularity", "item_knn", "ease"}


def changed(config: NightlyConfig, **changes: Any) -> NightlyConfig:
    """The configuration with some fields of its tables replaced."""
    fields = config.model_dump()
    for table, values in changes.items():
        fields[table] |= values
    return NightlyConfig.model_validate(fields)


def test_a_finished_night_is_compared_with_the_best_baseline(first_night: NightlyConfig) -> None:
    result = result_of("tiny", first_night, RUN_DATE, quick=True)
    assert result.failure is None
    assert set(result.by_user) == {"teacher", "student", "compressed", "control"} | BASELINES
    assert len({len(values) for values in result.by_user.values()}) == 1
    means = result.means()
    best = max(means[name][0] for name in BASELINES)
    figures = result.figures()
    assert figures["tiny_ndcg_at_10"] == means["compressed"][0]
    assert figures["tiny_best_baseline"] == best
    assert figures["tiny_over_baseline"] == pytest.approx(means["compressed"][0] / best)
    assert figures["tiny_interval_low"] < figures["tiny_over_baseline"] - 1
    assert 190 < result.counts["users"] <= 200  # the others have no event
    assert "the best baseline" in result.sentence()
    assert result.verdict
    assert result.verdict in result.sentence()


def test_a_refused_teacher_is_reported_beside_the_baselines(first_night: NightlyConfig) -> None:
    teacher = first_night.teacher.model_dump()
    teacher["training"] |= {"epochs": 1, "learning_rate": 1e-9}
    teacher["content_features"] = 0  # even untrained, content beats popularity here
    config = changed(first_night, teacher=teacher)
    result = result_of("tiny", config, RUN_DATE, quick=True)
    assert result.failure
    assert "TeacherRefusedError" in result.failure
    assert set(result.by_user) == BASELINES
    assert result.teacher_on_validation is not None
    figures = result.figures()
    assert figures["tiny_best_baseline"] > result.teacher_on_validation
    assert figures["tiny_ndcg_at_10"] is figures["tiny_interval_low"] is None
    [first, *others] = result.rows()
    assert first[1:3] == ["teacher, on validation", result.teacher_on_validation]
    assert len(others) == len(BASELINES)
    assert "is refused" in result.sentence()


def test_a_night_that_stops_before_its_data_are_prepared_is_reported(
    first_night: NightlyConfig,
) -> None:
    config = changed(first_night, validation={"min_rows": 10**9})
    result = result_of("tiny", config, RUN_DATE, quick=True)
    assert result.failure
    assert "ValidationFailedError" in result.failure
    assert result.figures()["tiny_best_baseline"] is None
    assert list(result.rows()) == [["tiny", "none", None, None, None]]


def test_a_log_without_files_does_not_stop_the_others(prefect_server: None, tmp_path: Path) -> None:
    config = configuration("movietweetings", tmp_path / "nothing")
    result = result_of(
        "movietweetings", adjusted(config, tmp_path, "test", quick=True), RUN_DATE, quick=True
    )
    assert result.failure
    assert "nothing" in result.failure
    assert list(result.rows()) == [["movietweetings", "none", None, None, None]]


def test_a_penalty_too_small_is_left_out(
    obvious_world: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ranker(buckets: Any, popularity: Any, *, l2: float) -> Any:
        if l2 == 10:
            raise PenaltyTooSmallError
        return ease_ranker(buckets, popularity, l2=l2)

    monkeypatch.setattr(tuned_module, "ease_ranker", ranker)
    penalty = tuned_baselines(Prepared(obvious_world))["ease"].settings["l2"]
    assert penalty is not None
    assert penalty > 10


def test_test_events_are_in_the_ledger_before_their_figures_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger.jsonl"

    def sentence(result: LogResult) -> str:
        seen.append(json.loads(ledger.read_text().splitlines()[-1])["recipe"])
        return "It is over."

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(accuracy, "LEDGER", ledger)
    monkeypatch.setattr(LogResult, "sentence", sentence)
    monkeypatch.setattr(
        public_logs, "result_of", lambda log, *_, **__: LogResult(log, "It stopped.", 1.0)
    )
    logs = ("online-retail", "movietweetings")
    chosen = (word for log in logs for word in ("--only", log))
    words = ("--final", "--data", str(tmp_path), "--workspace", str(tmp_path / "work"))
    monkeypatch.setattr(sys, "argv", ["public_logs", *words, *chosen])
    public_logs.main()
    assert [list(recipe) for recipe in seen] == [[log] for log in logs]


def test_settings_of_baselines_are_all_shown() -> None:
    values = pl.DataFrame({"ndcg": [0.5], "recall": [1.0]})
    settings = {"popularity": {"days": None}, "item_knn": {"n_neighbours": 50, "own_weight": 0.0}}
    result = LogResult("log", None, 1.0, by_user=dict.fromkeys(settings, values), settings=settings)
    assert [row[-1] for row in result.rows()] == ["days all", "n_neighbours 50, own_weight 0.0"]


def test_baselines_are_tuned_on_validation(obvious_world: Artifact) -> None:
    data = Prepared(obvious_world)
    tuned, quick = tuned_baselines(data), tuned_baselines(data, quick=True)
    assert set(tuned) == set(quick) == BASELINES
    for name, best in tuned.items():
        assert best.ndcg_at_10 >= quick[name].ndcg_at_10
        again = data.validator(10_000).by_user(best.ranker).mean()
        assert again == pytest.approx(best.ndcg_at_10)
    assert tuned["item_knn"].ndcg_at_10 == 1 > tuned["popularity"].ndcg_at_10


def test_what_is_sports_in_the_figures_is_amazon_sports() -> None:
    assert "sports_ndcg_at_10" in LogResult("amazon-sports", "It stopped.", 1.0).figures()
    assert "online_retail_ndcg_at_10" in LogResult("online-retail", "It stopped.", 1.0).figures()


@pytest.mark.parametrize("log", LOGS)
def test_each_log_gets_the_default_night(log: str, tmp_path: Path) -> None:
    config = adjusted(configuration(log, DATA / log), tmp_path, "validation", quick=False)
    default = NightlyConfig()
    assert config.recipe.mode == "auto"
    assert (config.teacher, config.student) == (default.teacher, default.student)
    assert (config.gate, config.compression) == (default.gate, default.compression)
    assert config.source is not None
    if not DATA.exists():
        pytest.skip(f"no public logs in {DATA}; set RECDISTILL_TEST_DATA")
    assert Path(config.source.interactions).exists()
    assert config.source.items is None or Path(config.source.items).exists()
