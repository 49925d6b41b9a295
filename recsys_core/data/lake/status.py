"""Status of a lake, from the metadata of its tables and its small tables; reads no interactions."""

from dataclasses import asdict, dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from recsys_core.data.lake.ingest_log import IngestedFile, ingest_log_of
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import require_lake
from recsys_core.data.schema import INTERACTIONS, QUARANTINE, SOURCES, TABLES


@dataclass(frozen=True)
class TableStatus:
    """Status of a table's newest version.

    Attributes:
        name: Name of the table.
        version: Number of the version.
        rows: Number of rows.
        files: Number of data files.
        bytes: Size of the data files.
    """

    name: str
    version: int
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True)
class LakeStatus:
    """Status of a lake.

    Attributes:
        tables: Status of each table.
        rows_by_date: Number of interactions by date, in order; dates without any are left out.
        quarantined: Number of quarantined rows by reason, the most frequent first.
        sources: Entries of the ingest log, sorted by name.
    """

    tables: list[TableStatus]
    rows_by_date: dict[date, int]
    quarantined: dict[str, int]
    sources: list[IngestedFile]

    @property
    def gaps(self) -> list[tuple[date, date]]:
        """First and last date of each stretch without interactions between dates with some."""
        days = list(self.rows_by_date)
        day = timedelta(days=1)
        pairs = pairwise(days)
        return [(before + day, after - day) for before, after in pairs if after - before > day]

    def facts(self) -> dict[str, Any]:
        """The status for JSON, with ISO dates."""
        days = list(self.rows_by_date)
        return {
            "tables": [asdict(table) for table in self.tables],
            "first_date": days[0].isoformat() if days else None,
            "last_date": days[-1].isoformat() if days else None,
            "gaps": [[first.isoformat(), last.isoformat()] for first, last in self.gaps],
            "rows_by_date": {day.isoformat(): rows for day, rows in self.rows_by_date.items()},
            "quarantined": self.quarantined,
            "sources": [_source_facts(entry) for entry in self.sources],
        }


def lake_status(lake: Path) -> LakeStatus:
    """The status of a lake; nothing is changed.

    Args:
        lake: Folder of the tables.

    Raises:
        NoLakeError: Nothing was ingested there yet.
    """
    require_lake(lake)
    snapshots = {table.name: Snapshot(lake / table.name, table) for table in TABLES}
    reasons = snapshots[QUARANTINE.name].scan().group_by("reason").len()
    log = snapshots[SOURCES.name].scan().collect().sort("source")
    return LakeStatus(
        tables=[_table_status(snapshot) for snapshot in snapshots.values()],
        rows_by_date=_rows_by_date(snapshots[INTERACTIONS.name]),
        quarantined=dict(reasons.collect().sort("len", "reason", descending=[True, False]).rows()),
        sources=list(ingest_log_of(log).values()),
    )


def _table_status(snapshot: Snapshot) -> TableStatus:
    files = snapshot.files()
    return TableStatus(
        name=snapshot.table.name,
        version=snapshot.version,
        rows=int(files["rows"].sum()),
        files=files.height,
        bytes=int(files["bytes"].sum()),
    )


def _rows_by_date(interactions: Snapshot) -> dict[date, int]:
    days = interactions.files().group_by("date").agg(pl.col("rows").sum()).sort("date")
    return {day: rows for day, rows in days.iter_rows() if rows}


def _source_facts(entry: IngestedFile) -> dict[str, Any]:
    days = entry.dates
    return {
        "source": entry.source,
        "run_date": entry.run_date.isoformat(),
        "validated": entry.validated,
        "rows_in": entry.rows_in,
        "rows_kept": entry.rows_kept,
        "rows_quarantined": entry.rows_quarantined,
        "rows_duplicate": entry.rows_duplicate,
        "reasons": entry.refused,
        "first_date": days[0].isoformat() if days else None,
        "last_date": days[-1].isoformat() if days else None,
    }
