"""The nightly flow: from source files to a registered, judged and reported student."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows.config import NightlyConfig
from flows.services.lock import workspace_lock
from recsys_core.artifacts import Artifact
from recsys_core.data.lake.ingest_log import known_files
from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.chores.await_sources import await_sources
from tasks.chores.retention import retention
from tasks.chores.summary import summarise_night
from tasks.chores.synthesise import synthesise
from tasks.engine.night import Night, NightManifest, Plan, claim_workspace
from tasks.registry.store import champion_version
from tasks.stages.check_teacher import check_teacher
from tasks.stages.compress import compress
from tasks.stages.control import control
from tasks.stages.distill import distill
from tasks.stages.evaluate import evaluate
from tasks.stages.gate import gate
from tasks.stages.ingest import ingest
from tasks.stages.plan_teacher import plan_teacher
from tasks.stages.prepare import prepare
from tasks.stages.promote import promote
from tasks.stages.register import register
from tasks.stages.report import report
from tasks.stages.train_teacher import train_teacher
from tasks.stages.validate import validate
from tasks.stages.write_soft_labels import write_soft_labels

Artifacts = Mapping[str, Artifact]


def run_name() -> str:
    """A run is called by its night's date, whoever gave it."""
    given = flow_run.parameters
    config = NightlyConfig.model_validate(given.get("config") or {})
    return str(given.get("run_date") or config.run_date or scheduled_date(config))


@flow(name="nightly", flow_run_name=run_name, persist_result=False)
def nightly(config: NightlyConfig = NightlyConfig(), run_date: date | None = None) -> Path:  # noqa: B008 - frozen
    """Run one night; what is finished already is skipped.

    Args:
        config: All settings. The defaults make a night on a synthetic world.
        run_date: The night's date; only what happened before it exists. Empty: that of the
            configuration, or the date of the scheduled start in the time zone of the source.
    """
    day = run_date or config.run_date or scheduled_date(config)
    with workspace_lock(config.workspace):
        if config.source is None:
            synthesise(
                config.synthetic.folder,
                config.synthetic.world,
                days=config.synthetic.days,
                run_date=day,
            )
        await_sources(config.events, run_date=day)
        night = open_night(config, day)
        get_run_logger().info("Night of %s in %s", day, night.workspace.resolve())
        summary = summarise_night(night, stages(night, config))
        retention(config.workspace, config.retention, run_date=day)
        return summary


def stages(night: Night, config: NightlyConfig) -> Artifacts:
    """A night's stages in order; in a planning night nothing runs."""
    run_date = night.run_date.isoformat()
    made: dict[str, Artifact] = {}
    made["ingested"] = ingest(night, config.events, run_date=run_date, sources=night.sources)
    made["validated"] = validate(night, config.validation, ingested=made["ingested"])
    made["prepared"] = prepare(
        night,
        config.prepare,
        run_date=run_date,
        timezone=config.events.timezone,
        ingested=made["ingested"],
        validated=made["validated"],
    )
    data = {"prepared": made["prepared"]}
    made["planned"] = plan_teacher(night, config.teacher, **data)
    made["teacher"] = train_teacher(night, config.teacher, **data, planned=made["planned"])
    made["checked"] = check_teacher(
        night,
        config.teacher_check,
        registry=config.registry,
        run_date=run_date,
        **data,
        planned=made["planned"],
        teacher=made["teacher"],
    )
    made["soft_labels"] = write_soft_labels(
        night, config.soft_labels, **data, teacher=made["teacher"]
    )
    made["student"] = distill(
        night,
        config.distillation,
        student=config.student,
        **data,
        teacher=made["teacher"],
        soft_labels=made["soft_labels"],
    )
    made["control"] = control(night, config.student, **data)
    made["compressed"] = compress(
        night,
        config.compression,
        distillation=config.distillation,
        **data,
        student=made["student"],
        soft_labels=made["soft_labels"],
    )
    networks = {name: made[name] for name in ("teacher", "student", "control")}
    made["evaluated"] = evaluate(
        night,
        config.evaluation,
        registry=config.registry,
        champion=night.champion,
        **data,
        **networks,
        compressed=made["compressed"],
    )
    made["registered"] = register(
        night,
        config.registry,
        run_date=run_date,
        **networks,
        compressed=made["compressed"],
        evaluated=made["evaluated"],
    )
    made["gated"] = gate(
        night,
        config.gate,
        evaluated=made["evaluated"],
        champion_exists=night.champion is not None,
    )
    made["promoted"] = promote(
        night, config.registry, registered=made["registered"], gated=made["gated"]
    )
    made["report"] = report(night, run_date=run_date, **made)
    return made


def planned(config: NightlyConfig, run_date: date) -> tuple[list[Plan], Artifacts]:
    """What a night would run and why, and where its output is or would be; nothing runs."""
    night = replace(open_night(config, run_date, pin=False), planning=True, plans=[])
    made = stages(night, config)
    return night.plans, made


def open_night(config: NightlyConfig, run_date: date, *, pin: bool = True) -> Night:
    """Pin the world that this night sees, or see again what it saw when it began.

    The champion is that of the first start. The sources are too, once they have passed
    validation; until then a corrected file is taken up.

    Args:
        config: All settings.
        run_date: The night's date.
        pin: Write the night manifest.
    """
    resolved = config.model_dump(mode="json")
    if pin:
        claim(config)
    manifest = NightManifest.of(config.workspace, run_date, resolved)
    pinned = manifest.read()
    night = Night(
        workspace=config.workspace,
        name=config.name,
        run_date=run_date,
        config=resolved,
        champion=pinned["champion"]
        if pinned
        else champion_version(config.workspace, config.registry, config.name),
        sources=pinned["sources"] if pinned else {},
        device=_device(config),
    )
    if not pinned or not _validated(night, config):
        night.sources = (
            {} if _lacks_its_world(config) else source_fingerprint(config.events, known(night))
        )
    if pin:
        manifest.write(night)
    return night


def claim(config: NightlyConfig) -> None:
    """Make the workspace that of the configured name and source; see `claim_workspace`."""
    source = config.events.model_dump(mode="json", include={"format", "interactions", "items"})
    claim_workspace(config.workspace, name=config.name, source=source)


def scheduled_date(config: NightlyConfig) -> date:
    """The date of the run's scheduled start in the source's time zone."""
    start: datetime = flow_run.scheduled_start_time
    return start.astimezone(ZoneInfo(config.events.timezone)).date()


def known(night: Night) -> dict[str, tuple[str, str]]:
    """Stamp and fingerprint of the files that earlier nights have read."""
    return known_files(Lake(night.lake)) if night.lake.exists() else {}


def _lacks_its_world(config: NightlyConfig) -> bool:
    """Whether the synthetic world is yet to be made, as before the first night."""
    return config.source is None and not (config.synthetic.folder / "world.json").exists()


def _validated(night: Night, config: NightlyConfig) -> bool:
    """Whether the pinned sources have passed validation."""
    trial = replace(night, planning=True, plans=[])
    ingested = ingest(
        trial, config.events, run_date=night.run_date.isoformat(), sources=night.sources
    )
    validate(trial, config.validation, ingested=ingested)
    return not any(step.runs for step in trial.plans)


def _device(config: NightlyConfig) -> str:
    if config.device != "auto":
        return config.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
