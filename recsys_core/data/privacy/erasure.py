"""Erasing a user from the lake's tables.

Delta's log names no user: the statistics of our data files leave out all columns with user ids, and
`commits.rewritten` puts no predicate into the log.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from recsys_core.data.lake.commits import Change, rewritten
from recsys_core.data.lake.snapshot import MAINTENANCE, Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS, QUARANTINE, WITHHELD_ROW, Table

TABLES_WITH_USERS = (INTERACTIONS, QUARANTINE)


@dataclass(frozen=True)
class LakeTraces:
    """What the lake's newest version holds of a user.

    Attributes:
        interactions: Number of the user's interactions.
        quarantine: Number of the user's rows in the quarantine.
        unclear: Number of rows in the quarantine without a user id whose text contains the id.
        first_event: Time of the oldest interaction; None if there is none.
        sources: Names of the files that brought the rows, sorted.
    """

    interactions: int
    quarantine: int
    unclear: int
    first_event: datetime | None
    sources: tuple[str, ...]


def find_traces(lake: Path, user_id: str) -> LakeTraces:
    """Count the rows that `erase` would delete or withhold.

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
    """Delete a user's rows from interactions and quarantine, in one commit per table.

    Rows of the quarantine without a user id whose text contains the id stay, without their text.
    Older versions keep the rows until `retention.vacuum` deletes their files.

    Args:
        lake: The lake.
        user_id: As the lake spells it.
    """
    mine, unclear = _mine(user_id), _unclear(user_id)
    raw = pl.when(unclear).then(pl.lit(WITHHELD_ROW)).otherwise("raw").alias("raw")

    def interactions(snapshot: Snapshot) -> Change:
        return rewritten(snapshot, mine, lambda rows: rows.filter(~mine))

    def quarantine(snapshot: Snapshot) -> Change:
        return rewritten(
            snapshot, mine | unclear, lambda rows: rows.with_columns(raw).filter(~mine)
        )

    lake.change(INTERACTIONS, interactions, label=MAINTENANCE)
    lake.change(QUARANTINE, quarantine, label=MAINTENANCE)


def _snapshot(lake: Path, table: Table) -> Snapshot:
    return Snapshot(lake / table.name, table)


def _rows(snapshot: Snapshot, test: pl.Expr, *columns: str) -> pl.DataFrame:
    """Some columns of the rows that pass a test, read one data file at a time."""
    parts = [
        snapshot.read_file(path).filter(test).select(columns).collect()
        for path in snapshot.files()["path"]
    ]
    empty = pl.DataFrame(schema={name: snapshot.table.schema[name] for name in columns})
    return pl.concat([empty, *parts])


def _mine(user_id: str) -> pl.Expr:
    return pl.col("user_id").eq_missing(pl.lit(user_id))


def _unclear(user_id: str) -> pl.Expr:
    """Rows without a user id whose text contains the id, as it is or as JSON spells it."""
    spellings = {user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1]}
    named = pl.any_horizontal(
        pl.col("raw").str.contains(spelling, literal=True) for spelling in sorted(spellings)
    )
    return pl.col("user_id").is_null() & named
