"""Plan the teacher: full training, a warm start, or reuse of an earlier teacher."""

from recsys_core.artifacts import Artifact
from recsys_core.training.batching import Recent
from recsys_core.training.retraining import decide, popularity_drift
from tasks.contracts.teacher import TeacherPlan
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.network import training_set_of
from tasks.training.prepared import Prepared
from tasks.training.teacher import TeacherConfig, earlier_teachers, networks_digest, transfer_source


@stage(output="teacher_plan", version=2, libraries=("numpy", "polars", "scipy", "torch"))
def plan_teacher(run: StageRun, config: TeacherConfig, *, prepared: Artifact) -> Summary:
    """Write `plan.json`: the mode, the parent, the last teacher and the reasons.

    The parent is the compatible teacher with the newest `trained_through`. A teacher is compatible
    if it has the same networks, its item index is a prefix of tonight's, and all its training
    events precede the end of tonight's. The written plan does not change, whatever other nights
    train in the meantime.

    Raises:
        TransferError: `transfer_from` holds no teacher.
    """
    data = Prepared(prepared)
    earlier = earlier_teachers(run.out.parent.with_name("train_teacher"), data)
    networks = networks_digest(config, data)
    parent = next((teacher for teacher in earlier if teacher.has_networks(networks)), None)
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
    plan = TeacherPlan(
        mode=decision.mode,
        parent=decision.parent,
        reasons=decision.reasons,
        since=since if decision.parent else None,
        last=earlier[0].key if earlier else None,
        drift=drift,
        full_events=full_events,
        warm_events=warm_events,
        transferred_from=None if decision.parent else transfer_source(config),
    )
    plan.save(run.out)
    return plan.model_dump(mode="json")


def _epoch_events(data: Prepared, teacher: TeacherConfig, recent: Recent | None) -> int:
    """Number of training events per epoch, summed over the members."""
    return sum(
        training_set_of(data, member.model.max_length, member.training, recent=recent).n_events
        for member in teacher.members()
    )
