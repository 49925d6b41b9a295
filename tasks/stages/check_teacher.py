"""Check the teacher: the night stops if it ranks worse than popularity or the last teacher.

Like is compared with like. Popularity knows what is recent, so against it the teacher ranks with
its recency prior. Item-kNN doesn't know, and the last teacher's prior is of another night, so
against these the teacher ranks without.

It is also compared by slices, see `recsys_core.evaluation.teacher_slices`: its labels don't count
where it ranks worse than a baseline.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys_core.artifacts import Artifact, is_finished
from recsys_core.data.histories.cases import CaseHistories, FloatArray, Ranker
from recsys_core.evaluation.metrics import Values, mean_per_user
from recsys_core.evaluation.statistics import paired_difference
from recsys_core.evaluation.teacher_slices import PositionSlices, SliceComparison, compare_slices
from recsys_core.models.ensemble import AnyRecommender, load_recommender, member_folder
from recsys_core.models.ranker import model_ranker
from recsys_core.settings import Settings
from recsys_core.training.validation import Validator
from tasks.contracts.network import Curve
from tasks.contracts.teacher import Lineage, TeacherCheck, TeacherPlan
from tasks.engine.stage import StageRun, Summary, stage
from tasks.registry.store import TEACHER_FILES, Registry, RegistryConfig, teacher_name
from tasks.training.baselines import baselines
from tasks.training.prepared import Prepared

_ALONE = "teacher without prior"


class TeacherCheckConfig(Settings):
    """What a teacher must reach on validation events before soft labels are written."""

    enabled: bool = Field(default=True, description="Stop the night if the teacher fails")
    max_loss: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Allowed loss against the last teacher, as a share of its NDCG@10; a larger "
        "loss passes if chance can explain it",
    )
    max_cases: int = Field(
        default=50_000, ge=1, description="About the most held-out events that are ranked"
    )
    n_resamples: int = Field(
        default=1000, ge=100, le=100_000, description="Bootstrap samples of the users"
    )
    cold_user_events: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="A user with at most this many events is cold; cold and warm users are slices "
        "on which the teacher is compared with popularity",
    )
    min_slice_users: int = Field(
        default=50, ge=1, description="On a slice of fewer users the teacher's labels always count"
    )


class TeacherRefusedError(RuntimeError):
    """The teacher ranks no better than recent popularity, or worse than the last teacher."""


@stage(output="teacher_check", version=4, libraries=("numpy", "polars", "scipy", "torch"))
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
        run: Folders and key.
        config: The bounds.
        registry: Where teachers are registered, as `<name>-teacher`.
        name: The night's name.
        run_date: The night's date.
        prepared: The validation events.
        teacher_plan: `plan.json` names the last teacher.
        teacher: Tonight's teacher.

    Raises:
        TeacherRefusedError: It ranks no better than popularity, or worse than the last teacher.
    """
    data = Prepared(prepared)
    cold_start = data.cold_start()
    model = load_recommender(teacher.folder)
    rankers: dict[str, Ranker] = {
        "teacher": model_ranker(model, cold_start),
        **baselines(data),
    }
    if model.item_bias is not None:
        rankers[_ALONE] = model_ranker(model, cold_start, with_bias=False)
    last = _last_teacher(teacher, teacher_plan)
    if last is not None:
        rankers["last teacher"] = widened(load_recommender(last.folder), cold_start)
    validator = data.validator(config.max_cases)
    by_case = {name: validator.by_case(ranker) for name, ranker in rankers.items()}
    by_case.setdefault(_ALONE, by_case["teacher"])
    values = {name: mean_per_user(ndcg, validator.user_ids) for name, ndcg in by_case.items()}
    means = {ranker: float(by_user.mean()) for ranker, by_user in values.items()}
    objections = list(_objections(values, config))
    if objections and config.enabled:
        raise TeacherRefusedError(_refusal(objections))
    slices = _compare_slices(by_case, validator, data, config)
    worse = [comparison.sentence for comparison in slices if comparison.worse]
    for sentence in worse:
        run.logger.warning("The teacher ranks worse than a baseline. %s", sentence)
    lineage = Lineage.load(teacher)
    check = TeacherCheck(
        teacher=teacher.key,
        ndcg_at_10=means,
        cold_user_events=config.cold_user_events,
        slices=slices,
        objections=objections,
        lineage=lineage,
        version=_register(run, registry, name, run_date, teacher, lineage, means),
    )
    check.save(run.out)
    return check.model_dump(include={"version", "ndcg_at_10", "objections"}) | {"worse_on": worse}


def widened(model: AnyRecommender, cold_start: FloatArray) -> Ranker:
    """An earlier night's model over tonight's items, without its recency prior.

    Items that it lacks score -inf.

    Args:
        model: Knows a prefix of tonight's items.
        cold_start: Scores of tonight's items after an empty history, `[n_items + 1]`.
    """
    n_known = model.n_items
    rank = model_ranker(model, cold_start[: n_known + 1], with_bias=False)

    def score(histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        known = rank(_known_items(histories, n_known))
        new = np.full((len(known), len(cold_start) - known.shape[1]), -np.inf, np.float32)
        return np.concatenate([known, new], axis=1)

    return score


def _known_items(
    histories: Sequence[NDArray[np.int32]], n_known: int
) -> Sequence[NDArray[np.int32]]:
    if isinstance(histories, CaseHistories):
        return histories.where(lambda items: items <= n_known)
    return [history[history <= n_known] for history in histories]


def _last_teacher(teacher: Artifact, teacher_plan: Artifact) -> Artifact | None:
    key = TeacherPlan.load(teacher_plan).last
    if key is None:
        return None
    folder = teacher.folder.with_name(key)
    return Artifact("train_teacher", key, folder) if is_finished(folder) else None


def _compare_slices(
    ndcg: Mapping[str, Values], cases: Validator, data: Prepared, config: TeacherCheckConfig
) -> tuple[SliceComparison, ...]:
    slices = PositionSlices(
        data.items["train_count"].to_numpy(), cold_user_events=config.cold_user_events
    )
    compare = partial(
        compare_slices,
        slices,
        user_ids=cases.user_ids,
        lengths=cases.lengths,
        targets=cases.targets,
        min_users=config.min_slice_users,
        n_resamples=config.n_resamples,
    )
    with_prior, alone = compare(ndcg), compare({**ndcg, "teacher": ndcg[_ALONE]})
    return tuple(
        one if one.baseline == "popularity" else other
        for one, other in zip(with_prior, alone, strict=True)
    )


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
        alone = values[_ALONE]
        difference = paired_difference(alone, last, n_resamples=config.n_resamples)
        if difference.mean < -config.max_loss * last.mean() and difference.high < 0:
            yield (
                f"it ranks at NDCG@10 {alone.mean():.4f}, the last teacher at {last.mean():.4f} on "
                "the same events, both without a recency prior, and chance does not explain it (at "
                f"best {difference.high:+.4f})"
            )


def _refusal(objections: Sequence[str]) -> str:
    return (
        f"Tonight's teacher is refused: {'; '.join(objections)}. The night stops and the champion "
        "does not change. Look at the teacher's learning curve and at the new data. "
        "teacher.retraining.mode = 'full' trains in full, teacher_check.max_loss is the allowed "
        "loss, and teacher_check.enabled = false turns this check off."
    )


def _register(
    run: StageRun,
    config: RegistryConfig,
    night_name: str,
    run_date: date,
    teacher: Artifact,
    lineage: Lineage,
    ndcg_at_10: Mapping[str, float],
) -> int:
    """Store the teacher's files in the registry, as a version with its lineage."""
    registry, name = Registry(run.workspace, config), teacher_name(night_name)
    run_id = registry.open_run(night_name, f"{run_date} teacher", run.key)
    registry.log_night(
        run_id,
        params={},
        metrics={
            f"validation/{ranker.replace(' ', '_')}/ndcg_at_10": value
            for ranker, value in ndcg_at_10.items()
        },
        curves=_curve_metrics(teacher),
        artifacts=[],
    )
    tags = {f"lineage.{field}": str(value) for field, value in lineage}
    version = registry.register_files(
        name,
        key=run.key,
        run_id=run_id,
        folder=teacher.folder,
        artifact_path=TEACHER_FILES,
        tags={"run_date": run_date.isoformat(), "made_of.train_teacher": teacher.key, **tags},
        description=f"Teacher of the night of {run_date}: {lineage.mode} training.",
    )
    registry.finish_run(run_id)
    return version


def _curve_metrics(teacher: Artifact) -> dict[str, list[tuple[int, float]]]:
    """`curve/teacher/loss` and so on, by epoch; of an ensemble also `curve/teacher-1/loss`."""
    metrics: dict[str, list[tuple[int, float]]] = {}
    number = 0
    while ((folder := member_folder(teacher.folder, number)) / Curve.file_name).exists():
        metrics |= Curve.load(folder).as_metrics(f"teacher-{number}" if number else "teacher")
        number += 1
    return metrics
