"""The teacher check: nothing is built on a teacher worse than popularity, or than the last one."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys_core.artifacts import Artifact, is_finished, read_json, write_json
from recsys_core.data.histories.cases import CaseHistories, Ranker, candidate_mask, read_cases
from recsys_core.evaluation.baselines import popularity_ranker
from recsys_core.evaluation.metrics import mean_per_user, ndcg_at_k
from recsys_core.evaluation.ranking import rank_targets
from recsys_core.evaluation.statistics import paired_difference
from recsys_core.models.ensemble import AnyRecommender, load_recommender, member_folder
from recsys_core.models.ranker import model_ranker
from recsys_core.settings import Settings
from tasks.engine.stage import StageRun, Summary, stage
from tasks.registry.store import Registry, RegistryConfig, teacher_name
from tasks.training.prepared import Prepared
from tasks.training.teacher import LINEAGE


class TeacherCheckConfig(Settings):
    """What a teacher must show on validation events before labels are made of it."""

    enabled: bool = Field(default=True, description="Stop the night where the teacher fails")
    max_loss: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Share of the last teacher's NDCG@10 that it may be worse by; more is forgiven "
        "where chance explains it",
    )
    max_cases: int = Field(
        default=50_000, ge=1, description="Held-out events that are ranked, at most about so many"
    )
    n_resamples: int = Field(
        default=1000, ge=100, le=100_000, description="Bootstrap samples of the users"
    )


class TeacherRefusedError(RuntimeError):
    """The teacher ranks no better than recent popularity, or worse than the last teacher."""


@stage(output="teacher_check", version=1, libraries=("numpy", "polars", "torch"))
def check_teacher(
    run: StageRun,
    config: TeacherCheckConfig,
    *,
    registry: RegistryConfig,
    name: str,
    run_date: date,
    prepared: Artifact,
    teacher_plan: Artifact,
    teacher: Artifact,
) -> Summary:
    """Compare the teacher, register it with its lineage, write `check.json`.

    Args:
        run: Where and how.
        config: The bounds.
        registry: Where teachers are registered, as `<name>-teacher`.
        name: The night's name.
        run_date: The night's date.
        prepared: The validation events.
        teacher_plan: `plan.json` names the last teacher.
        teacher: Tonight's.

    Raises:
        TeacherRefusedError: It does not rank better than popularity, or worse than the last one.
    """
    data = Prepared(prepared)
    rankers: dict[str, Ranker] = {
        "teacher": model_ranker(load_recommender(teacher.folder)),
        "popularity": popularity_ranker(
            *(data.items[name].to_numpy() for name in ("recent_count", "train_count"))
        ),
    }
    last = _last_teacher(teacher, teacher_plan)
    if last is not None:
        rankers["last teacher"] = widened(load_recommender(last.folder), len(data.items))
    values = _ndcg_by_user(data, rankers, config.max_cases)
    figures: dict[str, Any] = {name: float(of.mean()) for name, of in values.items()}
    objections = list(_objections(values, config))
    lineage = read_json(teacher.file(LINEAGE))
    facts = {"ndcg_at_10": figures, "objections": objections, "lineage": lineage}
    if objections and config.enabled:
        raise TeacherRefusedError(_refusal(objections))
    facts["version"] = _registered(run, registry, name, run_date, teacher, facts)
    write_json(run.out / "check.json", facts)
    return {"version": facts["version"], "ndcg_at_10": figures, "objections": objections}


def widened(model: AnyRecommender, n_items: int) -> Ranker:
    """An earlier night's model over tonight's items: those that it lacks it never recommends."""
    rank, n_known = model_ranker(model), model.n_items

    def score(histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        known = rank(_within(histories, n_known))
        lacking = np.full((len(known), n_items - n_known), -np.inf, np.float32)
        return np.concatenate([known, lacking], axis=1)

    return score


def _within(histories: Sequence[NDArray[np.int32]], n_known: int) -> Sequence[NDArray[np.int32]]:
    if isinstance(histories, CaseHistories):
        return histories.where(lambda items: items <= n_known)
    return [history[history <= n_known] for history in histories]


def _last_teacher(teacher: Artifact, teacher_plan: Artifact) -> Artifact | None:
    key = read_json(teacher_plan.file("plan.json"))["last"]
    if key is None:
        return None
    folder = teacher.folder.with_name(key)
    return Artifact("train_teacher", key, folder) if is_finished(folder) else None


def _ndcg_by_user(
    data: Prepared, rankers: Mapping[str, Ranker], max_cases: int
) -> dict[str, NDArray[np.float64]]:
    """NDCG@10 on validation events, the mean of each user."""
    candidates = candidate_mask(data.items, "validation")
    ranks: dict[str, list[NDArray[np.int64]]] = {name: [] for name in rankers}
    users: list[str] = []
    for bucket in data.buckets:
        cases = read_cases(bucket, data.items, "validation", exclude_seen=data.exclude_seen)
        users += cases.user_id
        for name, ranker in rankers.items():
            ranks[name].append(
                rank_targets(ranker, cases, candidates, exclude_seen=data.exclude_seen)
            )
        if len(users) >= max_cases:
            break
    return {
        name: mean_per_user(ndcg_at_k(np.concatenate(found), 10), users)
        for name, found in ranks.items()
    }


def _objections(
    values: Mapping[str, NDArray[np.float64]], config: TeacherCheckConfig
) -> Iterator[str]:
    mine, popular = values["teacher"], values["popularity"]
    if not mine.mean() > popular.mean():
        yield (
            f"it ranks at NDCG@10 {mine.mean():.4f}, recent popularity alone at "
            f"{popular.mean():.4f}"
        )
    if (last := values.get("last teacher")) is not None:
        difference = paired_difference(mine, last, n_resamples=config.n_resamples)
        if difference.mean < -config.max_loss * last.mean() and difference.high < 0:
            yield (
                f"it ranks at NDCG@10 {mine.mean():.4f}, the last teacher at {last.mean():.4f} on "
                f"the same events, and chance does not explain it (at best {difference.high:+.4f})"
            )


def _refusal(objections: Sequence[str]) -> str:
    return (
        f"No labels are made of tonight's teacher: {'; '.join(objections)}. The champion stays. "
        "Look at the curve of its training and at the new data; teacher.retraining.mode = 'full' "
        "trains anew, teacher_check.max_loss says how much worse it may be, and "
        "teacher_check.enabled = false lets it pass."
    )


def _registered(
    run: StageRun,
    config: RegistryConfig,
    night_name: str,
    run_date: date,
    teacher: Artifact,
    facts: Mapping[str, Any],
) -> int:
    """Keep the teacher's files in the registry, as a version with its lineage."""
    registry, name = Registry(run.workspace, config), teacher_name(night_name)
    run_id = registry.open_run(night_name, f"{run_date} teacher", run.key)
    metrics = {f"validation/{of}/ndcg_at_10": value for of, value in facts["ndcg_at_10"].items()}
    registry.log_night(
        run_id,
        params={},
        metrics={label.replace(" ", "_"): value for label, value in metrics.items()},
        curves=dict(_curves(teacher)),
        artifacts=[],
    )
    lineage = facts["lineage"]
    tags = {f"lineage.{field}": str(value) for field, value in lineage.items()}
    version = registry.register_files(
        name,
        key=run.key,
        run_id=run_id,
        folder=teacher.folder,
        tags={"run_date": run_date.isoformat(), "made_of.train_teacher": teacher.key, **tags},
        description=f"Teacher of the night of {run_date}: {lineage['mode']} training.",
    )
    registry.finish_run(run_id)
    return version


def _curves(teacher: Artifact) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """`curve/teacher/loss` and so on, by epoch; of an ensemble `curve/teacher-1/loss` too."""
    number = 0
    while (path := member_folder(teacher.folder, number) / "curve.json").exists():
        name = f"teacher-{number}" if number else "teacher"
        points = read_json(path)
        for metric in ("loss", "validation_ndcg_at_10"):
            known = [(point["epoch"], point[metric]) for point in points]
            yield (
                f"curve/{name}/{metric}",
                [(epoch, value) for epoch, value in known if value is not None],
            )
        number += 1
