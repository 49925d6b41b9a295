"""Retention: deletes old events, old versions of the lake and old stage outputs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from pydantic import Field

from recsys_core.artifacts import discard
from recsys_core.data.lake.retention import (
    count_events_before,
    delete_events_before,
    vacuum,
    vacuumable_files,
)
from recsys_core.data.lake.tables import Lake
from recsys_core.settings import Settings
from recsys_core.units import SECONDS_PER_DAY, format_bytes
from tasks.engine.outputs import bytes_of, outputs, remains


class RetentionConfig(Settings):
    """How long a workspace keeps data; applied at the end of every night."""

    events_days: int | None = Field(
        default=None,
        ge=1,
        description="Days of interactions that the lake keeps; empty: all. Their files are "
        "deleted from the disk versions_days later.",
    )
    versions_days: int = Field(
        default=7, ge=0, description="Days for which old versions of the lake can still be read."
    )
    stages_days: int = Field(
        default=14,
        ge=1,
        description="Days that stage outputs are kept; those of the newest night are always kept.",
    )


@dataclass(frozen=True)
class RetentionPlan:
    """The data that retention deletes or, in a dry run, would delete.

    Attributes:
        expired_events: Number of interactions past the retention period; they leave the lake's
            newest version.
        stages: Folders of stage outputs, and of unfinished stages.
        stage_bytes: Size of the folders.
        lake_files: Data files of old versions.
        lake_bytes: Size of the data files.
    """

    expired_events: int
    stages: tuple[Path, ...]
    stage_bytes: int
    lake_files: tuple[Path, ...]
    lake_bytes: int

    def in_words(self) -> str:
        """The plan as one line of text."""
        return (
            f"{self.expired_events:,} interactions past the retention period, "
            f"{len(self.stages)} stage outputs ({format_bytes(self.stage_bytes)}), "
            f"{len(self.lake_files)} old files of the lake ({format_bytes(self.lake_bytes)})"
        )


def planned_retention(workspace: Path, config: RetentionConfig, *, today: date) -> RetentionPlan:
    """The plan that `apply_retention` would carry out now; nothing is changed."""
    stages = tuple(_old_stages(workspace, config.stages_days))
    lake = workspace / "lake"
    files = tuple(vacuumable_files(lake, config.versions_days))
    cutoff = _cutoff(config, today)
    return RetentionPlan(
        expired_events=count_events_before(Lake(lake), cutoff) if cutoff and lake.exists() else 0,
        stages=stages,
        stage_bytes=sum(bytes_of(folder) for folder in stages),
        lake_files=files,
        lake_bytes=sum(path.stat().st_size for path in files),
    )


def apply_retention(workspace: Path, config: RetentionConfig, *, today: date) -> RetentionPlan:
    """Delete what is older than the policy keeps. No night may run meanwhile.

    Args:
        workspace: Folder of everything that nights write.
        config: The policy.
        today: Date from which the days of interactions count back.

    Returns:
        The plan that was carried out.
    """
    cutoff, lake = _cutoff(config, today), workspace / "lake"
    n_expired = delete_events_before(Lake(lake), cutoff) if cutoff and lake.exists() else 0
    plan = planned_retention(workspace, config, today=today)
    for folder in plan.stages:
        discard(folder)
    vacuum(lake, config.versions_days)
    return replace(plan, expired_events=n_expired)


@task(cache_policy=NO_CACHE, persist_result=False)
def retention(workspace: Path, config: RetentionConfig, *, run_date: date) -> None:
    """Apply the retention policy after a night."""
    plan = apply_retention(workspace, config, today=run_date)
    get_run_logger().info("Deleted by the retention policy: %s", plan.in_words())


def _cutoff(config: RetentionConfig, today: date) -> date | None:
    return None if config.events_days is None else today - timedelta(days=config.events_days)


def _old_stages(workspace: Path, days: int) -> Iterator[Path]:
    """Old outputs that the newest finished night does not need; old remains of killed stages."""
    limit = time.time() - days * SECONDS_PER_DAY
    finished = outputs(workspace)
    inputs = {output.folder.name: output.inputs for output in finished}
    reports = [output for output in finished if output.folder.parent.name == "report"]
    newest = max(reports, key=lambda output: output.finished_at, default=None)
    needed: set[str] = set()
    waiting = [newest.folder.name] if newest else []
    while waiting:
        key = waiting.pop()
        if key not in needed:
            needed.add(key)
            waiting += inputs.get(key, ())
    for output in finished:
        if output.finished_at < limit and output.folder.name not in needed:
            yield output.folder
    for folder in remains(workspace):
        if folder.stat().st_mtime < limit:
            yield folder
