"""The benchmark of public logs, on the tiny night and on the logs that are here."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.log_result import LogResult
from benchmarks.public_logs import LOGS, adjusted, configuration, result_of
from benchmarks.tuned_baselines import tuned_baselines
from flows.config import NightlyConfig
from recsys_core.artifacts import Artifact
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
