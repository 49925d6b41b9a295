"""The lake: Delta tables, changed in commits that are whole or not at all.

Data files are written by Polars, which is several times faster than Delta's own writer, and then
committed. A commit names the version that it was computed from and fails if there is a newer one,
so that two writers can't lose each other's rows: whoever is second computes again. Readers pin a
table's version.
"""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self, cast
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from recsys_core.data.schema import ITEM_INDEX, SOURCES, TABLES, Table

ROWS_IN_FILE = 5_000_000
"""Most rows of one data file."""

MAINTENANCE = "maintenance"
"""Label of a commit that takes rows for privacy's sake and brings none."""

_LABEL = "recdistill"
_TRIES = 20
_WRITER = "recdistill"
_FINGERPRINT_HEX_DIGITS = 15


class LakeChangedError(RuntimeError):
    """Another writer has committed to the table since it was read."""


@dataclass(frozen=True)
class Change:
    """What a commit does to a table.

    Attributes:
        add: Data files that were written for it.
        remove: Paths of data files whose rows leave the table.
        schema: Columns of the table from now on, if they change; then all data files that it had
            leave it.
    """

    add: Sequence[AddAction] = ()
    remove: Sequence[str] = ()
    schema: pl.Schema | None = None


class NoLakeError(ValueError):
    """There is no lake where one was looked for."""


class VersionGoneError(ValueError):
    """A version of a table that can't be read any more."""


class Snapshot:
    """One version of a table."""

    def __init__(self, path: Path, table: Table, version: int | None = None) -> None:
        self.table = table
        self.path = path
        self.delta = DeltaTable(str(path), version=version)

    @property
    def version(self) -> int:
        """The version's number."""
        return self.delta.version()

    def only_maintained_since(self, version: int) -> bool:
        """Whether nothing but maintenance has changed the table since an earlier version."""
        n_commits = self.version - version
        commits = self.delta.history(n_commits) if n_commits > 0 else []
        return len(commits) == n_commits and all(
            commit.get(_LABEL) == MAINTENANCE or str(commit["operation"]).startswith("VACUUM")
            for commit in commits
        )

    def scan(self) -> pl.LazyFrame:
        """Its rows, lazily."""
        return pl.scan_delta(str(self.path), version=self.version)

    def files(self) -> pl.DataFrame:
        """Its data files: `path`, `rows`, `bytes`, and what is least and greatest in them.

        `date` is the partition. `date`, `first_source`, `last_source`, `first_arrival` and
        `last_arrival` are null where the table has no such column.
        """
        actions = pl.DataFrame(self.delta.get_add_actions(flatten=True))
        partition = f"partition.{self.table.partition_by}"
        return actions.select(
            pl.col("path").cast(pl.String),
            pl.col("num_records").cast(pl.Int64).alias("rows"),
            pl.col("size_bytes").cast(pl.Int64).alias("bytes"),
            _column(actions, partition, pl.Date()).alias("date"),
            _column(actions, "min.source", pl.String()).alias("first_source"),
            _column(actions, "max.source", pl.String()).alias("last_source"),
            _column(actions, "min.arrival", pl.Int64()).alias("first_arrival"),
            _column(actions, "max.arrival", pl.Int64()).alias("last_arrival"),
        )

    def read_file(self, path: str) -> pl.LazyFrame:
        """The rows of one data file, without the partition column."""
        return pl.scan_parquet(self.path / path, glob=False, hive_partitioning=False)

    def write(self, rows: pl.DataFrame, part: date | None = None) -> list[AddAction]:
        """Write data files that nobody sees until they are committed.

        Args:
            rows: Rows of the table, any number; their partition column may be missing.
            part: The partition that they belong to, in a table that has partitions.
        """
        return [self._write_file(piece, part) for piece in rows.iter_slices(ROWS_IN_FILE)]

    def _write_file(self, rows: pl.DataFrame, part: date | None) -> AddAction:
        partition = self.table.partition_by
        values = {partition: str(part)} if partition else {}
        folder = self.path.joinpath(*(f"{key}={value}" for key, value in values.items()))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"part-{uuid4()}.parquet"
        stored = rows.drop(partition, strict=False) if partition else rows
        stored.write_parquet(path, compression="zstd")
        state = path.stat()
        return AddAction(
            path=path.relative_to(self.path).as_posix(),
            size=state.st_size,
            partition_values=values,
            modification_time=int(state.st_mtime * 1000),
            data_change=True,
            stats=json.dumps(_statistics(rows)),
        )


class Writer:
    """Writes data files in the background, one lot at a time, while the next is computed.

    Attributes:
        files: What was written; whole after the `with` block.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.files: list[AddAction] = []
        self._snapshot = snapshot
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[list[AddAction]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._pool:
            self._wait_for_write()

    def write(self, rows: pl.DataFrame, part: date | None = None) -> None:
        """See `Snapshot.write`; waits until the lot before is written."""
        self._wait_for_write()
        self._pending = self._pool.submit(self._snapshot.write, rows, part)

    def _wait_for_write(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.files += pending.result()


class Lake:
    """The tables of `recsys_core.data.schema` in one folder.

    Args:
        folder: Where the tables are; missing ones are created empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for table in TABLES:
            if not DeltaTable.is_deltatable(str(self._folder / table.name)):
                self._create(table)

    def version(self, table: str) -> int:
        """The newest version of a table."""
        return DeltaTable(str(self._folder / table)).version()

    def scan(self, table: str, version: int | None = None) -> pl.LazyFrame:
        """A table, lazily.

        Args:
            table: Name of the table.
            version: The version to read; None reads the newest, for writers only.
        """
        return pl.scan_delta(str(self._folder / table), version=version)

    def snapshot(self, table: Table, version: int | None = None) -> Snapshot:
        """A version of a table, by default the newest.

        Where nothing has happened since a version but maintenance, the newest is taken for it: it
        differs in the rows of users who must be forgotten only.

        Raises:
            VersionGoneError: The version's data files were deleted.
        """
        newest = Snapshot(self._folder / table.name, table)
        if version is None or newest.only_maintained_since(version):
            return newest
        pinned = Snapshot(self._folder / table.name, table, version)
        if not all((pinned.path / path).exists() for path in pinned.files()["path"]):
            msg = (
                f"Version {version} of the table {table.name} is gone: old versions were deleted "
                "since (by `recdistill data forget` or `recdistill data clean`). Delete the folder "
                "stages/ingest of the workspace and run the night again: it takes the newest one."
            )
            raise VersionGoneError(msg)
        return pinned

    def item_index(self, version: int | None = None) -> pl.DataFrame:
        """The item index in the order of item_idx, so that row r has item_idx r + 1."""
        return self.scan(ITEM_INDEX.name, version).collect().sort("item_idx")

    def ingest_log(self) -> pl.DataFrame:
        """The log of what was ingested, sorted by source."""
        return self.scan(SOURCES.name).collect().sort("source")

    def change(
        self,
        table: Table,
        decide: Callable[[Snapshot], Change],
        *,
        content: str | None = None,
        label: str | None = None,
    ) -> None:
        """Read a table's newest version, decide what to change, commit; again if it has moved on.

        Args:
            table: The table.
            decide: Called with the newest version, and again for each newer one that another
                writer committed meanwhile. An empty change is no commit.
            content: What identifies the change; the same as that of the last commit that named
                one: it is not committed again. So a step that was killed after its commit can be
                repeated.
            label: Kept with the commit, see `MAINTENANCE`.

        Raises:
            LakeChangedError: Other writers were faster every time.
        """
        for _ in range(_TRIES):
            snapshot = self.snapshot(table)
            try:
                _commit(snapshot, decide(snapshot), content, label)
            except LakeChangedError:
                continue
            return
        raise LakeChangedError(self._overtaken(table))

    def append(self, table: Table, rows: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Append to a small table what `rows` makes of its content; no rows: no commit."""

        def decide(snapshot: Snapshot) -> Change:
            new = rows(snapshot.scan().collect())
            return Change(snapshot.write(new))

        self.change(table, decide)

    def rewrite(self, table: Table, rows: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Replace a small table's content by what `rows` makes of it; the same: no commit."""

        def decide(snapshot: Snapshot) -> Change:
            old = snapshot.scan().collect()
            new = rows(old)
            if new.equals(old):
                return Change()
            return Change(snapshot.write(new), snapshot.files()["path"].to_list())

        self.change(table, decide)

    def add_columns(self, table: Table, columns: pl.Schema) -> None:
        """Add those of the columns that a table lacks; its rows have null there.

        Raises:
            LakeChangedError: Other writers were faster every time.
        """
        for _ in range(_TRIES):
            delta = self.snapshot(table).delta
            known = {field.name for field in delta.schema().fields}
            new = {name: dtype for name, dtype in columns.items() if name not in known}
            if not new:
                return
            try:
                delta.alter.add_columns(_delta_schema(pl.Schema(new)).fields)
            except CommitFailedError:
                continue
            return
        raise LakeChangedError(self._overtaken(table))

    def _overtaken(self, table: Table) -> str:
        return (
            f"{self._folder / table.name} was changed by other writers {_TRIES} times in a row. "
            "Let one of them finish, then run the night again."
        )

    def _create(self, table: Table) -> None:
        partitions = [table.partition_by] if table.partition_by else None
        pl.DataFrame(schema=table.schema).write_delta(
            str(self._folder / table.name), delta_write_options={"partition_by": partitions}
        )


def require_lake(folder: Path) -> None:
    """Refuse a folder without tables.

    Raises:
        NoLakeError: Nothing was ingested there yet.
    """
    if not all(DeltaTable.is_deltatable(str(folder / table.name)) for table in TABLES):
        msg = f"There is no lake in {folder}: no night has ingested anything. Run a night first."
        raise NoLakeError(msg)


def _commit(
    snapshot: Snapshot, change: Change, content: str | None, label: str | None = None
) -> None:
    mark = None if content is None else int(content[:_FINGERPRINT_HEX_DIGITS], 16)
    done = mark is not None and snapshot.delta.transaction_version(_WRITER) == mark
    if done:
        _discard(snapshot, change)
    if done or not (change.add or change.remove or change.schema):
        return
    partition = snapshot.table.partition_by
    # As Delta's own writers do: vacuum counts from this moment, and nothing else reads it.
    now = time.time_ns() // 1_000_000
    removed = [
        RemoveAction(path, data_change=True, deletion_timestamp=now) for path in change.remove
    ]
    try:
        snapshot.delta.create_write_transaction(
            [*change.add, *removed],
            mode="overwrite" if change.schema else "append",
            schema=_delta_schema(change.schema) if change.schema else snapshot.delta.schema(),
            partition_by=[partition] if partition else [],
            commit_properties=CommitProperties(
                max_commit_retries=0,
                app_transactions=[] if mark is None else [Transaction(_WRITER, mark)],
                custom_metadata=None if label is None else {_LABEL: label},
            ),
        )
    except CommitFailedError as error:
        _discard(snapshot, change)
        raise LakeChangedError(str(error)) from error


def _discard(snapshot: Snapshot, change: Change) -> None:
    for action in change.add:
        (snapshot.path / action.path).unlink(missing_ok=True)


def _delta_schema(schema: pl.Schema) -> Schema:
    arrow = cast("Any", pl.DataFrame(schema=schema).to_arrow())
    return Schema.from_arrow(arrow.schema)


def _statistics(rows: pl.DataFrame) -> dict[str, object]:
    """Delta's statistics of a data file; none that could name a user, as they are plain text."""
    names = [name for name in ("source", "arrival") if name in rows.columns]
    return {
        "numRecords": rows.height,
        "minValues": {name: rows[name].min() for name in names},
        "maxValues": {name: rows[name].max() for name in names},
        "nullCount": dict.fromkeys(names, 0),
    }


def _column(frame: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Expr:
    return pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype)
