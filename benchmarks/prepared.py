"""The first stages of a night, for the benchmarks that train."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from prefect import flow

from flows.config import NightlyConfig
from flows.nightly import open_night
from flows.pipeline import PIPELINE, Outcome
from recsys_core.artifacts import Artifact
from recsys_core.synthetic.world import write_world
from tasks.engine.stage import Stage
from tasks.stages.prepare import prepare
from tasks.stages.train_teacher import train_teacher

RUN_DATE = date(2000, 1, 1)
"""Leave-one-out data has no real time; with a fixed date every run reuses earlier outputs."""


def synthetic_night(workspace: Path, world: Mapping[str, Any] | None = None) -> NightlyConfig:
    """The configuration of a night on a synthetic world; writes a month of events."""
    synthetic = {"folder": workspace / "world", "world": world or {}}
    config = NightlyConfig.model_validate({"workspace": workspace, "synthetic": synthetic})
    december = RUN_DATE.replace(year=RUN_DATE.year - 1, month=12)
    through = RUN_DATE - timedelta(days=1)
    write_world(
        config.synthetic.folder, config.synthetic.world, first_day=december, through=through
    )
    return config


def prepared_artifact(config: NightlyConfig) -> Artifact:
    """The prepared data of a configuration; runs the stages whose output is missing."""
    return run_through(prepare, config)[prepare]


def trained_teacher(config: NightlyConfig) -> tuple[Artifact, Artifact]:
    """The prepared data and the teacher of a configuration; runs missing stages."""
    outcome = run_through(train_teacher, config)
    return outcome[prepare], outcome[train_teacher]


def run_through(stage: Stage, config: NightlyConfig, *, day: date = RUN_DATE) -> Outcome:
    """Run a night up to and including a stage."""

    @flow(name="benchmark", persist_result=False)
    def stages() -> Outcome:
        return PIPELINE.run(open_night(config, day), config, through=stage)

    return stages()
