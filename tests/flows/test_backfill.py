"""Some dates are read again: what the files bring now is what the lake holds."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from flows.backfill import backfill
from flows.config import NightlyConfig
from recsys_core.data.lake.retention import delete_events_before
from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.config import SourceError
from tasks.engine.night import WorkspaceOwnedError

HEADER = "user_id,item_id,timestamp\n"


@pytest.fixture
def config(prefect_server: None, tmp_path: Path) -> NightlyConfig:
    folder = tmp_path / "in"
    folder.mkdir()
    for day in (1, 2, 3):
        lines = [f"u{n},i{n},2026-01-0{day}\n" for n in range(4)]
        (folder / f"{day}.csv").write_text(HEADER + "".join(lines))
    source = {"interactions": str(folder), "timestamp_unit": "iso"}
    return NightlyConfig.model_validate(
        {"workspace": str(tmp_path / "workspace"), "source": source}
    )


def _lake(config: NightlyConfig) -> dict[date, list[str]]:
    rows = pl.scan_delta(str(config.workspace / "lake" / "interactions")).collect()
    by_date = rows.group_by("date").agg(pl.col("user_id").sort()).sort("date")
    return dict(by_date.iter_rows())


def test_only_files_of_these_dates_are_read(config: NightlyConfig) -> None:
    first, last = date(2026, 1, 2), date(2026, 1, 2)
    done = backfill(first, last, config)
    assert (done["new_files"], done["rows_in"]) == (3, 12)

    done = backfill(first, last, config)
    assert (done["new_files"], done["rows_in"], done["rows_kept"]) == (1, 4, 4)
    assert _lake(config) == {date(2026, 1, day): ["u0", "u1", "u2", "u3"] for day in (1, 2, 3)}


def test_rows_that_are_gone_from_the_lake_come_back(config: NightlyConfig) -> None:
    backfill(date(2026, 1, 1), date(2026, 1, 3), config)
    assert delete_events_before(Lake(config.workspace / "lake"), date(2026, 1, 3)) == 8
    assert list(_lake(config)) == [date(2026, 1, 3)]

    backfill(date(2026, 1, 2), date(2026, 1, 2), config)
    assert list(_lake(config)) == [date(2026, 1, 2), date(2026, 1, 3)]


def test_a_file_that_is_gone_is_named(config: NightlyConfig) -> None:
    backfill(date(2026, 1, 1), date(2026, 1, 3), config)
    before = _lake(config)
    assert config.source is not None
    (Path(str(config.source.interactions)) / "2.csv").unlink()
    with pytest.raises(SourceError, match=r"interactions/2.csv brought events.*Put it back"):
        backfill(date(2026, 1, 1), date(2026, 1, 2), config)
    assert _lake(config) == before


def test_a_workspace_of_other_data_is_refused(config: NightlyConfig, tmp_path: Path) -> None:
    backfill(date(2026, 1, 1), date(2026, 1, 3), config)
    source = {"interactions": str(tmp_path / "elsewhere"), "timestamp_unit": "iso"}
    other = {"workspace": str(config.workspace), "source": source}
    with pytest.raises(WorkspaceOwnedError):
        backfill(date(2026, 1, 1), date(2026, 1, 3), NightlyConfig.model_validate(other))


def test_dates_in_the_wrong_order_are_refused(config: NightlyConfig) -> None:
    with pytest.raises(ValueError, match="2026-01-01, comes before the first"):
        backfill(date(2026, 1, 2), date(2026, 1, 1), config)
