"""The stages before training, run by themselves for the benchmarks that train."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from prefect import flow

from flows.config import NightlyConfig
from flows.nightly import open_night
from recsys_core.artifacts import Artifact
from recsys_core.synthetic.world import write_world
from tasks.stages.ingest import ingest
from tasks.stages.plan_teacher import plan_teacher
from tasks.stages.prepare import prepare
from tasks.stages.train_teacher import train_teacher
from tasks.stages.validate import validate

RUN_DATE = date(2000, 1, 1)
"""Leave-one-out data know no time; a fixed date lets every run find the last one's output."""


def synthetic_night(workspace: Path, world: Mapping[str, Any] | None = None) -> NightlyConfig:
    """A night on a synthetic world, whose month of events is written to the workspace."""
    synthetic = {"folder": workspace / "world", "world": world or {}}
    config = NightlyConfig.model_validate({"workspace": workspace, "synthetic": synthetic})
    december = RUN_DATE.replace(year=RUN_DATE.year - 1, month=12)
    through = RUN_DATE - timedelta(days=1)
    write_world(
        config.synthetic.folder, config.synthetic.world, first_day=december, through=through
    )
    return config


def prepared_artifact(config: NightlyConfig) -> Artifact:
    """The prepared data of a configuration, made where they are missing."""
    return made_by(config, teacher=False)[0]


def trained_teacher(config: NightlyConfig) -> tuple[Artifact, Artifact]:
    """The prepared data and the teacher of a configuration, made where they are missing."""
    prepared, _, teacher = made_by(config, teacher=True)
    return prepared, teacher


def made_by(config: NightlyConfig, *, teacher: bool, day: date = RUN_DATE) -> list[Artifact]:
    """The outputs of the prepare stage and, if asked for, of the teacher's two stages."""
    made: list[Artifact] = []

    @flow(name="benchmark", persist_result=False)
    def stages() -> None:
        run_date = day.isoformat()
        night = open_night(config, day)
        ingested = ingest(night, config.events, run_date=run_date, sources=night.sources)
        validated = validate(night, config.validation, ingested=ingested)
        prepared = prepare(
            night,
            config.prepare,
            run_date=run_date,
            timezone=config.events.timezone,
            ingested=ingested,
            validated=validated,
        )
        made.append(prepared)
        if teacher:
            planned = plan_teacher(night, config.teacher, prepared=prepared)
            made.append(planned)
            made.append(train_teacher(night, config.teacher, prepared=prepared, planned=planned))

    stages()
    return made
