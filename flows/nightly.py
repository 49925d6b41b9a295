"""The nightly flow: from source files to a registered student and a report."""

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows.config import NightlyConfig
from flows.pipeline import PIPELINE, Outcome
from flows.services.lock import workspace_lock
from recsys_core.data.lake.ingest_log import known_files
from recsys_core.data.lake.tables import Lake
from recsys_core.data.soft_labels.description import SoftLabelError, store_sha256
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.chores.await_sources import await_sources
from tasks.chores.retention import retention
from tasks.chores.summary import summarise_night
from tasks.chores.synthesise import synthesise
from tasks.engine.night import Night, NightManifest, claim_workspace
from tasks.registry.store import champion_version
from tasks.stages.evaluate import evaluate
from tasks.stages.gate import gate
from tasks.stages.prepare import prepare
from tasks.stages.register import register
from tasks.stages.report import report
from tasks.stages.validate import validate


def run_name() -> str:
    """The name of a run is the date of its night."""
    given = flow_run.parameters
    config = NightlyConfig.model_validate(given.get("config") or {})
    return str(given.get("run_date") or config.run_date or scheduled_date(config))


@flow(name="nightly", flow_run_name=run_name, persist_result=False)
def nightly(config: NightlyConfig = NightlyConfig(), run_date: date | None = None) -> Path:  # noqa: B008 - frozen
    """Run one night; finished stages are skipped.

    Args:
        config: All settings. The defaults make a night on a synthetic world.
        run_date: The night's date; only events before it are used. Empty: the date in the
            configuration, or else that of the scheduled start in the time zone of the source.

    Raises:
        SoftLabelError: There are no labels in `soft_labels.store`. The histories that they belong
            to are prepared, and nothing is trained.
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
        _check_label_store(night, config)
        outcome = PIPELINE.run(night, config)
        summary = summarise_night(
            night,
            list(outcome),
            evaluated=outcome[evaluate],
            registered=outcome[register],
            verdict=outcome[gate],
            report=outcome[report],
        )
        retention(config.workspace, config.retention, run_date=day)
        return summary


def plan(config: NightlyConfig, run_date: date) -> Outcome:
    """Which stages a night would run and why, and where their outputs are or would be."""
    return PIPELINE.plan(open_night(config, run_date, pin=False), config)


def open_night(config: NightlyConfig, run_date: date, *, pin: bool = True) -> Night:
    """Pin the champion and the sources of a night, or read those that it pinned before.

    The champion is that of the first start. So are the sources, once they have passed validation;
    until then the next attempt reads a corrected file. A store of soft labels is never pinned:
    whoever replaces it wants the new labels.

    Args:
        config: All settings.
        run_date: The night's date.
        pin: Write the night manifest.
    """
    resolved = config.model_dump(mode="json")
    if pin:
        claim(config)
    pinned = NightManifest.pinned(config.workspace, run_date, resolved)
    night = Night(
        workspace=config.workspace,
        name=config.name,
        run_date=run_date,
        config=resolved,
        champion=pinned.champion
        if pinned
        else champion_version(config.workspace, config.registry, config.name),
        sources=pinned.sources if pinned else {},
        device=_device(config),
        label_store=store_sha256(store) if (store := config.soft_labels.store) else None,
    )
    if not pinned or not _validated(night, config):
        sources = {} if _lacks_synthetic_world(config) else fingerprint_sources(night, config)
        night = replace(night, sources=sources)
    if pin:
        NightManifest.pin(night)
    return night


def claim(config: NightlyConfig) -> None:
    """Record that the workspace belongs to the configured name and source, or check it."""
    source = config.events.model_dump(mode="json", include={"format", "interactions", "items"})
    claim_workspace(config.workspace, name=config.name, source=source)


def scheduled_date(config: NightlyConfig) -> date:
    """The date of the run's scheduled start in the source's time zone."""
    start: datetime = flow_run.scheduled_start_time
    return start.astimezone(ZoneInfo(config.events.timezone)).date()


def fingerprint_sources(night: Night, config: NightlyConfig) -> dict[str, str]:
    """The current source files and the fingerprint of each."""
    known = known_files(Lake(night.lake)) if night.lake.exists() else {}
    return source_fingerprint(config.events, known)


def _check_label_store(night: Night, config: NightlyConfig) -> None:
    """Without labels, prepare the histories that they belong to, and stop before any training."""
    store = config.soft_labels.store
    if store is None or night.label_store is not None:
        return
    histories = PIPELINE.run(night, config, through=prepare)[prepare].file("histories").resolve()
    msg = (
        f"soft_labels.store: {store.resolve()} holds no soft labels. The histories to label are in "
        f"{histories}: write labels, import them into {store.resolve()} with `recdistill "
        "soft-labels import`, and run the night again. It resumes here."
    )
    raise SoftLabelError(msg)


def _lacks_synthetic_world(config: NightlyConfig) -> bool:
    """Whether the synthetic world is the source and has not been written yet."""
    return config.source is None and not (config.synthetic.folder / "world.json").exists()


def _validated(night: Night, config: NightlyConfig) -> bool:
    """Whether the pinned sources have passed validation."""
    return not any(decision.runs for decision in PIPELINE.plan(night, config, through=validate))


def _device(config: NightlyConfig) -> str:
    if config.device != "auto":
        return config.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
