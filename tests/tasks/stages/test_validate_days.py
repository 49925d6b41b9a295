"""The validation stage compares each new day with the days before it."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_core.artifacts import Artifact
from recsys_core.data.sources.config import SourceConfig
from recsys_core.data.sources.discovery import source_fingerprint
from recsys_core.synthetic.world import WorldConfig, write_world
from tasks.stages.ingest import ingest
from tasks.stages.validate import ValidationFailedError
from tests.validation_stage import (
    HEADER,
    RUN_DATE,
    ingest_text,
    run_validate,
    stage_run,
    written_report,
)


class Shop:
    """Days of the synthetic world as CSV files; the last one is the newest night's."""

    days = [RUN_DATE - timedelta(days=back) for back in range(9, 0, -1)]  # noqa: RUF012 - constant

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        world = workspace / "world"
        write_world(
            world,
            WorldConfig(n_users=600, n_items=200),
            first_day=self.days[0],
            through=self.days[-1],
        )
        self.events = {
            day: pl.read_parquet(world / "interactions" / f"{day}.parquet").with_columns(
                pl.lit(1.0).alias("weight")
            )
            for day in self.days
        }

    def ingest(self, days: Iterable[date], **settings: object) -> Artifact:
        """Add the files of these days, and ingest what is there."""
        folder = self.workspace / "in"
        folder.mkdir(exist_ok=True)
        for day in days:
            self.events[day].write_csv(folder / f"{day}.csv")
        config = SourceConfig.model_validate(
            {"interactions": folder, "timestamp_unit": "iso", **settings}
        )
        run, hashes = stage_run(self.workspace, "ingest"), source_fingerprint(config)
        ingest.body(run, config=config, run_date=RUN_DATE, sources=hashes)
        return Artifact("ingest", "key", run.out)

    def first_load(self) -> dict[str, Any]:
        """All days but the newest."""
        return run_validate(self.workspace, self.ingest(self.days[:-1]))

    def night(self, **settings: Any) -> dict[str, Any]:
        """The newest day."""
        return run_validate(self.workspace, self.ingest(self.days[-1:]), **settings)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def _outcomes(workspace: Path) -> dict[str, str]:
    return {one["name"]: one["outcome"] for one in written_report(workspace)["expectations"]}


DAILY = (
    "daily rows", "daily users", "new item share", "event mix", "popularity shift",
    "lost event kinds", "new event kinds",
)  # fmt: skip


def test_an_ordinary_night_passes_and_the_first_load_decides_nothing(shop: Shop) -> None:
    first = shop.first_load()
    assert (first["n_failed"], first["n_warned"]) == (0, 0)
    outcomes = _outcomes(shop.workspace)
    assert {outcomes[name] for name in DAILY} == {"skipped"}
    days = written_report(shop.workspace)["days"]
    assert [day["skipped"] for day in days] == ["no trailing day, 3 are needed"] * 8
    night = shop.night()
    assert (night["n_failed"], night["n_warned"], night["n_skipped"]) == (0, 0, 0)
    assert not any(one["note"] for one in written_report(shop.workspace)["expectations"])
    (day,) = written_report(shop.workspace)["days"]
    assert day["date"] == shop.days[-1].isoformat()
    assert day["compared_with"] == [one.isoformat() for one in shop.days[1:8]]
    assert day["daily_rows"]["value"] == shop.events[shop.days[-1]].height == day["n_rows"]


def _one_kind(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(event_type=pl.lit("click"))


def _clicks_only(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("event_type") == "click")


def _another_shop(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(item_id="x" + pl.col("item_id"))


def _twenty_times(events: pl.DataFrame) -> pl.DataFrame:
    shifted = [
        events.with_columns(pl.col("timestamp") - pl.duration(microseconds=number))
        for number in range(20)
    ]
    midnight = pl.col("timestamp").min().dt.truncate("1d")
    return pl.concat(shifted).with_columns(pl.col("timestamp").clip(lower_bound=midnight))


@pytest.mark.parametrize(
    ("broken", "failed"),
    [
        (lambda events: events.gather_every(10), {"daily rows"}),
        (_twenty_times, {"daily rows"}),
        (_one_kind, {"lost event kinds"}),
        (_clicks_only, {"lost event kinds"}),
        (_another_shop, {"new item share", "popularity shift"}),
    ],
    ids=["a tenth", "twenty times", "one kind", "purchases lost", "another shop"],
)
def test_a_broken_night_fails(shop: Shop, broken: Any, failed: set[str]) -> None:
    shop.first_load()
    shop.events[shop.days[-1]] = broken(shop.events[shop.days[-1]])
    with pytest.raises(ValidationFailedError):
        shop.night()
    outcomes = _outcomes(shop.workspace)
    assert failed <= {name for name, outcome in outcomes.items() if outcome == "failed"}
    assert {name for name, outcome in outcomes.items() if outcome == "failed"} <= set(DAILY)


def test_a_broken_night_says_what_the_day_was_and_what_is_usual(shop: Shop) -> None:
    shop.first_load()
    shop.events[shop.days[-1]] = shop.events[shop.days[-1]].head(120)
    with pytest.raises(
        ValidationFailedError,
        match=r"\*\*daily rows\*\* are at least 1/4 and at most 4 times the usual; 1 is not, for "
        r"example 0\.\d+ \(2026-01-09: 120, usually [\d,]+\)\. Look at that day's export",
    ):
        shop.night()
    assert shop.night(severity=dict.fromkeys(DAILY, "warn"))["n_failed"] == 0


def test_late_rows_do_not_make_a_day_small(shop: Shop) -> None:
    shop.first_load()
    late = shop.days[4]
    row = f"new-user,i000001,{late}T12:00:00.5Z,click,1.0\n"
    (shop.workspace / "in" / "late.csv").write_text(HEADER + row)
    found = run_validate(shop.workspace, shop.ingest([]))
    assert (found["n_rows"], found["n_failed"], found["n_warned"]) == (1, 0, 0)
    (day,) = written_report(shop.workspace)["days"]
    assert day["date"] == late.isoformat()
    assert day["skipped"].startswith("1 late rows; ")


def test_an_order_is_no_day(tmp_path: Path) -> None:
    ingested = ingest_text(tmp_path, "u,i,1,view,1\nu,j,2,view,1\n", timestamp_kind="order")
    assert run_validate(tmp_path, ingested)["n_failed"] == 0
    (day,) = written_report(tmp_path)["days"]
    assert day["skipped"] == "the timestamps are only an order"
