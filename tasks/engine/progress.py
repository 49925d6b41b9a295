"""Progress of long stages: a bar on a terminal, log lines, an artifact in the Prefect UI."""

import sys
import time
from logging import Logger, LoggerAdapter
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

AnyLogger = Logger | LoggerAdapter[Any]


class StageProgress:
    """A `recsys_core.settings.Progress` that shows a bar, log lines and a Prefect artifact.

    Args:
        stage: Name shown beside the bar.
        logger: Logger for a line every `log_seconds`.
        log_seconds: At most one log line in this time.
        artifact_seconds: At most one artifact update in this time, the first one included, so
            that short stages make none.
    """

    def __init__(
        self, stage: str, logger: AnyLogger, *, log_seconds: float = 15, artifact_seconds: float = 3
    ) -> None:
        self._stage = stage
        self._logger = logger
        self._log_seconds = log_seconds
        self._artifact_seconds = artifact_seconds
        self._logged_at = self._sent_at = time.monotonic()
        self._artifact: UUID | None = None
        self._bar = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}"),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._row = self._bar.add_task(stage, total=1.0, message="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if kind is None and self._artifact is not None:
            self._send(1.0)

    def __call__(self, fraction: float, message: str) -> None:
        """Show that `fraction` (0 to 1) of the stage is done."""
        now = time.monotonic()
        self._bar.update(self._row, completed=fraction, message=message)
        if now - self._logged_at >= self._log_seconds:
            self._logged_at = now
            self._logger.info("%s: %.0f %%, %s", self._stage, 100 * fraction, message)
        if now - self._sent_at >= self._artifact_seconds:
            self._sent_at = now
            self._send(fraction)

    def _send(self, fraction: float) -> None:
        if self._artifact is None:
            self._artifact = create_progress_artifact(  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
                progress=100 * fraction,
                key=f"progress-{self._stage.replace('_', '-')}",
                description=f"Progress of {self._stage}",
            )
        else:
            update_progress_artifact(artifact_id=self._artifact, progress=100 * fraction)
