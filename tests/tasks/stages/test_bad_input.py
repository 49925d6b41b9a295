"""What a user sees for each kind of bad input, from ingest to validation."""

import json
from datetime import date
from pathlib import Path

import pytest

from recsys_core.artifacts import Artifact
from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.engine.stage import StageRun
from tasks.stages.ingest import ingest
from tasks.stages.validate import ValidationConfig, ValidationFailedError, validate

HEADER = "user_id,item_id,timestamp\n"
GOOD = [f"user{n},item{n % 3},2026-01-0{1 + n % 9}" for n in range(30)]


def _see(workspace: Path, files: dict[str, str]) -> str:
    """The summary that ingest and validate leave, or the error that they end with."""
    folder = workspace / "in"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    for stage in ("ingest", "validate"):
        (workspace / stage).mkdir()
    first, second = (
        StageRun.bare(workspace, workspace / stage, scratch=workspace)
        for stage in ("ingest", "validate")
    )
    config = SourceConfig(interactions=folder, timestamp_unit="iso")
    hashes = source_fingerprint(config)
    ingest.body(first, config=config, run_date=date(2026, 1, 10), sources=hashes)
    ingested = Artifact("ingest", "key", first.out)
    validate.body(second, config=ValidationConfig(), ingested=ingested)
    return (second.out / "validation.md").read_text()


def _file(*lines: str) -> str:
    return HEADER + "".join(f"{line}\n" for line in lines)


def _quarantine(workspace: Path) -> list[tuple[int, str, str]]:
    rows = Lake(workspace / "lake").scan("quarantine").collect().sort("row")
    return rows.select("row", "reason", "raw").rows()


def test_unbalanced_quotes_cost_one_line(tmp_path: Path) -> None:
    seen = _see(tmp_path, {"a.csv": _file(*GOOD[:4], 'user"x,"item1,2026-01-01', *GOOD[4:])})
    assert "| interactions/a.csv | 31 | 30 | 1 | 0 | 1 unbalanced quotes |" in seen
    ((row, reason, raw),) = _quarantine(tmp_path)
    assert (row, reason) == (5, "unbalanced quotes")
    assert json.loads(raw) == {"line": 'user"x,"item1,2026-01-01'}


def test_nulls_are_quarantined_by_column(tmp_path: Path) -> None:
    seen = _see(tmp_path, {"a.csv": _file(*GOOD, ",item1,2026-01-01")})
    assert "| interactions/a.csv | 31 | 30 | 1 | 0 | 1 missing user_id |" in seen
    ((row, reason, raw),) = _quarantine(tmp_path)
    assert (row, reason) == (31, "missing user_id")
    assert json.loads(raw) == {"user_id": None, "item_id": "item1", "timestamp": "2026-01-01"}


def test_too_many_nulls_fail_the_night(tmp_path: Path) -> None:
    bad = [",item1,2026-01-01", "user1,,2026-01-01", "user1,item1,"]
    with pytest.raises(ValidationFailedError) as caught:
        _see(tmp_path, {"a.csv": _file(*GOOD, *bad)})
    seen = str(caught.value)
    assert seen.startswith("# Validation failed: nothing is trained on this\n")
    assert "**quarantined share** is at most 0.05; found: 0.0909" in seen
    assert "refused: 1 missing item_id, 1 missing timestamp, 1 missing user_id;" in seen


def test_a_timestamp_in_the_future_waits(tmp_path: Path) -> None:
    seen = _see(tmp_path, {"a.csv": _file(*GOOD, "user1,item1,2027-01-01")})
    assert "| interactions/a.csv | 31 | 30 | 1 | 0 | 1 timestamp on or after the run date |" in seen


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        _see(tmp_path, {"a.csv": "user_id,product,timestamp\nu,i,2026-01-01\n"})
    assert str(caught.value) == (
        f"{tmp_path}/in/a.csv has no column 'item_id' for item_id (its columns: user_id, product, "
        "timestamp). Set source.columns.item_id to the right one."
    )


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        _see(tmp_path, {"a.csv": _file(*GOOD), "b.csv": ""})
    assert str(caught.value) == (
        f"{tmp_path}/in/b.csv is empty (0 bytes): it has not even a header. Export the file "
        "again, or remove it."
    )


def test_a_file_without_rows_fails_validation(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailedError, match=r"\*\*rows\*\* are at least 1"):
        _see(tmp_path, {"a.csv": HEADER})


def test_a_duplicate_file_adds_nothing(tmp_path: Path) -> None:
    seen = _see(tmp_path, {"a.csv": _file(*GOOD), "b.csv": _file(*GOOD)})
    assert "| interactions/a.csv | 30 | 30 | 0 | 0 | - |" in seen
    assert "| interactions/b.csv | 30 | 0 | 0 | 30 | - |" in seen
    assert Lake(tmp_path / "lake").scan("interactions").collect().height == 30
