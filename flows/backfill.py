"""The backfill flow: the files of some dates once more, from the source to a validated lake."""

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
    """Read the files again that brought events of some dates, and those not read yet; validate.

    What a file brought before is replaced by what it brings now, in one commit; its rows of other
    dates too. Nothing is trained: the next night takes it up.

    Args:
        first_date: The first date, by the clock of the source's time zone.
        last_date: The last one.
        config: All settings.

    Returns:
        What the ingest stage says of it.

    Raises:
        SourceError: No file is there, or one can't be read.
        WorkspaceOwnedError: The workspace is that of other data.
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
        get_run_logger().info("Reading again: %s", ", ".join(again) or "only what is new")
        read_again = ReadAgain(files=tuple(again), lake_version=lake.version(INTERACTIONS.name))
        night = replace(night, sources=sources, read_again=read_again)
        return PIPELINE.run(night, config, through=validate)[ingest].summary


def files_of(lake: Lake, first_date: date, last_date: date, there: Collection[str]) -> list[str]:
    """Names of the files that brought events of these dates, sorted.

    Args:
        lake: Whose records.
        first_date: The first date.
        last_date: The last one.
        there: Names of the files that are there.

    Raises:
        SourceError: A file that brought some is gone, so that its rows could not be replaced.
    """
    wanted = [
        name
        for name, record in read_ingest_log(lake).items()
        if record.is_interactions and any(first_date <= day <= last_date for day in record.dates)
    ]
    if gone := [name for name in wanted if name not in there]:
        msg = (
            f"{gone[0]} brought events of these dates and is not there any more. Put it back, or "
            "choose other dates: its rows stay as they are."
        )
        raise SourceError(msg)
    return sorted(wanted)
