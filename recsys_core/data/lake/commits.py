"""Commits to a table of the lake: all of a change or nothing of it, and never a lost update.

A commit names the version that its change was computed from. It fails if there is a newer version,
so two writers can't lose each other's rows: the second one computes its change again. The lock of
the workspace is no substitute. It stops a second run of this project, but not another program that
commits to a table, for example one that compacts it.

`recsys_core` reads no clock, with this exception: a commit holds the time of its writing, which
vacuum counts from, as those of Delta's own writers do. Data files have random names. Neither
reaches the rows or the key of a stage.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any, Self, cast

import polars as pl
from deltalake import CommitProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from recsys_core.data.lake.snapshot import LABEL, Snapshot

_WRITER = "recdistill"
_FINGERPRINT_HEX_DIGITS = 15


class LakeChangedError(RuntimeError):
    """Another writer has committed to the table since it was read."""


@dataclass(frozen=True)
class Change:
    """What a commit does to a table.

    Attributes:
        add: Data files that were written for the commit.
        remove: Paths of data files whose rows leave the table.
        schema: The table's columns from now on, if they change; all of its earlier data files
            then leave it.
    """

    add: Sequence[AddAction] = ()
    remove: Sequence[str] = ()
    schema: pl.Schema | None = None


class Writer:
    """Writes data files in the background while the next rows are computed.

    Attributes:
        files: The files that were written; complete after the `with` block.
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

    def write(self, rows: pl.DataFrame, partition: date | None = None) -> None:
        """Write as `Snapshot.write` does; first waits until the rows before are written."""
        self._wait_for_write()
        self._pending = self._pool.submit(self._snapshot.write, rows, partition)

    def _wait_for_write(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.files += pending.result()


def rewritten(
    snapshot: Snapshot, test: pl.Expr, new_rows: Callable[[pl.LazyFrame], pl.LazyFrame]
) -> Change:
    """Rewrite the data files that hold rows which pass a test; all others stay untouched.

    `DeltaTable.delete` and `DeltaTable.update` can't do this: they write their predicate into the
    table's log, where a user id would stay in plain text for good.

    Args:
        snapshot: The table.
        test: True for the rows that change.
        new_rows: From all rows of such a file to those that replace them.
    """
    added: list[AddAction] = []
    removed: list[str] = []
    for path, day in snapshot.files().select("path", "date").iter_rows():
        rows = snapshot.read_file(path)
        if rows.select(test.any()).collect().item():
            added += snapshot.write(new_rows(rows).collect(), day)
            removed.append(path)
    return Change(added, removed)


def commit(snapshot: Snapshot, change: Change, *, content: str | None, label: str | None) -> None:
    """Commit a change to the version that it was computed from; an empty one is no commit.

    Args:
        snapshot: That version.
        change: The change.
        content: See `Lake.change`.
        label: See `Lake.change`.

    Raises:
        LakeChangedError: There is a newer version.
    """
    mark = None if content is None else int(content[:_FINGERPRINT_HEX_DIGITS], 16)
    done = mark is not None and snapshot.delta.transaction_version(_WRITER) == mark
    if done:
        _discard(snapshot, change)
    if done or not (change.add or change.remove or change.schema):
        return
    partition = snapshot.table.partition_by
    now = time.time_ns() // 1_000_000
    removed = [
        RemoveAction(path, data_change=True, deletion_timestamp=now) for path in change.remove
    ]
    try:
        snapshot.delta.create_write_transaction(
            [*change.add, *removed],
            mode="overwrite" if change.schema else "append",
            schema=delta_schema(change.schema) if change.schema else snapshot.delta.schema(),
            partition_by=[partition] if partition else [],
            commit_properties=CommitProperties(
                max_commit_retries=0,
                app_transactions=[] if mark is None else [Transaction(_WRITER, mark)],
                custom_metadata=None if label is None else {LABEL: label},
            ),
        )
    except CommitFailedError as error:
        _discard(snapshot, change)
        raise LakeChangedError(str(error)) from error


def delta_schema(schema: pl.Schema) -> Schema:
    """Columns as Delta describes them."""
    arrow = cast("Any", pl.DataFrame(schema=schema).to_arrow())
    return Schema.from_arrow(arrow.schema)


def _discard(snapshot: Snapshot, change: Change) -> None:
    for action in change.add:
        (snapshot.path / action.path).unlink(missing_ok=True)
