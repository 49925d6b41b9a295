"""Merging a batch into the lake: its rows replace all earlier rows of the same files."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path

import polars as pl
from deltalake.transaction import AddAction

from recsys_core.data.ingest.deduplicate import Deduplicated, count_by_source, deduplicate
from recsys_core.data.io.prefetch import one_ahead
from recsys_core.data.io.spool import Spool
from recsys_core.data.lake.commits import Change, Writer
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS, QUARANTINE

ROWS_AT_ONCE = 10_000_000
"""Most rows of a date that are deduplicated at once; a user's rows stay together."""

_KEY = list(INTERACTIONS.key)


@dataclass
class MergeResult:
    """Counts of a batch's valid rows.

    Attributes:
        kept: Number of rows added to the lake, by source.
        duplicates: Number of duplicate rows, by source.
        bots: Number of rows refused as a bot's, by source.
        vanished: Dates on which a file no longer has a row that it brought before.
    """

    kept: Counter[str] = field(default_factory=Counter[str])
    duplicates: Counter[str] = field(default_factory=Counter[str])
    bots: Counter[str] = field(default_factory=Counter[str])
    vanished: set[date] = field(default_factory=set[date])

    def add(self, part: "_PartitionSlice", deduplicated: Deduplicated) -> None:
        """Count the rows of a slice."""
        self.kept += count_by_source(deduplicated.kept)
        self.bots += count_by_source(deduplicated.refused)
        self.duplicates += deduplicated.duplicates
        if not part.before.is_empty():
            gone = part.before.join(deduplicated.kept, on=_KEY, how="anti")
            self.vanished |= set() if gone.is_empty() else {part.day}


def merge_batch(
    lake: Lake,
    valid: Spool,
    refused: Spool,
    sources: Collection[str],
    *,
    max_events_per_day: int | None,
    run_date: date,
    content: str,
    scratch: Path,
    progress: Callable[[str], None] = lambda message: None,
) -> MergeResult:
    """Replace all rows of `sources` in interactions and quarantine, in one commit per table.

    Args:
        lake: The lake.
        valid: Rows for the interactions, duplicates among them.
        refused: Rows for the quarantine; the rows of bots are added to them.
        sources: Names of the files.
        max_events_per_day: See `deduplicate`.
        run_date: The night's date, for the quarantine.
        content: Identifies the rows, see `Lake.change`.
        scratch: Folder for the rows of bots.
        progress: Called before each slice of a date.
    """
    merged, bots = MergeResult(), Spool(scratch / "bots", QUARANTINE.schema)

    def change_interactions(snapshot: Snapshot) -> Change:
        nonlocal merged, bots
        merged, bots = MergeResult(), Spool(scratch / "bots", QUARANTINE.schema)
        stale = _stale(snapshot, sources)
        days = sorted({*valid.keys, *stale["date"]})
        slices = chain.from_iterable(
            _partition_slices(snapshot, valid, stale, sources, day) for day in days
        )
        with Writer(snapshot) as writer:
            for part in one_ahead(slices):
                progress(f"merging {part.day}")
                deduplicated = deduplicate(
                    part.new, part.others, max_events_per_day=max_events_per_day, run_date=run_date
                )
                writer.write(pl.concat([part.rewritten, deduplicated.kept]), part.day)
                merged.add(part, deduplicated)
                bots.append(deduplicated.refused)
        return Change(writer.files, stale["path"].to_list())

    lake.change(INTERACTIONS, change_interactions, content=content)
    replace_quarantine(lake, [refused, bots], sources, content=content)
    bots.discard()
    return merged


def replace_quarantine(
    lake: Lake, spools: Collection[Spool], sources: Collection[str], *, content: str
) -> None:
    """Replace all rows of `sources` in the quarantine, in one commit.

    Args:
        lake: The lake.
        spools: The new rows.
        sources: Names of the files.
        content: Identifies the rows, see `Lake.change`.
    """

    def change(snapshot: Snapshot) -> Change:
        stale = _stale(snapshot, sources)
        added: list[AddAction] = []
        for path in stale["path"]:
            others = snapshot.read_file(path).filter(~pl.col("source").is_in(list(sources)))
            added += snapshot.write(others.collect())
        for piece in (rows for spool in spools for day in spool.keys for rows in spool.pieces(day)):
            added += snapshot.write(piece)
        return Change(added, stale["path"].to_list())

    lake.change(QUARANTINE, change, content=content)


@dataclass(frozen=True)
class _PartitionSlice:
    """Those rows of a date that are deduplicated together.

    Attributes:
        day: The date.
        new: The batch's rows.
        others: Keys of the lake's rows from other files.
        before: Keys of the lake's rows from the batch's files.
        rewritten: The lake's rows from other files that share a data file with `before`.
    """

    day: date
    new: pl.DataFrame
    others: pl.DataFrame
    before: pl.DataFrame
    rewritten: pl.DataFrame


def _partition_slices(
    snapshot: Snapshot, valid: Spool, stale: pl.DataFrame, sources: Collection[str], day: date
) -> Iterator[_PartitionSlice]:
    """The rows of a date in slices of bounded size, by a hash of the user."""
    files = snapshot.files().filter(pl.col("date") == day)
    n_parts = 1 + (valid.rows_of(day) + int(files["rows"].sum())) // ROWS_AT_ONCE
    in_lake = _lake_rows(snapshot, files["path"], day)
    in_stale = _lake_rows(snapshot, stale.filter(pl.col("date") == day)["path"], day)
    ours = pl.col("source").is_in(list(sources))
    for number in range(n_parts):
        part_of_user = pl.col("user_id").hash() % n_parts
        mine = part_of_user == number if n_parts > 1 else pl.lit(value=True)
        keys = in_lake.select(*_KEY, "source").filter(mine).collect()
        yield _PartitionSlice(
            day=day,
            new=valid.scan(day).filter(mine).collect(),
            others=keys.filter(~ours).select(_KEY),
            before=keys.filter(ours).select(_KEY),
            rewritten=in_stale.filter(mine & ~ours).collect(),
        )


def _lake_rows(snapshot: Snapshot, paths: Iterable[str], day: date) -> pl.LazyFrame:
    empty = pl.LazyFrame(schema=INTERACTIONS.schema)
    rows = (snapshot.read_file(path).with_columns(date=pl.lit(day)) for path in paths)
    return pl.concat([empty, *(part.select(INTERACTIONS.schema.names()) for part in rows)])


def _stale(snapshot: Snapshot, sources: Collection[str]) -> pl.DataFrame:
    """The data files that hold rows of these sources."""
    names, files = sorted(sources), snapshot.files()
    ranges = files.select("first_source", "last_source").iter_rows()
    possible = [bisect_left(names, low) < bisect_right(names, high) for low, high in ranges]
    candidates = files.filter(pl.Series(possible, dtype=pl.Boolean))
    held = [
        snapshot.read_file(path).select(pl.col("source").is_in(names).any()).collect().item()
        for path in candidates["path"]
    ]
    return candidates.filter(pl.Series(held, dtype=pl.Boolean))
