"""The lake: Delta tables, written in steps that each happen once, however often they are tried.

Every write that brings a source's content carries a Delta application transaction (source →
fingerprint of the content), committed together with the data. So after a kill it is known which
table holds what, and a rerun makes no second commit. Readers pin a table's version.
"""

from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction

from recsys_core.data.schema import ITEM_INDEX, SOURCES, TABLES, Table

_FINGERPRINT_HEX_DIGITS = 15


class Lake:
    """The tables of `recsys_core.data.schema` in one folder.

    Args:
        folder: Where the tables are; missing ones are created empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for table in TABLES:
            if not DeltaTable.is_deltatable(self._path(table.name)):
                self._create(table)

    def version(self, table: str) -> int:
        """The newest version of a table."""
        return DeltaTable(self._path(table)).version()

    def scan(self, table: str, version: int | None = None) -> pl.LazyFrame:
        """A table, lazily.

        Args:
            table: Name of the table.
            version: The version to read; None reads the newest, for writers only.
        """
        return pl.scan_delta(self._path(table), version=version)

    def item_index(self, version: int | None = None) -> pl.DataFrame:
        """The item index in the order of item_idx, so that row r has item_idx r + 1."""
        return self.scan(ITEM_INDEX.name, version).collect().sort("item_idx")

    def sources(self) -> pl.DataFrame:
        """The log of what was ingested, sorted by source."""
        return self.scan(SOURCES.name).collect().sort("source")

    def replace_source(
        self, table: Table, frame: pl.DataFrame, *, source: str, content: str
    ) -> None:
        """Make `frame` all that a table holds of a source, in one commit, at most once.

        Args:
            table: A table with the column `source`.
            frame: Its new rows of this source; may be empty.
            source: Name of the source.
            content: What identifies the content; the same as last time: nothing happens.
        """
        stored = self._transaction(table.name, source)
        if stored == _fingerprint(content) or (stored is None and frame.is_empty()):
            return
        if stored is None:
            self._write(table, frame, mode="append", source=source, content=content)
            return
        quoted = source.replace("'", "''")
        self._write(
            table,
            frame,
            mode="overwrite",
            source=source,
            content=content,
            predicate=f"source = '{quoted}'",
        )

    def upsert_items(self, table: Table, frame: pl.DataFrame, *, source: str, content: str) -> None:
        """Store the latest row of each item, in one commit, at most once.

        Args:
            table: The items table.
            frame: One row an item; columns that the table lacks are added to it.
            source: Name of the catalogue file.
            content: What identifies the content; the same as last time: nothing happens.
        """
        if self._transaction(table.name, source) == _fingerprint(content):
            return
        others = self.scan(table.name).collect().join(frame, on="item_id", how="anti")
        items = pl.concat([others, frame], how="diagonal_relaxed").sort("item_id")
        self._write(
            table, items, mode="overwrite", source=source, content=content, schema_mode="overwrite"
        )

    def append_items_to_index(self, entries: pl.DataFrame) -> None:
        """Append to the item index; none: no commit."""
        if not entries.is_empty():
            entries.write_delta(self._path(ITEM_INDEX.name), mode="append")

    def write_sources(self, log: pl.DataFrame) -> None:
        """Replace the log of what was ingested."""
        log.sort("source").write_delta(self._path(SOURCES.name), mode="overwrite")

    def _path(self, table: str) -> str:
        return str(self._folder / table)

    def _create(self, table: Table) -> None:
        partitions = [table.partition_by] if table.partition_by else None
        pl.DataFrame(schema=table.schema).write_delta(
            self._path(table.name), delta_write_options={"partition_by": partitions}
        )

    def _transaction(self, table: str, source: str) -> int | None:
        return DeltaTable(self._path(table)).transaction_version(source)

    def _write(
        self,
        table: Table,
        frame: pl.DataFrame,
        *,
        mode: str,
        source: str,
        content: str,
        **options: str,
    ) -> None:
        transaction = Transaction(source, _fingerprint(content))
        frame.write_delta(
            self._path(table.name),
            mode=mode,  # pyright: ignore[reportArgumentType]
            delta_write_options={
                "commit_properties": CommitProperties(app_transactions=[transaction]),
                **options,
            },
        )


def _fingerprint(content: str) -> int:
    """A transaction's version is a signed 64-bit number: the leading 60 bits of a hex digest."""
    return int(content[:_FINGERPRINT_HEX_DIGITS], 16)
