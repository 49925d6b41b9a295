"""Train the teacher: one large network or several, in full or from an earlier teacher."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from recsys_core.artifacts import Artifact, is_finished
from recsys_core.models.checkpoint import load_model, save_model
from recsys_core.models.ensemble import (
    Ensemble,
    member_folder,
    member_folders,
    save_ensemble_bias,
)
from recsys_core.models.recommender import Recommender
from recsys_core.settings import part
from recsys_core.training.batching import Recent
from recsys_core.training.retraining import RetrainingPolicy
from tasks.contracts.network import NetworkSummary
from tasks.contracts.teacher import Lineage, TeacherPlan
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import (
    FUSED_LOSS_LIBRARY,
    TRAINING_LIBRARIES,
    NetworkConfig,
    build_network,
    finished_network,
    n_parameters,
    save_curve,
    train_without_teacher,
)
from tasks.training.prepared import Prepared
from tasks.training.recency import fit_recency_prior
from tasks.training.teacher import TeacherConfig, TransferError, networks_digest, transfer_source


class LostParentError(RuntimeError):
    """The parent that the plan names was deleted or damaged."""


@stage(
    output="teacher",
    version=4,
    libraries=TRAINING_LIBRARIES,
    optional_libraries=FUSED_LOSS_LIBRARY,
)
def train_teacher(
    run: StageRun, config: TeacherConfig, *, prepared: Artifact, teacher_plan: Artifact
) -> Summary:
    """Write `model.safetensors`, `model.json`, `curve.json`, `summary.json` and `lineage.json`.

    The first member of an ensemble is in the output's folder, the others are in `member-1/` and so
    on; `ensemble.safetensors` holds its recency prior, if it has one. A rerun after a kill
    continues with the member that was being trained.

    Args:
        run: Folders, device and progress.
        config: The networks.
        prepared: Tonight's data.
        teacher_plan: `plan.json`: full training, a warm start from a parent, or its reuse.

    Raises:
        LostParentError: The parent was deleted or damaged after the plan was written.
        TransferError: The teacher in `transfer_from` does not fit, is damaged, or has changed since
            the plan was written.
    """
    plan = TeacherPlan.load(teacher_plan)
    if plan.parent is None and plan.transferred_from != transfer_source(config):
        raise TransferError(_changed_source(run, config, teacher_plan))
    data = Prepared(prepared)
    parent = None if plan.parent is None else _parent(run, plan.parent, teacher_plan)
    members = config.members()
    if is_ensemble := len(members) > 1:  # which gets its prior as a whole
        members = [one.model_copy(update={"recency_prior": False}) for one in members]
    summaries: list[NetworkSummary] = []
    for number, member in enumerate(members):
        member_run = _member_run(run, number, len(members))
        if (summary := finished_network(member_run.out)) is not None:
            summaries.append(summary)
        elif parent is None:
            model = _initial(member, data, config.transfer_from, number)
            summaries.append(train_without_teacher(member_run, member, data, model=model))
        elif plan.mode == "reuse" or plan.since is None:
            summaries.append(_reuse(member_run, member, data, member_folder(parent, number)))
        else:
            folder = member_folder(parent, number)
            summaries.append(
                _warm_start(member_run, member, data, folder, config.retraining, plan.since)
            )
    _lineage(config, data, plan, parent).save(run.out)
    summary = (
        _ensemble_summary(run, config, data, summaries)
        if is_ensemble
        else summaries[0].model_dump()
    )
    return {"mode": plan.mode, **summary}


def _initial(
    network: NetworkConfig, data: Prepared, source: Path | None, number: int
) -> Recommender:
    """A member before full training, with initial weights or with weights from other data."""
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


def _changed_source(run: StageRun, config: TeacherConfig, teacher_plan: Artifact) -> str:
    return (
        f"teacher.transfer_from: the weights in {config.transfer_from} are others than those that "
        f"tonight's plan names. Restore them, or delete {teacher_plan.folder}, {run.out} and "
        f"{run.scratch} and run the night again: it makes a new plan and trains in full."
    )


def _warm_start(
    run: StageRun,
    network: NetworkConfig,
    data: Prepared,
    parent: Path,
    policy: RetrainingPolicy,
    since: int,
) -> NetworkSummary:
    """Continue the parent's training with the events after `since`, in microseconds since 1970."""
    model = build_network(data, network)
    model.warm_start_from(load_model(parent))
    rate = network.training.learning_rate * policy.warm_learning_rate_share
    changes = {"epochs": policy.warm_epochs, "learning_rate": rate, "validate_every": 1}
    training = network.training.model_copy(update=changes)
    recent = Recent(since, policy.replay_share)
    warm = network.model_copy(update={"training": training})
    return train_without_teacher(run, warm, data, model=model, recent=recent)


def _reuse(run: StageRun, network: NetworkConfig, data: Prepared, parent: Path) -> NetworkSummary:
    """Save the parent's weights over tonight's items, with tonight's prior, without training."""
    model = build_network(data, network)
    model.warm_start_from(load_model(parent))
    validate = data.validator(network.training.validation_cases)
    prior = fit_recency_prior(run, model.eval(), data, validate) if network.recency_prior else None
    save_model(run.out, model)
    save_curve(run.out, [])
    summary = NetworkSummary(
        parameters=n_parameters(model),
        epochs=0,
        best_epoch=0,
        validation_ndcg_at_10=validate(model),
        recency_prior=prior,
    )
    summary.save(run.out)
    return summary


def _parent(run: StageRun, key: str, teacher_plan: Artifact) -> Path:
    folder = run.out.parent / key
    if not is_finished(folder):
        msg = (
            f"Tonight's plan starts from the teacher {key}, which is missing or damaged in "
            f"{folder.parent}. Delete {teacher_plan.folder} and run the night again: it makes a "
            "new plan."
        )
        raise LostParentError(msg)
    return folder


def _member_run(run: StageRun, number: int, n_parts: int) -> StageRun:
    """The run of one of several networks: its own folders and its part of the progress."""
    out = member_folder(run.out, number)
    out.mkdir(exist_ok=True)
    label = f"network {number + 1} of {n_parts}"
    progress = part(run.progress, number, n_parts, label)
    return replace(run, out=out, scratch=run.scratch / f"member-{number}", progress=progress)


def _lineage(
    config: TeacherConfig, data: Prepared, plan: TeacherPlan, parent: Path | None
) -> Lineage:
    """What later nights have to know to start from this teacher."""
    through = data.split.trained_through
    before = None if parent is None else Lineage.load(parent)
    return Lineage(
        mode=plan.mode,
        parent=None if parent is None else parent.name,
        trained_through=before.trained_through if before and plan.mode == "reuse" else through,
        full_trained_through=before.full_trained_through if before else through,
        transferred_from=(before or plan).transferred_from,
        networks=networks_digest(config, data),
        n_items=data.split.n_items,
        item_index_sha256=data.split.item_index_sha256,
    )


def _ensemble_summary(
    run: StageRun, config: TeacherConfig, data: Prepared, members: Sequence[NetworkSummary]
) -> Summary:
    """Fit and save the ensemble's prior."""
    ensemble = Ensemble([load_model(folder) for folder in member_folders(run.out)]).eval()
    validate = data.validator(config.training.validation_cases)
    prior = fit_recency_prior(run, ensemble, data, validate) if config.recency_prior else None
    save_ensemble_bias(run.out, ensemble)
    return {
        "parameters": sum(member.parameters for member in members),
        "epochs": sum(member.epochs for member in members),
        "members": [member.validation_ndcg_at_10 for member in members],
        "validation_ndcg_at_10": validate(ensemble),
        "recency_prior": None if prior is None else prior.model_dump(),
    }
