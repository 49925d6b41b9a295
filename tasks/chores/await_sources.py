"""Wait until whoever exports the events says that the export is whole."""

import time
from collections.abc import Callable
from datetime import date, timedelta

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from recsys_core.data.sources.config import SourceConfig
from recsys_core.data.sources.discovery import exists
from tasks.engine.progress import StageProgress


class SourceNotReadyError(RuntimeError):
    """The marker did not appear in time; the message says which and what to do."""


@task(cache_policy=NO_CACHE, persist_result=False)
def await_sources(config: SourceConfig, *, run_date: date) -> None:
    """Return once the marker of `config.ready` is there; at once if none is configured.

    Args:
        config: The sources.
        run_date: The night's date.

    Raises:
        SourceNotReadyError: It did not appear before the deadline.
        SourceError: S3 does not answer or refuses.
    """
    place = marker(config, run_date)
    if place is None:
        return
    logger = get_run_logger()
    logger.info("Waiting for %s", place)
    with StageProgress("await_sources", logger) as progress:
        wait_until(
            lambda: exists(place, config),
            place,
            timeout_seconds=60 * config.ready.timeout_minutes,
            poll_seconds=config.ready.poll_seconds,
            progress=progress,
        )


def marker(config: SourceConfig, run_date: date) -> str | None:
    """Path or URI of the file to wait for; None where there is nothing to wait for."""
    if config.ready.marker is None:
        return None
    day = run_date - timedelta(days=1)
    folder = str(config.interactions).rstrip("/")
    return f"{folder}/{config.ready.marker.replace('{date}', day.isoformat())}"


def wait_until(
    ready: Callable[[], bool],
    place: str,
    *,
    timeout_seconds: float,
    poll_seconds: float,
    progress: Callable[[float, str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask until it is so, at least once.

    Args:
        ready: What is asked.
        place: What it asks for, to be shown.
        timeout_seconds: Deadline from now.
        poll_seconds: Time between two questions.
        progress: Told after each question; the fraction is that of the deadline.
        clock: Seconds, never going back.
        sleep: Waits for some seconds.

    Raises:
        SourceNotReadyError: It was not so before the deadline.
    """
    began = clock()
    while not ready():
        waited = clock() - began
        if waited >= timeout_seconds:
            msg = (
                f"{place} did not appear in {waited / 60:.0f} minutes, so the export is not whole. "
                "The night ends here and nothing was changed. See to the export and run the night "
                "again, or change source.ready."
            )
            raise SourceNotReadyError(msg)
        progress(waited / timeout_seconds, f"waiting for {place}")
        sleep(min(poll_seconds, timeout_seconds - waited))
