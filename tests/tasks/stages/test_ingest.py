"""The ingest stage: its record, kills in its middle, and real data."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import TABLES
from recsys_core.data.sources.config import ItemColumns, SourceConfig, SourceError
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.engine.stage import StageRun
from tasks.stages.ingest import ingest
from tests.killed_commits import Killed, killed_at_commit
from tests.shared_data import DATA

RUN_DATE = date(2026, 1, 10)
COMMITS = ((pl.DataFrame, "write_delta"), (DeltaTable, "create_write_transaction"))


def _ingest(
    workspace: Path, config: SourceConfig, hashes: dict[str, str] | None = None
) -> dict[str, Any]:
    out = workspace / "out"
    run = StageRun.bare(workspace, out)
    hashes = source_fingerprint(config) if hashes is None else hashes
    ingest.body(run, config=config, run_date=RUN_DATE, sources=hashes)
    return json.loads((out / "ingest.json").read_text())


@pytest.fixture
def sources(tmp_path: Path) -> SourceConfig:
    folder = tmp_path / "in"
    folder.mkdir()
    header = "user_id,item_id,timestamp\n"
    (folder / "a.csv").write_text(f"{header}u,a,2026-01-01\nv,b,2026-01-02\n,b,2026-01-02\n")
    (folder / "b.csv").write_text(f"{header}u,a,2026-01-01\nu,c,2026-01-03\n")
    (tmp_path / "items.csv").write_text("item_id,title\na,Tea\nd,Salt\n")
    return SourceConfig(interactions=folder, items=tmp_path / "items.csv", timestamp_unit="iso")


def test_the_record_says_what_became_of_every_file(tmp_path: Path, sources: SourceConfig) -> None:
    result = _ingest(tmp_path, sources)
    counts = [
        [
            file["source"],
            *(file[f"rows_{part}"] for part in ("in", "kept", "quarantined", "duplicate")),
        ]
        for file in result["files"]
    ]
    assert counts == [
        ["interactions/a.csv", 3, 2, 1, 0],
        ["interactions/b.csv", 2, 1, 0, 1],
        ["items/items.csv", 2, 2, 0, 0],
    ]
    assert result["versions"] == {
        "interactions": 1,
        "items": 1,
        "item_index": 1,
        "event_types": 1,
        "quarantine": 1,
    }
    assert result["reasons"] == {"missing user_id": 1}
    assert result["new_rows"] == 3
    assert result["new_dates"] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert result["n_items"] == 4
    assert result["timestamp_kind"] == "time"
    assert str(tmp_path) not in json.dumps(result)


def test_until_it_is_validated_everything_counts_as_new(
    tmp_path: Path, sources: SourceConfig
) -> None:
    first = _ingest(tmp_path, sources)
    assert _ingest(tmp_path, sources) == first


def test_only_what_was_there_when_the_night_began_is_taken(
    tmp_path: Path, sources: SourceConfig
) -> None:
    hashes = source_fingerprint(sources)
    late = tmp_path / "in" / "late.csv"
    late.write_text("user_id,item_id,timestamp\nw,a,2026-01-01\n")
    result = _ingest(tmp_path, sources, hashes)
    assert [file["source"] for file in result["files"]] == sorted(hashes)
    with pytest.raises(SourceError, match=r"gone\.csv was there when the night began"):
        _ingest(tmp_path, sources, hashes | {"interactions/gone.csv": "0"})


def _contents(workspace: Path) -> dict[str, Any]:
    lake = Lake(workspace / "lake")
    tables = {table.name: lake.scan(table.name).collect() for table in TABLES}
    return {name: frame.sort(frame.columns[:4]).to_dicts() for name, frame in tables.items()}


@pytest.mark.parametrize("committed", [True, False])
def test_after_a_kill_at_any_commit_a_rerun_gives_the_same(
    tmp_path: Path, sources: SourceConfig, committed: bool
) -> None:
    expected = _ingest(tmp_path / "whole", sources)
    contents = _contents(tmp_path / "whole")
    kills = 0
    for commits in range(1, 30):
        workspace = tmp_path / str(commits)
        try:
            with killed_at_commit(commits, committed=committed, commits=COMMITS):
                _ingest(workspace, sources)
        except Killed:
            kills += 1
        assert _ingest(workspace, sources) == expected
        assert _contents(workspace) == contents
        if kills < commits:
            break
    # Six tables; ordinals; items and their record; interactions, quarantine and records of both
    # files; kinds of events; the index.
    assert kills == 14


def _real(folder: str) -> Path:
    if not (DATA / folder).is_dir():
        pytest.skip(f"no {folder} in {DATA}; set RECDISTILL_TEST_DATA to the folder that has it")
    return DATA / folder


def test_movielens_small_comes_whole(tmp_path: Path) -> None:
    config = SourceConfig(format="movielens", interactions=_real("ml-latest-small"))
    result = _ingest(tmp_path, config)
    ratings, movies = result["files"]
    assert ratings["rows_in"] == ratings["rows_kept"] == result["new_rows"] == 100_836
    assert movies["rows_in"] == movies["rows_kept"] == result["n_items"] == 9_742
    assert result["reasons"] == {}
    items = Lake(tmp_path / "lake").scan("items").collect()
    titles = dict(items.select("item_id", "title").iter_rows())
    assert titles["11"] == "American President, The (1995)"
    assert not items["categories"].list.contains("(no genres listed)").any()


def test_ml_1m_comes_whole_and_in_order(tmp_path: Path) -> None:
    folder = _real("ml-1m")
    config = SourceConfig(
        format="parquet",
        interactions=folder / "events.parquet",
        items=folder / "items.parquet",
        item_columns=ItemColumns(categories="genres"),
        timestamp_kind="order",
    )
    result = _ingest(tmp_path, config)
    events, items = result["files"]
    assert events["rows_in"] == events["rows_kept"] == result["new_rows"] == 999_611
    assert items["rows_kept"] == result["n_items"] == 3_883
    assert result["reasons"] == {}
    assert result["new_dates"] == ["2026-01-09"]
    stored = Lake(tmp_path / "lake").scan("interactions").filter(pl.col("user_id") == "1").collect()
    source = pl.read_parquet(folder / "events.parquet").filter(pl.col("user_id") == 1)
    order = source.sort("timestamp")["item_id"].cast(pl.String)
    assert stored.sort("timestamp", "arrival")["item_id"].to_list() == order.to_list()
