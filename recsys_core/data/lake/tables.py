"""The lake: a folder of Delta tables, changed in commits that are whole or not at all.

Polars writes the data files, several times faster than Delta's own writer, and a commit adds them
to the table. Readers pin a table's version.
"""

from collections.abc import Callable
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from recsys_core.data.lake.commits import Change, LakeChangedError, commit, delta_schema
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.schema import ITEM_INDEX, SOURCES, TABLES, Table

_TRIES = 20


class NoLakeError(ValueError):
    """The folder holds no lake."""


class VersionGoneError(ValueError):
    """A version of a table can't be read any more."""


class Lake:
    """The tables of `recsys_core.data.schema` in one folder.

    Args:
        folder: Folder of the tables; missing ones are created empty.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     lake = Lake(Path(folder))
        ...     interactions = lake.scan("interactions", version=lake.version("interactions"))
        ...     interactions.select("user_id", "item_id").collect()
        shape: (0, 2)
        ┌─────────┬─────────┐
        │ user_id ┆ item_id │
        │ ---     ┆ ---     │
        │ str     ┆ str     │
        ╞═════════╪═════════╡
        └─────────┴─────────┘
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
        """A table's rows, lazily.

        Args:
            table: Name of the table.
            version: The version to read; None reads the newest, which only writers should do.
        """
        return pl.scan_delta(str(self._folder / table), version=version)

    def snapshot(self, table: Table, version: int | None = None) -> Snapshot:
        """A version of a table, by default the newest.

        If only maintenance has changed the table since the version, this is the newest version: it
        differs only in the rows of users who must be forgotten.

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
        """The log of ingested files, sorted by source."""
        return self.scan(SOURCES.name).collect().sort("source")

    def change(
        self,
        table: Table,
        decide: Callable[[Snapshot], Change],
        *,
        content: str | None = None,
        label: str | None = None,
    ) -> None:
        """Compute a change from a table's newest version and commit it; again if it has moved on.

        Args:
            table: The table.
            decide: Called with the newest version, and again for each newer one that another
                writer committed meanwhile. An empty change is no commit.
            content: Identifies the change. If the last commit with a `content` had the same one,
                nothing is committed. So a step that was killed after its commit can be repeated.
            label: Kept with the commit, see `MAINTENANCE`.

        Raises:
            LakeChangedError: Other writers were faster every time.
        """
        for _ in range(_TRIES):
            snapshot = self.snapshot(table)
            try:
                commit(snapshot, decide(snapshot), content=content, label=label)
            except LakeChangedError:
                continue
            return
        raise LakeChangedError(self._overtaken(table))

    def append(self, table: Table, rows: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Append to a small table what `rows` returns for its content; no rows, no commit."""

        def decide(snapshot: Snapshot) -> Change:
            new = rows(snapshot.scan().collect())
            return Change(snapshot.write(new))

        self.change(table, decide)

    def rewrite(self, table: Table, rows: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Replace a small table's content by what `rows` returns for it; no change, no commit."""

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
                delta.alter.add_columns(delta_schema(pl.Schema(new)).fields)
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
    """Refuse a folder that is no lake.

    Raises:
        NoLakeError: No night has ingested anything there yet.
    """
    if not all(DeltaTable.is_deltatable(str(folder / table.name)) for table in TABLES):
        msg = f"There is no lake in {folder}: no night has ingested anything. Run a night first."
        raise NoLakeError(msg)
