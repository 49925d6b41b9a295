"""A disk that is full at any point: a sentence, nothing half-published; with room it goes on."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_core.artifacts import is_finished
from recsys_core.data.lake.ingest_log import read_ingest_log
from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.config import SourceConfig
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.engine.night import Night
from tasks.engine.stage import DiskFullError
from tasks.stages.ingest import ingest
from tasks.stages.prepare import PrepareConfig, prepare

N_ROWS, DAYS = 60_000, 3
RUN_DATE = date(2026, 1, 10)
ENOUGH = 200_000


@pytest.fixture
def source(tmp_path: Path) -> SourceConfig:
    """Two files of interactions that hardly compress; the first has bad rows, too."""
    random = np.random.default_rng(1)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        users = random.integers(0, 1 << 40, N_ROWS).astype(str)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        seconds = random.integers(0, DAYS * 86_400, N_ROWS).tolist()
        table = pl.DataFrame(
            {
                "user_id": pl.Series(users).set(pl.Series(np.arange(N_ROWS) % 100 == 7), None)
                if name == "a"
                else users,
                "item_id": random.integers(0, 1 << 20, N_ROWS).astype(str),
                "timestamp": [start + timedelta(seconds=one) for one in seconds],
            }
        )
        table.write_parquet(folder / f"{name}.parquet")
    return SourceConfig(format="parquet", interactions=folder)


def _check(workspace: Path, *, whole: bool) -> None:
    """What the lake's tables hold is what its records say; a file is there as a whole or not."""
    if not (workspace / "lake" / "sources").exists():
        assert not whole
        return
    lake = Lake(workspace / "lake")
    held = dict(lake.scan("interactions").collect().group_by("source").len().iter_rows())
    refused = lake.scan("quarantine").collect().height
    for record in read_ingest_log(lake).values():
        if record.fingerprint or whole:
            assert record.rows_in == N_ROWS
            assert held[record.source] == record.rows_kept
            assert refused == (N_ROWS // 100 if record.source.endswith("a.parquet") else refused)
        else:
            assert held.get(record.source, 0) in (0, N_ROWS - N_ROWS // 100, N_ROWS)


@pytest.mark.parametrize("kilobytes", [40, 300, 800, 1_300, 1_800, 2_200, 2_600])
def test_ingest_stops_with_a_sentence_and_goes_on_with_room(
    prefect_server: None,
    source: SourceConfig,
    small_disk: Callable[[int], Path],
    kilobytes: int,
) -> None:
    night = Night(small_disk(kilobytes) / "workspace", "test", RUN_DATE, {}, None, {})
    sources = source_fingerprint(source)

    def run() -> Path:
        made = ingest(night, source, run_date=RUN_DATE, sources=sources)
        return made.folder

    with pytest.raises(
        (DiskFullError, OSError), match=r"No space left|is full.*data clean --dry-run"
    ):
        run()
    _check(night.workspace, whole=False)
    assert not any(map(is_finished, night.workspace.glob("stages/*/*")))

    small_disk(ENOUGH)
    assert is_finished(run())
    _check(night.workspace, whole=True)


def test_prepare_stops_with_a_sentence_and_goes_on_with_room(
    prefect_server: None, source: SourceConfig, small_disk: Callable[[int], Path]
) -> None:
    night = Night(small_disk(ENOUGH) / "workspace", "test", RUN_DATE, {}, None, {})
    sources = source_fingerprint(source)
    ingested = ingest(night, source, run_date=date(2026, 1, 5), sources=sources)
    used = sum(path.stat().st_size for path in night.workspace.rglob("*") if path.is_file())

    def run() -> Path:
        config = PrepareConfig(n_buckets=2)
        inputs = {"ingested": ingested, "validated": ingested, "timezone": "UTC"}
        return prepare(night, config, run_date=date(2026, 1, 4), **inputs).folder

    small_disk(used // 1024 + 300)
    with pytest.raises(DiskFullError, match="prepare stopped and published nothing"):
        run()
    assert not any(map(is_finished, night.workspace.glob("stages/prepare/*")))

    small_disk(ENOUGH)
    assert is_finished(run())
