"""Train the teacher: one large network or several, anew or from last night's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from recsys_core.artifacts import Artifact, is_finished, read_json, write_json
from recsys_core.models.checkpoint import load_model, save_model
from recsys_core.models.ensemble import load_recommender, member_folder
from recsys_core.models.recommender import Recommender
from recsys_core.settings import part
from recsys_core.training.batching import Recent
from recsys_core.training.retraining import RetrainingPolicy
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import (
    FUSED_LOSS_LIBRARY,
    TRAINING_LIBRARIES,
    NetworkConfig,
    build_network,
    train_without_teacher,
)
from tasks.training.prepared import Prepared
from tasks.training.teacher import (
    LINEAGE,
    TeacherConfig,
    TransferError,
    networks_digest,
    transfer_source,
)


class LostParentError(RuntimeError):
    """The plan names a teacher that is no longer there."""


@stage(
    output="teacher",
    version=1,
    libraries=TRAINING_LIBRARIES,
    optional_libraries=FUSED_LOSS_LIBRARY,
)
def train_teacher(
    run: StageRun, config: TeacherConfig, *, prepared: Artifact, teacher_plan: Artifact
) -> Summary:
    """Write `model.safetensors`, `model.json`, `curve.json` and `lineage.json`.

    Of an ensemble the first member's files lie there and the others' in `member-1/` and so on. A
    rerun after a kill goes on with the member that was being trained.

    Args:
        run: Where and how.
        config: The networks.
        prepared: Tonight's data.
        teacher_plan: `plan.json`: train anew, warm-start from a parent, or reuse it.

    Raises:
        LostParentError: The parent was deleted since the plan was made.
        TransferError: The teacher in `transfer_from` does not fit, is damaged, or is another one
            than when the night was planned.
    """
    plan = read_json(teacher_plan.file("plan.json"))
    if plan["parent"] is None and plan["transferred_from"] != transfer_source(config):
        raise TransferError(_exchanged(run, config, teacher_plan))
    data = Prepared(prepared)
    parent = None if plan["parent"] is None else _parent(run, plan["parent"], teacher_plan)
    members = config.members()
    summaries: list[Summary] = []
    for number, member in enumerate(members):
        member_run = _member_run(run, number, len(members))
        finished = member_run.out / "summary.json"
        if finished.exists():
            summaries.append(read_json(finished))
        elif parent is None:
            model = _fresh(member, data, config.transfer_from, number)
            summaries.append(train_without_teacher(member_run, member, data, model=model))
        else:
            folder = member_folder(parent, number)
            since = None if plan["mode"] == "reuse" else plan["since"]
            summaries.append(
                _taken_over(member_run, member, data, folder, config.retraining, since)
            )
    _write_lineage(run, config, data, plan, parent)
    if len(members) == 1:
        return {"mode": plan["mode"], **summaries[0]}
    validate = data.validator(config.training.validation_cases)
    return {"mode": plan["mode"], **_together(summaries, validate(load_recommender(run.out)))}


def _fresh(network: NetworkConfig, data: Prepared, source: Path | None, number: int) -> Recommender:
    """A member to be trained in full, with initial weights or those learned on other data."""
    model = build_network(data, network)
    if source is None:
        return model
    folder = member_folder(source, number)
    try:
        model.initialise_from_other_catalogue(load_model(folder))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        msg = f"teacher.transfer_from: {folder}: {error}"
        raise TransferError(msg) from error
    return model


def _exchanged(run: StageRun, config: TeacherConfig, teacher_plan: Artifact) -> str:
    return (
        f"teacher.transfer_from: the weights in {config.transfer_from} are others than those that "
        f"tonight's plan names. Put those back, or delete {teacher_plan.folder}, {run.out} and "
        f"{run.scratch} and run the night again: it plans and trains anew."
    )


def _taken_over(
    run: StageRun,
    network: NetworkConfig,
    data: Prepared,
    parent: Path,
    policy: RetrainingPolicy,
    since: int | None,
) -> Summary:
    """Go on from a parent with what is new since a moment; None: leave it as it is."""
    model = build_network(data, network)
    model.warm_start_from(load_model(parent))
    if since is not None:
        rate = network.training.learning_rate * policy.warm_learning_rate_share
        changes = {"epochs": policy.warm_epochs, "learning_rate": rate, "validate_every": 1}
        training = network.training.model_copy(update=changes)
        recent = Recent(since, policy.replay_share)
        warm = network.model_copy(update={"training": training})
        return train_without_teacher(run, warm, data, model=model, recent=recent)
    save_model(run.out, model.eval())
    summary = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": 0,
        "best_epoch": 0,
        "validation_ndcg_at_10": data.validator(network.training.validation_cases)(model),
    }
    write_json(run.out / "curve.json", [])
    write_json(run.out / "summary.json", summary)
    return summary


def _parent(run: StageRun, key: str, teacher_plan: Artifact) -> Path:
    folder = run.out.parent / key
    if not is_finished(folder):
        msg = (
            f"Tonight's plan goes on from the teacher {key}, which is no longer whole in "
            f"{folder.parent}. Delete {teacher_plan.folder} and run the night again: it plans anew."
        )
        raise LostParentError(msg)
    return folder


def _member_run(run: StageRun, number: int, n_parts: int) -> StageRun:
    """The run of one of several networks: its own folders and its part of the progress."""
    out = member_folder(run.out, number)
    out.mkdir(exist_ok=True)
    progress = part(run.progress, number, n_parts, "network")
    return replace(run, out=out, scratch=run.scratch / f"member-{number}", progress=progress)


def _write_lineage(
    run: StageRun,
    config: TeacherConfig,
    data: Prepared,
    plan: Mapping[str, Any],
    parent: Path | None,
) -> None:
    """What later nights have to know to go on from this teacher."""
    mode = plan["mode"]
    through = data.split.trained_through
    before = None if parent is None else read_json(parent / LINEAGE)
    lineage = {
        "mode": mode,
        "parent": None if parent is None else parent.name,
        "trained_through": before["trained_through"] if before and mode == "reuse" else through,
        "full_trained_through": before["full_trained_through"] if before else through,
        "transferred_from": (before or plan).get("transferred_from"),
        "networks": networks_digest(config, data),
        "n_items": data.split.n_items,
        "item_index_sha256": data.split.item_index_sha256,
    }
    write_json(run.out / LINEAGE, lineage)


def _together(summaries: Sequence[Summary], ndcg: float) -> Summary:
    return {
        "parameters": sum(summary["parameters"] for summary in summaries),
        "epochs": sum(summary["epochs"] for summary in summaries),
        "members": [summary["validation_ndcg_at_10"] for summary in summaries],
        "validation_ndcg_at_10": ndcg,
    }
