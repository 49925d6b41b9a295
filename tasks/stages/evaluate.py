"""Evaluate: rank the full catalogue for every held-out event with every model of the night."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from recsys_core.artifacts import Artifact
from recsys_core.data.histories.cases import CaseHistories, Ranker, candidate_mask, read_cases
from recsys_core.evaluation.ranking import rank_targets
from recsys_core.evaluation.results import (
    ChampionNote,
    EvaluationMetrics,
    ModelResult,
    SliceResult,
    other_student,
)
from recsys_core.evaluation.slices import case_slices
from recsys_core.evaluation.statistics import summarise
from recsys_core.models.checkpoint import WEIGHTS
from recsys_core.models.ensemble import load_recommender, member_folders
from recsys_core.models.ranker import model_ranker
from recsys_core.serving.folder import served_bytes
from recsys_core.serving.ranker import scorer_ranker
from recsys_core.serving.scorer import Scorer
from recsys_core.settings import Settings
from tasks.contracts.evaluation import Latencies, Latency
from tasks.contracts.family import Family, size_folder
from tasks.engine.stage import StageRun, Summary, stage
from tasks.registry.store import RegistryConfig, load_scorer
from tasks.training.baselines import baselines
from tasks.training.prepared import Prepared

_LATENCY_REQUESTS = 50


class EvaluationConfig(Settings):
    """Which events are ranked, and how confidence intervals are computed."""

    split: Literal["validation", "test"] = Field(
        default="test",
        description="test for production nights; validation while comparing settings",
    )
    cold_user_events: int = Field(
        default=10, ge=0, le=1000, description="A user with at most this many events is cold"
    )
    n_resamples: int = Field(
        default=2000, ge=100, le=100_000, description="Bootstrap samples of the users"
    )
    seed: int = Field(default=1, ge=0, description="Seed of the bootstrap")


@stage(
    output="evaluated",
    version=3,
    libraries=("numpy", "onnxruntime", "polars", "scipy", "torch"),
)
def evaluate(
    run: StageRun,
    config: EvaluationConfig,
    *,
    registry: RegistryConfig,
    name: str,
    champion: int | None,
    prepared: Artifact,
    teacher: Artifact | None,
    student: Artifact,
    control: Artifact,
    compressed: Artifact,
) -> Summary:
    """Write `ranks.parquet`, `metrics.json` and `latency.json`; an external teacher has no rows.

    "student" is the one that ships, before its compression. The night's other students are
    evaluated as they would be served, under `size_NAME`.
    """
    data = Prepared(prepared)
    family = Family.load(compressed)
    taught = {
        "student": size_folder(student.folder, family.shipped),
        "control": control.folder,
    }
    trained = taught if teacher is None else {"teacher": teacher.folder, **taught}
    served = {
        other_student(name): family.served_folder(compressed.folder, name) for name in family.others
    }
    models = _networks(data, trained) | {
        name: _served(data, Scorer(folder), folder)
        for name, folder in ({"compressed": compressed.folder} | served).items()
    }
    not_compared = _why_no_champion(data, config, champion)
    if champion is not None and not_compared is None:
        scorer, folder = load_scorer(run.workspace, registry, name, champion)
        not_compared = _trained_on_window(scorer, data, config)
        if not_compared is None:
            models["champion"] = _served(data, scorer, folder)
    models |= {name: _Model(ranker) for name, ranker in baselines(data).items()}
    ranks, dropped = _rank(run, config, data, models)
    ranks.write_parquet(run.out / "ranks.parquet", compression="zstd")
    metrics = EvaluationMetrics(
        split=config.split,
        n_cases=len(ranks),
        n_users=ranks["user_id"].n_unique(),
        dropped=dropped,
        champion=ChampionNote(version=champion, not_compared_because=not_compared),
        teacher_is_external=teacher is None,
        models=_results(ranks, models, config),
    )
    metrics.save(run.out)
    _latencies(data, models).save(run.out)
    return {
        "split": config.split,
        "n_cases": len(ranks),
        "ndcg_at_10": {
            name: model.slices["all"].ndcg_at_10.mean for name, model in metrics.models.items()
        },
    }


class _Model(NamedTuple):
    """What is evaluated of a model: its ranker, and its bytes on disk if it has files."""

    ranker: Ranker
    size_bytes: int | None = None


_Models = dict[str, _Model]


def _networks(data: Prepared, trained: Mapping[str, Path]) -> _Models:
    """The night's networks; the size is that of their weights."""
    cold_start = data.cold_start()
    return {
        name: _Model(
            model_ranker(load_recommender(folder), cold_start),
            sum((member / WEIGHTS).stat().st_size for member in member_folders(folder)),
        )
        for name, folder in trained.items()
    }


def _served(data: Prepared, scorer: Scorer, folder: Path) -> _Model:
    """A compressed student; the size is that of all files that serving needs."""
    item_ids = data.items["item_id"].to_list()
    return _Model(scorer_ranker(scorer, item_ids), served_bytes(folder))


def _why_no_champion(data: Prepared, config: EvaluationConfig, champion: int | None) -> str | None:
    if champion is None:
        return "There is no champion yet."
    if data.split.kind == "leave_one_out":
        return "Leave-one-out has no point in time that a champion could be compared at."
    return None


def _trained_on_window(scorer: Scorer, data: Prepared, config: EvaluationConfig) -> str | None:
    """The reason not to compare a champion whose training may cover the window's start."""
    window_start = data.split.window_start(config.split)
    trained_through = scorer.config["trained_through"]
    if trained_through is None:
        return "The champion was not trained on a split in time, so it may have seen the window."
    assert window_start is not None, "no champion is compared on a split by order"
    if datetime.fromisoformat(trained_through) > datetime.fromisoformat(window_start):
        return (
            f"The champion was trained through {trained_through}, later than the start of the "
            f"{config.split} window, {window_start}."
        )
    return None


def _rank(
    run: StageRun, config: EvaluationConfig, data: Prepared, models: _Models
) -> tuple[pl.DataFrame, dict[str, int]]:
    """One row per case: its slices and each model's rank of the target; dropped cases by reason."""
    candidates = candidate_mask(data.items, config.split)
    frames: list[pl.DataFrame] = []
    dropped: dict[str, int] = {}
    for i, bucket in enumerate(data.buckets):
        cases = read_cases(bucket, data.items, config.split, exclude_seen=data.exclude_seen)
        dropped = {name: dropped.get(name, 0) + n for name, n in cases.dropped.items()}
        slices = case_slices(cases, data.items, cold_user_events=config.cold_user_events)
        columns: dict[str, Any] = {
            "user_id": pl.Series(cases.user_id, dtype=pl.String),
            "position": cases.positions,
            "target": cases.targets,
            "history_length": np.array([len(history) for history in cases.histories], np.int32),
            **{f"slice_{name}": mask for name, mask in slices.items()},
        }
        for j, (name, model) in enumerate(models.items()):
            columns[f"rank_{name}"] = rank_targets(
                model.ranker, cases, candidates, exclude_seen=data.exclude_seen
            )
            done = (i + (j + 1) / len(models)) / len(data.buckets)
            run.progress(done, f"{name}, bucket {i + 1} of {len(data.buckets)}")
        frames.append(pl.DataFrame(columns))
    ranks = pl.concat(frames)
    if ranks.is_empty():
        msg = (
            f"The {config.split} window holds no event that could be recommended (dropped: "
            f"{dropped}), so no model can be evaluated. Make the window longer or check run_date."
        )
        raise ValueError(msg)
    return ranks, dropped


def _results(
    ranks: pl.DataFrame, models: _Models, config: EvaluationConfig
) -> dict[str, ModelResult]:
    """Metrics and sizes of the models, by slice."""
    masks = {"all": pl.lit(value=True)} | {
        column.removeprefix("slice_"): pl.col(column)
        for column in ranks.columns
        if column.startswith("slice_")
    }
    by_slice: dict[str, dict[str, dict[str, Any]]] = {}
    for name, mask in masks.items():
        cases = ranks.filter(mask)
        by_slice[name] = summarise(
            {model: cases[f"rank_{model}"].to_numpy() for model in models},
            cases["user_id"].to_numpy(),
            n_resamples=config.n_resamples,
            seed=config.seed,
        )
    return {
        name: ModelResult(
            size_bytes=model.size_bytes,
            slices={
                slice_name: SliceResult.model_validate(summaries[name])
                for slice_name, summaries in by_slice.items()
            },
        )
        for name, model in models.items()
    }


def _latencies(data: Prepared, models: _Models) -> Latencies:
    """Latencies of scoring the catalogue for one user, measured in this process."""
    users = pl.scan_parquet(data.buckets).head(_LATENCY_REQUESTS).collect()
    histories = CaseHistories.whole(users)
    requests = [histories[user : user + 1] for user in range(len(histories))]
    return Latencies(
        models={
            name: Latency(latency_ms_p50=_median_milliseconds(model.ranker, requests))
            for name, model in models.items()
        }
    )


def _median_milliseconds(ranker: Ranker, requests: Sequence[CaseHistories]) -> float:
    ranker(requests[0])
    seconds: list[float] = []
    for request in requests:
        began = time.perf_counter()
        ranker(request)
        seconds.append(time.perf_counter() - began)
    return round(1000 * float(np.median(seconds)), 3)
