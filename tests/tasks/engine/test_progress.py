"""Progress that can be watched in the Prefect UI and in the log."""

import logging

import pytest
from prefect import task
from prefect.artifacts import Artifact

from tasks.engine.progress import StageProgress

pytestmark = pytest.mark.usefixtures("prefect_server")


def _artifact(key: str) -> Artifact | None:
    return Artifact.get(key=key)  # pyright: ignore[reportReturnType]


def test_a_long_stage_has_an_artifact_that_ends_at_all(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[float] = []
    logger = logging.getLogger("progress")

    @task
    def work() -> None:
        with StageProgress("write_labels", logger, log_seconds=0, artifact_seconds=0) as progress:
            for fraction in (0.25, 0.5):
                progress(fraction, "bucket")
                artifact = _artifact("progress-write-labels")
                assert artifact is not None
                seen.append(float(artifact.data))  # pyright: ignore[reportArgumentType]

    with caplog.at_level(logging.INFO, "progress"):
        work()
    assert seen == [25, 50]
    artifact = _artifact("progress-write-labels")
    assert artifact is not None
    assert float(artifact.data) == 100  # pyright: ignore[reportArgumentType]
    assert [record.getMessage() for record in caplog.records if record.name == "progress"] == [
        "write_labels: 25 %, bucket",
        "write_labels: 50 %, bucket",
    ]


def test_a_short_stage_has_none() -> None:
    @task
    def work() -> None:
        with StageProgress("short", logging.getLogger("progress")) as progress:
            progress(0.5, "half")

    work()
    assert _artifact("progress-short") is None


def test_a_failed_stage_does_not_end_at_all() -> None:
    @task
    def work() -> None:
        with StageProgress("broken", logging.getLogger("progress"), artifact_seconds=0) as progress:
            progress(0.5, "half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    artifact = _artifact("progress-broken")
    assert artifact is not None
    assert float(artifact.data) == 50  # pyright: ignore[reportArgumentType]
