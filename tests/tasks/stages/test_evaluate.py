"""The evaluate stage on a few cases whose ranks and figures are computed by hand.

Popularity ranks items 1, 2, 3, 4 in this order and all others equal; item 16 is no candidate.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_core.artifacts import Artifact, read_json, write_json
from recsys_core.serving.folder import SERVED_FILES
from tasks.contracts.split import Split
from tasks.engine.stage import StageRun
from tasks.registry.store import STUDENT_FILES, Registry, RegistryConfig
from tasks.stages.evaluate import EvaluationConfig, evaluate
from tests.conftest import User

VALIDATION_START, TEST_START = "2026-03-06T00:00:00+00:00", "2026-03-08T00:00:00+00:00"
TRAIN_COUNT = [50, 30, 12, 8] + [0] * 12
USERS: list[list[User]] = [
    [("ann", [1, 2, 3, 4, 5], 2, 3), ("bob", [3, 1, 4], 1, 2)],
    [("cleo", [1], 0, 0), ("dan", [1, 2, 1, 16], 2, 2)],
]
"""Dan's two test events are no cases: he had item 1 before, and item 16 is no candidate."""
NETWORKS = ["teacher", "student", "control"]
MODELS = [*NETWORKS, "compressed", "popularity", "item_knn"]
SLICES = ["cold_users", "new_users", "cold_items", "head", "mid", "tail"]
SECOND = 1 / math.log2(3)
"""NDCG of a target on the second rank."""

Evaluate = Callable[..., tuple[StageRun, dict[str, Any]]]
Register = Callable[[str | None], int]


@pytest.fixture
def prepare_users(
    obvious_world: Artifact,
    write_buckets: Callable[[Path, Sequence[Sequence[User]]], list[Path]],
    tmp_path: Path,
) -> Callable[..., Artifact]:
    """The prepare stage's output for the 16 items of the obvious world and these users."""

    def make(buckets: Sequence[Sequence[User]] = USERS, **changes: Any) -> Artifact:
        folder = tmp_path / "prepared"
        write_buckets(folder / "histories", buckets)
        counts = pl.Series(TRAIN_COUNT, dtype=pl.Int64)
        pl.read_parquet(obvious_world.file("items.parquet")).with_columns(
            counts.alias("train_count"),
            counts.alias("recent_count"),
            candidate_validation=pl.col("item_idx") != 16,
            candidate_test=pl.col("item_idx") != 16,
        ).write_parquet(folder / "items.parquet")
        shutil.copy(obvious_world.file("embeddings.parquet"), folder)
        split = Split.load(obvious_world).model_dump() | {
            "kind": "global_time",
            "trained_through": VALIDATION_START,
            "validation_start": VALIDATION_START,
            "test_start": TEST_START,
            "n_users": sum(len(users) for users in buckets),
            "n_buckets": len(buckets),
        }
        Split.model_validate(split | changes).save(folder)
        return Artifact("prepare", "few", folder)

    return make


@pytest.fixture
def evaluate_models(
    make_run: Callable[[str], StageRun], trained_teacher: Artifact, made: Callable[[str], Artifact]
) -> Evaluate:
    """Run the stage's body; the night's three networks are one, and the served model another."""

    def run_stage(
        prepared: Artifact,
        *,
        champion: int | None = None,
        teacher: Artifact | None = trained_teacher,
        **config: Any,
    ) -> tuple[StageRun, dict[str, Any]]:
        run = make_run("evaluate")
        summary = evaluate.body(
            run,
            EvaluationConfig(n_resamples=100, **config),
            registry=RegistryConfig(),
            name="test",
            champion=champion,
            prepared=prepared,
            teacher=teacher,
            student=trained_teacher,
            control=trained_teacher,
            compressed=made("compressed"),
        )
        return run, summary

    return run_stage


@pytest.fixture
def register_champion(
    registry: Registry, served_folder: Path, tmp_path: Path
) -> Callable[[str | None], int]:
    """Register the served model as one that was trained through some moment."""

    def register(trained_through: str | None) -> int:
        package, model = tmp_path / "package", tmp_path / "package" / "artifacts" / "model"
        shutil.copytree(served_folder, model)
        config = read_json(model / "config.json") | {"trained_through": trained_through}
        write_json(model / "config.json", config)
        run_id = registry.open_run("test", "2026-03-10", "night-key")
        return registry.register_files(
            "test-student",
            key="k1",
            run_id=run_id,
            folder=package,
            artifact_path=STUDENT_FILES,
            tags={},
            description="",
        )

    return register


def _ranks(run: StageRun) -> pl.DataFrame:
    return pl.read_parquet(run.out / "ranks.parquet")


def _metrics(run: StageRun) -> dict[str, Any]:
    return read_json(run.out / "metrics.json")


def _means(run: StageRun, model: str, metric: str) -> dict[str, float | None]:
    slices = _metrics(run)["models"][model]["slices"]
    return {name: figures[metric]["mean"] for name, figures in slices.items()}


def test_a_row_a_case_with_slices_and_the_rank_of_every_model(
    evaluate_models: Evaluate, prepare_users: Callable[..., Artifact]
) -> None:
    run, summary = evaluate_models(prepare_users(), cold_user_events=3)
    ranks = _ranks(run)
    assert ranks.columns == [
        *("user_id", "position", "target", "history_length"),
        *(f"slice_{name}" for name in SLICES),
        *(f"rank_{name}" for name in MODELS),
    ]
    cases = ranks.select("user_id", "position", "target", "history_length").rows()
    assert cases == [("ann", 3, 4, 3), ("ann", 4, 5, 4), ("bob", 2, 4, 2), ("cleo", 0, 1, 0)]
    slices = {name: ranks[f"slice_{name}"].to_list() for name in SLICES}
    assert slices == {
        "cold_users": [True, False, True, True],
        "new_users": [False, False, False, True],
        "cold_items": [False, True, False, False],
        "head": [False, False, False, True],
        "mid": [False, False, False, False],
        "tail": [True, True, True, False],
    }
    # Items 5 to 15 are equally popular: the fifth ranks behind the ten others.
    assert ranks["rank_popularity"].to_list() == [1, 11, 2, 1]
    for name in NETWORKS:
        assert ranks[f"rank_{name}"].to_list() == ranks["rank_teacher"].to_list()
        assert ranks[f"rank_{name}"][-1] == 1, "an empty history gets the popular items"
    # The served model has its own popularity, the other way round; it knows items by their ids.
    assert ranks["rank_compressed"][-1] == 15
    assert summary["split"] == "test"
    assert summary["n_cases"] == 4
    assert list(summary["ndcg_at_10"]) == MODELS


def test_an_external_teacher_is_not_evaluated(
    evaluate_models: Evaluate, prepare_users: Callable[..., Artifact]
) -> None:
    run, _ = evaluate_models(prepare_users(), teacher=None)
    metrics = _metrics(run)
    assert metrics["teacher_is_external"]
    assert sorted(metrics["models"]) == sorted(set(MODELS) - {"teacher"})
    assert "rank_teacher" not in _ranks(run).columns


def test_metrics_are_means_of_users_in_every_slice(
    evaluate_models: Evaluate, prepare_users: Callable[..., Artifact]
) -> None:
    run, summary = evaluate_models(prepare_users(), cold_user_events=3)
    metrics = _metrics(run)
    assert (metrics["split"], metrics["n_cases"], metrics["n_users"]) == ("test", 4, 3)
    assert metrics["dropped"] == {"seen": 1, "not_candidate": 1}
    assert list(metrics["models"]) == sorted(MODELS)
    assert _means(run, "popularity", "ndcg_at_10") == pytest.approx(
        {
            "all": (0.5 + SECOND + 1) / 3,
            "cold_users": (1 + SECOND + 1) / 3,
            "new_users": 1,
            "cold_items": 0,
            "head": 1,
            "mid": None,
            "tail": (0.5 + SECOND) / 2,
        }
    )
    assert summary["ndcg_at_10"]["popularity"] == pytest.approx((0.5 + SECOND + 1) / 3)
    assert _means(run, "popularity", "recall_at_10")["all"] == pytest.approx(2.5 / 3)
    mean_reciprocal = ((1 + 1 / 11) / 2 + 1 / 2 + 1) / 3
    assert _means(run, "popularity", "mrr")["all"] == pytest.approx(mean_reciprocal)
    slices = metrics["models"]["popularity"]["slices"]
    n_users = {name: figures["n_users"] for name, figures in slices.items()}
    assert n_users == {
        "all": 3, "cold_users": 3, "new_users": 1, "cold_items": 1, "head": 1, "mid": 0, "tail": 2,
    }  # fmt: skip
    every = slices["all"]["ndcg_at_10"]
    assert 0.5 <= every["low"] < every["mean"] < every["high"] <= 1


def test_validation_ranks_the_events_of_its_own_window(
    evaluate_models: Evaluate, prepare_users: Callable[..., Artifact]
) -> None:
    run, summary = evaluate_models(prepare_users(), split="validation")
    cases = _ranks(run).select("user_id", "position", "target", "history_length").rows()
    assert cases == [("ann", 2, 3, 2), ("bob", 1, 1, 1)]
    assert _ranks(run)["rank_popularity"].to_list() == [1, 1]
    assert summary["split"] == _metrics(run)["split"] == "validation"


def test_items_of_the_history_compete_where_they_may_be_recommended_again(
    evaluate_models: Evaluate, prepare_users: Callable[..., Artifact]
) -> None:
    run, _ = evaluate_models(prepare_users(exclude_seen=False))
    assert _ranks(run)["user_id"].to_list() == ["ann", "ann", "bob", "cleo", "dan"]
    assert _ranks(run)["rank_popularity"].to_list() == [4, 15, 4, 1, 1]
    assert _metrics(run)["dropped"] == {"seen": 0, "not_candidate": 1}


def test_sizes_are_those_on_disk_and_every_model_has_a_latency(
    evaluate_models: Evaluate,
    prepare_users: Callable[..., Artifact],
    trained_teacher: Artifact,
    served_folder: Path,
) -> None:
    run, _ = evaluate_models(prepare_users())
    weights = trained_teacher.file("model.safetensors").stat().st_size
    served = sum((served_folder / name).stat().st_size for name in SERVED_FILES)
    sizes = {name: model["size_bytes"] for name, model in _metrics(run)["models"].items()}
    baselines = {"popularity": None, "item_knn": None}
    assert sizes == dict.fromkeys(NETWORKS, weights) | {"compressed": served} | baselines
    latency = read_json(run.out / "latency.json")
    assert sorted(latency) == sorted(MODELS)
    assert all(list(figures) == ["latency_ms_p50"] for figures in latency.values())
    assert latency["teacher"]["latency_ms_p50"] > 0


def test_a_window_without_a_case_is_refused(
    evaluate_models: Evaluate, prepare_users: Callable[..., Artifact]
) -> None:
    only_dan = [USERS[0][:0], USERS[1][1:]]
    message = (
        r"The test window holds no event that could be recommended \(dropped: "
        r"\{'seen': 1, 'not_candidate': 1\}\)"
    )
    with pytest.raises(ValueError, match=message):
        evaluate_models(prepare_users(only_dan))


def test_the_champion_is_ranked_like_the_others(
    evaluate_models: Evaluate,
    prepare_users: Callable[..., Artifact],
    registry: Registry,
    served_folder: Path,
    tmp_path: Path,
) -> None:
    """A version as the register stage makes it; trained through the very start of the window."""
    folder = tmp_path / "model"
    shutil.copytree(served_folder, folder)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    version = registry.register_student(
        "test-student",
        key="k1",
        run_id=registry.open_run("test", "2026-03-10", "night-key"),
        folder=folder,
        scratch=scratch,
        tags={},
        description="",
    )
    run, summary = evaluate_models(prepare_users(), champion=version)
    metrics = _metrics(run)
    assert metrics["champion"] == {"version": 1, "not_compared_because": None}
    assert _ranks(run)["rank_champion"].to_list() == _ranks(run)["rank_compressed"].to_list()
    assert metrics["models"]["champion"] == metrics["models"]["compressed"]
    assert "champion" in summary["ndcg_at_10"]
    assert "champion" in read_json(run.out / "latency.json")


@pytest.mark.parametrize(
    ("split", "trained_through"),
    [
        ("validation", "2026-03-01T00:00:00+00:00"),
        ("validation", VALIDATION_START),
        ("test", VALIDATION_START),
        ("test", "2026-03-07T23:59:59.999999+00:00"),
        ("test", TEST_START),
        ("test", "2026-03-08T05:30:00+05:30"),  # the same moment in another zone
    ],
)
def test_a_champion_trained_until_the_window_is_compared(
    evaluate_models: Evaluate,
    prepare_users: Callable[..., Artifact],
    register_champion: Register,
    split: str,
    trained_through: str,
) -> None:
    version = register_champion(trained_through)
    run, _ = evaluate_models(prepare_users(), champion=version, split=split)
    assert _metrics(run)["champion"] == {"version": version, "not_compared_because": None}
    assert "rank_champion" in _ranks(run).columns


@pytest.mark.parametrize(
    ("split", "trained_through", "window_start"),
    [
        ("validation", "2026-03-06T00:00:00.000001+00:00", VALIDATION_START),
        ("validation", "2026-03-07T00:00:00+00:00", VALIDATION_START),  # before the test window
        ("validation", TEST_START, VALIDATION_START),
        ("test", "2026-03-08T00:00:00.000001+00:00", TEST_START),
        ("test", "2026-03-07T23:00:00-05:00", TEST_START),  # 04:00 UTC of the next day
        ("test", "2026-03-09T00:00:00+00:00", TEST_START),
    ],
)
def test_a_champion_trained_on_events_of_the_window_is_not_compared(
    evaluate_models: Evaluate,
    prepare_users: Callable[..., Artifact],
    register_champion: Register,
    split: str,
    trained_through: str,
    window_start: str,
) -> None:
    version = register_champion(trained_through)
    run, summary = evaluate_models(prepare_users(), champion=version, split=split)
    champion = _metrics(run)["champion"]
    assert champion["version"] == version
    for part in (trained_through, f"{split} window", window_start):
        assert part in champion["not_compared_because"]
    _assert_not_compared(run, summary)


def test_a_champion_that_was_trained_on_no_split_in_time_is_not_compared(
    evaluate_models: Evaluate,
    prepare_users: Callable[..., Artifact],
    register_champion: Register,
) -> None:
    version = register_champion(None)
    run, summary = evaluate_models(prepare_users(), champion=version)
    assert "may have seen the window" in _metrics(run)["champion"]["not_compared_because"]
    _assert_not_compared(run, summary)


def test_leave_one_out_compares_no_champion(
    evaluate_models: Evaluate,
    obvious_world: Artifact,
    register_champion: Register,
) -> None:
    version = register_champion("2026-03-01T00:00:00+00:00")
    run, summary = evaluate_models(obvious_world, champion=version)
    champion = _metrics(run)["champion"]
    assert champion["version"] == version
    assert "Leave-one-out has no point in time" in champion["not_compared_because"]
    _assert_not_compared(run, summary)


def test_a_first_night_has_no_champion(
    evaluate_models: Evaluate, prepare_users: Callable[..., Artifact]
) -> None:
    run, summary = evaluate_models(prepare_users())
    expected = {"version": None, "not_compared_because": "There is no champion yet."}
    assert _metrics(run)["champion"] == expected
    _assert_not_compared(run, summary)


def _assert_not_compared(run: StageRun, summary: dict[str, Any]) -> None:
    """Nothing that is written holds a figure of the champion."""
    assert "rank_champion" not in _ranks(run).columns
    assert "champion" not in _metrics(run)["models"]
    assert "champion" not in read_json(run.out / "latency.json")
    assert "champion" not in summary["ndcg_at_10"]
