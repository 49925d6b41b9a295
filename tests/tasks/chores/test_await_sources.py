"""A night waits for the marker of a whole export, and not for ever."""

from datetime import date
from pathlib import Path

import pytest

from recsys_core.data.sources.config import SourceConfig
from recsys_core.settings import silent
from tasks.chores.await_sources import SourceNotReadyError, await_sources, marker, wait_until

RUN_DATE = date(2026, 3, 1)


def _config(folder: Path, **ready: object) -> SourceConfig:
    return SourceConfig.model_validate({"interactions": folder, "ready": ready})


class _Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def _wait(answers: list[bool], clock: _Clock, timeout_seconds: float) -> None:
    left = iter(answers)
    wait_until(
        lambda: next(left),
        "export/_SUCCESS",
        timeout_seconds=timeout_seconds,
        poll_seconds=30,
        progress=silent,
        clock=clock,
        sleep=clock.sleep,
    )


def test_the_marker_is_that_of_the_day_before() -> None:
    config = _config(Path("/exports"), marker="{date}/_SUCCESS")
    assert marker(config, RUN_DATE) == "/exports/2026-02-28/_SUCCESS"
    assert marker(_config(Path("/exports")), RUN_DATE) is None


def test_it_asks_until_the_marker_is_there() -> None:
    clock = _Clock()
    _wait([False, False, True], clock, 3600)
    assert clock.naps == [30, 30]


def test_after_the_deadline_it_fails_with_a_sentence() -> None:
    clock = _Clock()
    with pytest.raises(
        SourceNotReadyError, match=r"export/_SUCCESS did not appear in 2 minutes, so"
    ):
        _wait([False] * 9, clock, 100)
    assert clock.naps == [30, 30, 30, 10]


def test_a_marker_that_is_there_lets_the_night_begin(tmp_path: Path, prefect_server: None) -> None:
    (tmp_path / "2026-02-28").mkdir()
    config = _config(tmp_path, marker="{date}/_SUCCESS", timeout_minutes=0)
    with pytest.raises(SourceNotReadyError):
        await_sources(config, run_date=RUN_DATE)
    (tmp_path / "2026-02-28" / "_SUCCESS").touch()
    await_sources(config, run_date=RUN_DATE)
    await_sources(_config(tmp_path), run_date=RUN_DATE)
