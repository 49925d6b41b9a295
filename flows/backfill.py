"""The backfill flow: reads the source files of some dates again and validates their rows."""

from collections.abc import Collection
from dataclasses import replace
from datetime import date
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from flows.config import NightlyConfig
from flows.nightly import claim, fingerprint_sources, open_night, scheduled_date
from flows.pipeline import PIPELINE
from flows.services.lock import workspace_lock
from recsys_core.data.lake.ingest_log import read_ingest_log
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS
from recsys_core.data.sources.config import SourceError
from tasks.engine.night import ReadAgain
from tasks.stages.ingest import ingest
from tasks.stages.validate import validate


@flow(name="backfill", persist_result=False)
def backfill(
    first_date: date,
    last_date: date,
    config: NightlyConfig = NightlyConfig(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Read again the files that brought events of some dates, read new files, validate the rows.

    The new rows of a file replace all its earlier rows in one commit, those of other dates too.
    Nothing is trained; the next night uses the rows.

    Args:
        first_date: The first date of events, UTC.
        last_date: The last date.
        config: All settings.

    Returns:
        The summary of the ingest stage.

    Raises:
        SourceError: There is no file, or one can't be read.
        WorkspaceOwnedError: The workspace belongs to another name or source.
    """
    if last_date < first_date:
        msg = f"The last date, {last_date}, comes before the first, {first_date}."
        raise ValueError(msg)
    with workspace_lock(config.workspace):
        claim(config)
        night = open_night(config, scheduled_date(config), pin=False)
        sources = fingerprint_sources(night, config)
        lake = Lake(night.lake)
        again = files_of(lake, first_date, last_date, sources)
        get_run_logger().info("Reading again: %s", ", ".join(again) or "new files only")
        read_again = ReadAgain(files=tuple(again), lake_version=lake.version(INTERACTIONS.name))
        night = replace(night, sources=sources, read_again=read_again)
        return PIPELINE.run(night, config, through=validate)[ingest].summary


def files_of(
    lake: Lake, first_date: date, last_date: date, available: Collection[str]
) -> list[str]:
    """Names of the files that brought events of these dates, sorted.

    Args:
        lake: The lake, whose ingest log lists the files.
        first_date: The first date.
        last_date: The last date.
        available: Names of the source files that exist now.

    Raises:
        SourceError: A file that brought such events is gone, so its rows can't be replaced.
    """
    wanted = [
        name
        for name, file in read_ingest_log(lake).items()
        if file.is_interactions and any(first_date <= day <= last_date for day in file.dates)
    ]
    if gone := [name for name in wanted if name not in available]:
        msg = (
            f"{gone[0]} brought events of these dates and no longer exists. Put it back, or "
            "choose other dates; its rows stay as they are."
        )
        raise SourceError(msg)
    return sorted(wanted)
