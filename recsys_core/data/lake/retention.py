"""Retention in the lake: deletes old interactions, and the files of replaced versions."""

from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from recsys_core.artifacts import digest
from recsys_core.data.lake.commits import Change, rewritten
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS, QUARANTINE, TABLES

_HOURS_IN_DAY = 24


def delete_events_before(lake: Lake, before: date) -> int:
    """Delete the interactions of earlier dates, and what earlier nights put into the quarantine.

    Older versions keep the rows until `vacuum` deletes their files.

    Args:
        lake: The lake.
        before: The first date that stays. The quarantine's dates are run dates.

    Returns:
        Number of deleted interactions.
    """
    n_rows = count_events_before(lake, before)

    def interactions(snapshot: Snapshot) -> Change:
        return Change(remove=_older(snapshot, before)["path"].to_list())

    def quarantine(snapshot: Snapshot) -> Change:
        old = pl.col("date") < before
        return rewritten(snapshot, old, lambda rows: rows.filter(~old))

    # With a content of its own: else a file that is read again would count as committed already.
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
        for table, delete in _vacuums(lake, days)
        for name in delete(dry_run=True)
        if (path := table / name).exists()
    ]


def vacuum(lake: Path, days: int) -> None:
    """Delete the files of `vacuumable_files`. No other process may write meanwhile."""
    for table, delete in _vacuums(lake, days):
        # Each real run is a commit, and the list has files that are long gone too.
        if any((table / name).exists() for name in delete(dry_run=True)):
            delete(dry_run=False)


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
