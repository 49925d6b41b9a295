"""What leaves the lake with time: rows past the retention period, and files of old versions."""

from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from recsys_core.artifacts import digest
from recsys_core.data.lake.tables import Change, Lake, Snapshot
from recsys_core.data.schema import INTERACTIONS, QUARANTINE, TABLES

_HOURS_IN_DAY = 24


def delete_events_before(lake: Lake, before: date) -> int:
    """Take the interactions of earlier dates from the newest version; what was refused goes along.

    Args:
        lake: Whose tables.
        before: The first date that stays. In the quarantine it is the date of the night.

    Returns:
        Number of interactions.
    """
    n_rows = count_events_before(lake, before)

    def interactions(snapshot: Snapshot) -> Change:
        return Change(remove=_older(snapshot, before)["path"].to_list())

    def quarantine(snapshot: Snapshot) -> Change:
        fresh = pl.col("date") >= before
        stale = [
            path
            for path in snapshot.files()["path"]
            if not snapshot.read_file(path).select(fresh.all()).collect().item()
        ]
        kept = (snapshot.read_file(path).filter(fresh).collect() for path in stale)
        return Change([file for rows in kept for file in snapshot.write(rows)], stale)

    # Named, so that a file that is read again afterwards is not taken for stored already.
    content = digest(["expire", before])
    lake.change(INTERACTIONS, interactions, content=content)
    lake.change(QUARANTINE, quarantine, content=content)
    return n_rows


def count_events_before(lake: Lake, before: date) -> int:
    """Number of interactions of earlier dates."""
    return int(_older(lake.snapshot(INTERACTIONS), before)["rows"].sum())


def vacuumable_files(lake: Path, days: int) -> list[Path]:
    """Data files that no version of the last days refers to."""
    return [
        path
        for table, vacuum in _vacuums(lake, days)
        for name in vacuum(dry_run=True)
        if (path := table / name).exists()
    ]


def vacuum(lake: Path, days: int) -> None:
    """Delete what `vacuumable_files` names. Nobody may write meanwhile."""
    for table, vacuum in _vacuums(lake, days):
        # Each call is a commit, and names files that are long gone too.
        if any((table / name).exists() for name in vacuum(dry_run=True)):
            vacuum(dry_run=False)


def _vacuums(lake: Path, days: int) -> "Iterator[tuple[Path, partial[list[str]]]]":
    for table in TABLES:
        path = lake / table.name
        if DeltaTable.is_deltatable(str(path)):
            yield (
                path,
                partial(
                    DeltaTable(str(path)).vacuum,
                    retention_hours=days * _HOURS_IN_DAY,
                    enforce_retention_duration=False,
                    full=True,
                ),
            )


def _older(snapshot: Snapshot, before: date) -> pl.DataFrame:
    return snapshot.files().filter(pl.col("date") < before)
