"""The recipe follows from the log, and its settings exist."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.config import NightlyConfig
from recsys_core.training.recipe import LogStatistics, Value, recipe
from tasks.contracts.recipe import Recipe

DENSE = LogStatistics(n_users=6_000, n_items=3_400, n_events=990_000, length=390)
SPARSE = LogStatistics(n_users=35_000, n_items=18_000, n_events=225_000, length=10)
SMALL = LogStatistics(n_users=3_000, n_items=1_100, n_events=99_000, length=78)
HUGE = LogStatistics(n_users=5_000_000, n_items=1_000_000, n_events=100_000_000, length=60)
EMPTY = LogStatistics(n_users=0, n_items=0, n_events=0, length=0)


def _settings(log: LogStatistics) -> dict[str, Value]:
    return {name: value for choice in recipe(log) for name, value in choice.settings.items()}


@pytest.mark.parametrize("log", [DENSE, SPARSE, SMALL, HUGE, EMPTY])
def test_every_log_gets_a_configuration_that_can_be_used(log: LogStatistics) -> None:
    config = NightlyConfig().with_recipe(Recipe(log=log, choices=tuple(recipe(log))))
    assert config.student.model.max_length == config.teacher.model.max_length
    assert config.student.model.n_layers <= config.teacher.model.n_layers
    assert config.teacher.training.epochs >= 4
    assert all(choice.reason.endswith(".") for choice in recipe(log))


def test_long_dense_histories_get_a_deep_teacher_and_short_ones_more_dropout() -> None:
    dense, sparse = _settings(DENSE), _settings(SPARSE)
    assert (dense["teacher.model.n_layers"], sparse["teacher.model.n_layers"]) == (8, 2)
    assert (dense["teacher.model.max_length"], sparse["teacher.model.max_length"]) == (200, 16)
    assert (dense["teacher.model.dropout"], sparse["teacher.model.dropout"]) == (0.2, 0.5)
    assert dense["student.model.dropout"] == 0.1


def test_a_night_stays_affordable_and_an_item_table_small() -> None:
    of_huge = _settings(HUGE)
    assert of_huge["teacher.training.epochs"] == 4
    assert of_huge["student.model.embedding_dim"] == 32
    assert _settings(SMALL)["student.model.embedding_dim"] == 64


def test_a_student_that_begins_with_random_weights_trains_as_long_as_a_teacher() -> None:
    with_teacher, alone = _settings(SMALL), recipe(SMALL, trains_teacher=False)
    settings = {name: value for choice in alone for name, value in choice.settings.items()}
    assert settings.keys() == {name for name in with_teacher if name.startswith("student.")}
    assert settings["student.training.epochs"] == with_teacher["teacher.training.epochs"] == 22
    assert with_teacher["student.training.epochs"] == 14
    assert "99,000 events of 33 per user: a student of 1 layer." in [one.reason for one in alone]


def test_logs_resemble_each_other_within_a_quarter() -> None:
    assert SMALL.model_copy(update={"length": 60}).resembles(SMALL)
    assert not SMALL.model_copy(update={"length": 58}).resembles(SMALL)
    assert not SMALL.model_copy(update={"n_items": 1_400}).resembles(SMALL)
    assert EMPTY.resembles(EMPTY)
    assert not SMALL.resembles(EMPTY)


def test_statistics_are_of_the_training_events(
    tmp_path: Path, write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]]
) -> None:
    users = [[("a", [1, 2, 3, 9], 3, 3), ("b", [9], 0, 0)], [], [("c", [3] * 20, 18, 19)]]
    log = LogStatistics.of(write_buckets(tmp_path / "histories", users))
    assert log == LogStatistics(n_users=2, n_items=3, n_events=21, length=16)
    none = LogStatistics.of(write_buckets(tmp_path / "none", [[("b", [9], 0, 0)]]))
    assert none == EMPTY
