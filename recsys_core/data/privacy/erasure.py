"""A user out of the lake: out of the tables' rows, and then out of their old versions.

What still has a line in the log is no user's: the data files that we write have statistics of the
source only.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
from deltalake.transaction import AddAction

from recsys_core.data.lake.tables import MAINTENANCE, Change, Lake, Snapshot
from recsys_core.data.schema import INTERACTIONS, QUARANTINE, WITHHELD_ROW, Table

TABLES_WITH_USERS = (INTERACTIONS, QUARANTINE)


@dataclass(frozen=True)
class LakeTraces:
    """What the lake's newest version holds of a user.

    Attributes:
        interactions: Rows of the table.
        quarantine: Rows of the table that are the user's.
        unclear: Rows of the quarantine that are nobody's and have the id in their text.
        first_event: Time of the oldest row of the interactions; None if there is none.
        sources: Names of the files that brought the rows, sorted.
    """

    interactions: int
    quarantine: int
    unclear: int
    first_event: datetime | None
    sources: tuple[str, ...]


def find_traces(lake: Path, user_id: str) -> LakeTraces:
    """Count what `erase` would take.

    Args:
        lake: Folder of the tables.
        user_id: As the lake spells it.
    """
    interactions, quarantine = (_snapshot(lake, table) for table in TABLES_WITH_USERS)
    kept = _rows(interactions, pl.col("user_id") == user_id, "source", "timestamp")
    refused = _rows(quarantine, _mine(user_id), "source")
    unclear = _rows(quarantine, _unclear(user_id), "source")
    sources = pl.concat([rows["source"] for rows in (kept, refused, unclear)])
    first: datetime | None = kept.select(pl.col("timestamp").min()).item()
    return LakeTraces(
        interactions=kept.height,
        quarantine=refused.height,
        unclear=unclear.height,
        first_event=first,
        sources=tuple(sources.unique().sort()),
    )


def erase(lake: Lake, user_id: str) -> None:
    """Take a user's rows from the newest version of each table, a commit each.

    Rows of the quarantine that are nobody's and have the id in their text stay without the text.
    Older versions hold the user until their files are deleted: `retention.vacuum`.

    Args:
        lake: Whose tables.
        user_id: As the lake spells it.
    """

    def interactions(snapshot: Snapshot) -> Change:
        others = pl.col("user_id") != user_id
        files = snapshot.files().select("path", "date")
        added: list[AddAction] = []
        stale = [path for path, _ in _files_of(snapshot, ~others)]
        for path, day in files.filter(pl.col("path").is_in(stale)).iter_rows():
            added += snapshot.write(snapshot.read_file(path).filter(others).collect(), day)
        return Change(added, stale)

    def quarantine(snapshot: Snapshot) -> Change:
        mine, unclear = _mine(user_id), _unclear(user_id)
        raw = pl.when(unclear).then(pl.lit(WITHHELD_ROW)).otherwise("raw").alias("raw")
        stale = [path for path, _ in _files_of(snapshot, mine | unclear)]
        rows = (snapshot.read_file(path).with_columns(raw).filter(~mine) for path in stale)
        added = [file for part in rows for file in snapshot.write(part.collect())]
        return Change(added, stale)

    lake.change(INTERACTIONS, interactions, label=MAINTENANCE)
    lake.change(QUARANTINE, quarantine, label=MAINTENANCE)


def _snapshot(lake: Path, table: Table) -> Snapshot:
    return Snapshot(lake / table.name, table)


def _rows(snapshot: Snapshot, test: pl.Expr, *columns: str) -> pl.DataFrame:
    """Some columns of the rows that pass a test, one data file at a time."""
    found = [
        snapshot.read_file(path).filter(test).select(columns).collect()
        for path in snapshot.files()["path"]
    ]
    empty = pl.DataFrame(schema={name: snapshot.table.schema[name] for name in columns})
    return pl.concat([empty, *found])


def _files_of(snapshot: Snapshot, test: pl.Expr) -> Iterator[tuple[str, int]]:
    """The data files with rows that pass a test, and how many."""
    for path in snapshot.files()["path"]:
        n_rows = snapshot.read_file(path).select(test.sum()).collect().item()
        if n_rows:
            yield path, n_rows


def _mine(user_id: str) -> pl.Expr:
    return pl.col("user_id").eq_missing(pl.lit(user_id))


def _unclear(user_id: str) -> pl.Expr:
    """Rows without a user that have the id in their text, plainly or as JSON spells it."""
    spellings = {user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1]}
    named = pl.any_horizontal(
        pl.col("raw").str.contains(spelling, literal=True) for spelling in sorted(spellings)
    )
    return pl.col("user_id").is_null() & named
