"""Waiting for the marker that says that the export of the events is complete."""

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
    """The marker did not appear in time."""


@task(cache_policy=NO_CACHE, persist_result=False)
def await_sources(config: SourceConfig, *, run_date: date) -> None:
    """Wait for the marker of `config.ready`; returns at once if none is configured.

    Args:
        config: Settings of the sources.
        run_date: The night's date.

    Raises:
        SourceNotReadyError: The marker did not appear before the deadline.
        SourceError: S3 does not answer or refuses access.
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
    """Path or URI of the marker; None if none is configured."""
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
    """Call `ready` until it returns true, at least once.

    Args:
        ready: The condition.
        place: Path or URI of the awaited file, for messages.
        timeout_seconds: Seconds to wait at most.
        poll_seconds: Seconds between two calls.
        progress: Called after each call; the fraction is the share of the timeout.
        clock: Seconds of a monotonic clock.
        sleep: Waits for some seconds.

    Raises:
        SourceNotReadyError: The condition did not hold before the timeout.
    """
    began = clock()
    while not ready():
        waited = clock() - began
        if waited >= timeout_seconds:
            msg = (
                f"{place} did not appear in {waited / 60:.0f} minutes, so the export is not "
                "complete. The night ends here; nothing was changed. Check the export and run the "
                "night again, or change source.ready."
            )
            raise SourceNotReadyError(msg)
        progress(waited / timeout_seconds, f"waiting for {place}")
        sleep(min(poll_seconds, timeout_seconds - waited))
