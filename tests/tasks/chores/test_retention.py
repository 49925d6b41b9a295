"""The retention policy: what is past its time goes, and nothing that a night still needs."""

import os
import time
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys_core.artifacts import Artifact, is_finished, publish
from recsys_core.data.lake.commits import Change
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS, QUARANTINE
from tasks.chores.retention import RetentionConfig, apply_retention, planned_retention

TODAY = date(2026, 1, 31)
DAY = 86_400


def _output(workspace: Path, stage: str, key: str, *, age: float, made_of: str = "") -> Path:
    folder = workspace / "stages" / stage / key
    folder.mkdir(parents=True)
    (folder / "content.bin").write_bytes(b"x" * 1000)
    publish(Artifact(stage, key, folder), {"inputs": {"input": made_of}}, {})
    _make_old(folder / "manifest.json", age)
    return folder


def _make_old(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def _events(lake: Lake, day: date, *users: str) -> None:
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rows = [(user, "i", moment, n, "view", 1.0, "s", day) for n, user in enumerate(users)]
    table = pl.DataFrame(rows, schema=INTERACTIONS.schema, orient="row")

    def add(snapshot: Snapshot) -> Change:
        return Change(snapshot.write(table, day))

    lake.change(INTERACTIONS, add)


def _refused(lake: Lake, *days: date) -> None:
    rows = [("s", n, "why", "u", "{}", day) for n, day in enumerate(days)]
    table = pl.DataFrame(rows, schema=QUARANTINE.schema, orient="row")

    def add(snapshot: Snapshot) -> Change:
        return Change(snapshot.write(table))

    lake.change(QUARANTINE, add)


def test_old_outputs_go_but_those_of_the_newest_night_stay(tmp_path: Path) -> None:
    _output(tmp_path, "prepare", "old", age=30)
    _output(tmp_path, "report", "oldreport", age=30, made_of="old")
    needed = _output(tmp_path, "prepare", "needed", age=29)
    newest = _output(tmp_path, "report", "newest", age=20, made_of="needed")
    young = _output(tmp_path, "prepare", "young", age=1)
    scratch = tmp_path / "stages" / "prepare" / "killed.scratch"
    scratch.mkdir()
    (scratch / "part").write_bytes(b"x" * 500)
    _make_old(scratch, 15)
    policy = RetentionConfig(stages_days=14)

    planned = planned_retention(tmp_path, policy, today=TODAY)
    assert {path.name for path in planned.stages} == {"old", "oldreport", "killed.scratch"}
    assert planned.stage_bytes > 2500
    assert scratch.exists()

    assert apply_retention(tmp_path, policy, today=TODAY) == planned
    left = {path.name for path in tmp_path.glob("stages/*/*")}
    assert left == {"needed", "newest", "young"}
    assert all(is_finished(folder) for folder in (needed, newest, young))
    assert planned_retention(tmp_path, policy, today=TODAY).stages == ()


def test_interactions_past_the_period_go_with_what_was_refused_then(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for day in (10, 20, 21, 30):
        _events(lake, date(2026, 1, day), "u", "v")
    _refused(lake, date(2026, 1, 10), date(2026, 1, 25))
    policy = RetentionConfig(events_days=10, versions_days=0)

    planned = planned_retention(tmp_path, policy, today=TODAY)
    assert planned.expired_events == 4
    assert lake.scan("interactions").collect().height == 8

    apply_retention(tmp_path, policy, today=TODAY)
    assert lake.scan("interactions").collect()["date"].unique().sort().to_list() == [
        date(2026, 1, 21),
        date(2026, 1, 30),
    ]
    assert lake.scan("quarantine").collect()["date"].to_list() == [date(2026, 1, 25)]
    assert planned_retention(tmp_path, policy, today=TODAY).expired_events == 0
    on_disk = {path.parent.name for path in tmp_path.glob("lake/interactions/*/*.parquet")}
    assert on_disk == {"date=2026-01-21", "date=2026-01-30"}


@pytest.mark.parametrize(("days", "left"), [(0, 1), (3, 2)])
def test_replaced_files_stay_for_their_days(tmp_path: Path, days: int, left: int) -> None:
    lake = Lake(tmp_path / "lake")
    _events(lake, TODAY, "u")

    def replace(snapshot: Snapshot) -> Change:
        (path,) = snapshot.files()["path"]
        rows = snapshot.read_file(path).with_columns(weight=pl.lit(2.0)).collect()
        return Change(snapshot.write(rows, TODAY), [path])

    lake.change(INTERACTIONS, replace)
    policy = RetentionConfig(versions_days=days)

    planned = planned_retention(tmp_path, policy, today=TODAY)
    assert len(planned.lake_files) == 2 - left
    assert (planned.lake_bytes > 0) == (left == 1)

    apply_retention(tmp_path, policy, today=TODAY)
    assert len(list(tmp_path.glob("lake/interactions/*/*.parquet"))) == left
    assert lake.scan("interactions").collect()["weight"].to_list() == [2.0]


def test_an_empty_workspace_has_nothing_to_delete(tmp_path: Path) -> None:
    plan = apply_retention(tmp_path, RetentionConfig(events_days=1), today=TODAY)
    assert plan.in_words().startswith("0 interactions")
    assert list(tmp_path.iterdir()) == []
