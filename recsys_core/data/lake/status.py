"""What a lake holds, from its tables' metadata and small tables alone: no interaction is read."""

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
    """A table as it is now.

    Attributes:
        name: Its name.
        version: Its newest version.
        rows: Its rows.
        files: Its data files.
        bytes: Their size.
    """

    name: str
    version: int
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True)
class LakeStatus:
    """What a lake holds.

    Attributes:
        tables: All tables.
        rows_by_date: Interactions of each date that has any, in order.
        quarantined: Rows of the quarantine by reason, the most frequent first.
        sources: What became of each file, sorted by name.
    """

    tables: list[TableStatus]
    rows_by_date: dict[date, int]
    quarantined: dict[str, int]
    sources: list[IngestedFile]

    @property
    def gaps(self) -> list[tuple[date, date]]:
        """First and last date of each stretch without interactions between dates with some."""
        days = list(self.rows_by_date)
        one = timedelta(days=1)
        pairs = pairwise(days)
        return [(before + one, after - one) for before, after in pairs if after - before > one]

    def facts(self) -> dict[str, Any]:
        """The same for JSON; dates are ISO dates."""
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
    """Look at a lake without changing it.

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
