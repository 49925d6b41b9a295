"""Malformed source files: they are ingested as a night would, and no row may be lost."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.engine.stage import StageRun
from tasks.stages.ingest import ingest

HEADER = "user_id,item_id,timestamp,weight\n"
GOOD = "".join(f"user{n},item{n % 3},2026-01-0{1 + n % 9},1\n" for n in range(9))
JSON_ROW = {"user_id": "u", "item_id": "i", "timestamp": "2026-01-01"}
RUN_DATE = date(2026, 1, 10)

Settings = dict[str, Any]


def ingest_folder(workspace: Path, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """What became of each file's rows."""
    given = {"interactions": folder, "timestamp_unit": "iso", **settings}
    config = SourceConfig.model_validate(given)
    out = workspace / "ingest"
    run = StageRun.bare(workspace, out)
    ingest.body(run, config=config, run_date=RUN_DATE, sources=source_fingerprint(config))
    return json.loads((out / "ingest.json").read_text())["files"]


def assert_no_row_is_lost(workspace: Path, files: list[dict[str, Any]]) -> None:
    """Every row of each file is kept, quarantined once, or a duplicate."""
    lake = Lake(workspace / "lake")
    kept = lake.scan("interactions").collect()
    refused = lake.scan("quarantine").collect()
    for file in files:
        parts = [file[f"rows_{part}"] for part in ("kept", "quarantined", "duplicate")]
        assert sum(parts) == file["rows_in"]
        assert kept.filter(pl.col("source") == file["source"]).height == parts[0]
        rows = refused.filter(pl.col("source") == file["source"])
        assert rows.height == parts[1]
        assert rows["row"].n_unique() == rows.height
        assert rows["raw"].null_count() == 0


@dataclass(frozen=True)
class QuarantineCase:
    """A file with bad rows.

    Attributes:
        content: Content of the file.
        reasons: Expected reasons in the quarantine, with the number of rows.
        kept: Expected rows in the lake.
        name: Name of the file.
        settings: Settings of the source.
    """

    content: bytes | str
    reasons: dict[str, int]
    kept: int = 9
    name: str = "a.csv"
    settings: Settings = field(default_factory=dict)


def assert_quarantined(tmp_path: Path, case: QuarantineCase) -> None:
    """Exactly the bad rows are quarantined, for the expected reasons."""
    folder = tmp_path / "in"
    folder.mkdir()
    raw = case.content if isinstance(case.content, bytes) else case.content.encode()
    (folder / case.name).write_bytes(raw)
    files = ingest_folder(tmp_path / "workspace", folder, **case.settings)
    assert_no_row_is_lost(tmp_path / "workspace", files)
    (file,) = files
    assert (file["reasons"], file["rows_kept"]) == (case.reasons, case.kept)


@dataclass(frozen=True)
class RefusalCase:
    """A folder that can't be ingested.

    Attributes:
        make: Makes the files in the given folder.
        sentence: Expected message, a regular expression.
        settings: Settings of the source.
    """

    make: Callable[[Path], object]
    sentence: str
    settings: Settings = field(default_factory=dict)


def assert_refused(tmp_path: Path, case: RefusalCase) -> None:
    """The file is refused with the expected message, and the lake stays empty."""
    folder, workspace = tmp_path / "in", tmp_path / "workspace"
    folder.mkdir()
    case.make(folder)
    with pytest.raises(SourceError, match=case.sentence):
        ingest_folder(workspace, folder, **case.settings)
    if (workspace / "lake").exists():
        assert Lake(workspace / "lake").version("interactions") == 0
        assert not any(workspace.glob("lake/interactions/date=*/*"))
    assert not (workspace / "ingest" / "ingest.json").exists()


def with_line(line: str | bytes) -> bytes:
    """A CSV file of good rows, and this line."""
    raw = line if isinstance(line, bytes) else line.encode()
    return HEADER.encode() + GOOD.encode() + raw + b"\n"


def parquet_bytes(**columns: Any) -> bytes:
    """A Parquet file of two rows, with these columns in place of good ones."""
    file = io.BytesIO()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    base = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [moment, moment]}
    pl.DataFrame(base | columns, strict=False).write_parquet(file)
    return file.getvalue()


def json_lines(*rows: object) -> str:
    """A file of JSON lines."""
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
