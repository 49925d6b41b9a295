"""Decide what the night spends on its teacher, and say why."""

from recsys_core.artifacts import Artifact, write_json
from recsys_core.training.batching import Recent
from recsys_core.training.retraining import decide, popularity_drift
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import training_set_of
from tasks.training.prepared import Prepared
from tasks.training.teacher import TeacherConfig, earlier_teachers, networks_digest, transfer_source


@stage(output="teacher_plan", version=1, libraries=("numpy", "polars", "scipy", "torch"))
def plan_teacher(run: StageRun, config: TeacherConfig, *, prepared: Artifact) -> Summary:
    """Write `plan.json`: the mode, the parent, the last teacher, the reasons.

    The parent is the teacher with the newest `trained_through` of those that fit: of the same
    networks, over a prefix of tonight's item index, trained on nothing after tonight's training
    events. Once written the plan stays, whatever other nights train in the meantime.

    Raises:
        TransferError: There is no teacher in `transfer_from`.
    """
    data = Prepared(prepared)
    earlier = earlier_teachers(run.out.parent.with_name("train_teacher"), data)
    networks = networks_digest(config, data)
    parent = next((one for one in earlier if one.has_networks(networks)), None)
    since, drift, warm_events = None, 0.0, 0
    if parent is not None and parent.trained_through is not None:
        since = round(parent.trained_through.timestamp() * 1_000_000)
        drift = popularity_drift(data.buckets, n_items=len(data.items), since=since)
        recent = Recent(since, config.retraining.replay_share)
        warm_events = config.retraining.warm_epochs * _epoch_events(data, config, recent)
    full_events = config.training.epochs * _epoch_events(data, config, None)
    decision = decide(
        config.retraining,
        parent and parent.as_parent(data),
        drift=drift,
        full_events=full_events,
        warm_events=warm_events,
    )
    run.logger.info("Teacher: %s. %s", decision.mode, " ".join(decision.reasons))
    plan = {
        **decision._asdict(),
        "since": since if decision.parent else None,
        "last": earlier[0].key if earlier else None,
        "drift": drift,
        "full_events": full_events,
        "warm_events": warm_events,
        "transferred_from": None if decision.parent else transfer_source(config),
    }
    write_json(run.out / "plan.json", plan)
    return plan


def _epoch_events(data: Prepared, teacher: TeacherConfig, recent: Recent | None) -> int:
    """Training events of an epoch of all members."""
    return sum(
        training_set_of(data, member.model.max_length, member.training, recent=recent).n_events
        for member in teacher.members()
    )
