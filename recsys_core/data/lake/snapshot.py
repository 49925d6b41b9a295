"""One version of a table of the lake: its rows, its data files, and new data files for it."""

import json
from datetime import date
from pathlib import Path
from uuid import uuid4

import polars as pl
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from recsys_core.data.schema import Table

ROWS_IN_FILE = 5_000_000
"""Most rows of one data file."""

MAINTENANCE = "maintenance"
"""Label of a commit that only deletes rows or texts for privacy's sake."""

LABEL = "recdistill"
"""Key of the label in a commit's metadata."""


class Snapshot:
    """One version of a table.

    Args:
        path: Folder of the table.
        table: Its definition.
        version: Its version; None takes the newest.
    """

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
            commit.get(LABEL) == MAINTENANCE or str(commit["operation"]).startswith("VACUUM")
            for commit in commits
        )

    def scan(self) -> pl.LazyFrame:
        """The table's rows, lazily."""
        return pl.scan_delta(str(self.path), version=self.version)

    def files(self) -> pl.DataFrame:
        """The table's data files, one per row, with the smallest and largest values in each.

        Returns:
            `path`, `rows`, `bytes`, `date` (the partition), `first_source`, `last_source`,
            `first_arrival` and `last_arrival`; null where the table has no such column.
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

    def write(self, rows: pl.DataFrame, partition: date | None = None) -> list[AddAction]:
        """Write data files; no reader sees them until they are committed.

        Args:
            rows: Rows of the table, any number; the partition column may be missing.
            partition: The partition of these rows, where the table has partitions.
        """
        pieces = rows.iter_slices(ROWS_IN_FILE)
        return [self._write_file(piece, partition) for piece in pieces]

    def _write_file(self, rows: pl.DataFrame, partition: date | None) -> AddAction:
        column = self.table.partition_by
        values = {column: str(partition)} if column else {}
        folder = self.path.joinpath(*(f"{key}={value}" for key, value in values.items()))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"part-{uuid4()}.parquet"
        stored = rows.drop(column, strict=False) if column else rows
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


def _statistics(rows: pl.DataFrame) -> dict[str, object]:
    """Delta's statistics of a data file. The log is plain text, so no column with user ids."""
    names = [name for name in ("source", "arrival") if name in rows.columns]
    return {
        "numRecords": rows.height,
        "minValues": {name: rows[name].min() for name in names},
        "maxValues": {name: rows[name].max() for name in names},
        "nullCount": dict.fromkeys(names, 0),
    }


def _column(frame: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Expr:
    return pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype)
