"""A spool of rows on the disk: appended in any order, read back by key, for example by date."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

ROWS_IN_MEMORY = 4_000_000
_REPETITIVE = ("source", "event_type")  # few distinct values: stored as a dictionary


class Spool:
    """Rows by a key such as their date, in bounded memory.

    Rows beyond `rows_in_memory` are written to the disk in the background.

    Args:
        folder: Folder for the rows on the disk; deleted first.
        schema: Schema of the rows.
        key: Column by which the rows are read back.
        rows_in_memory: Number of rows that are held before they are written.
    """

    def __init__(
        self,
        folder: Path,
        schema: pl.Schema,
        *,
        key: str = "date",
        rows_in_memory: int = ROWS_IN_MEMORY,
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._schema = schema
        self._key = key
        self._rows_in_memory = rows_in_memory
        self._waiting: dict[Any, list[pl.DataFrame]] = defaultdict(list)
        self._files: dict[Any, list[Path]] = defaultdict(list)
        self._rows = Counter[Any]()
        self._n_waiting = 0
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._written: Future[None] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows of all keys."""
        return self._rows.total()

    @property
    def keys(self) -> list[Any]:
        """The keys of all rows, sorted."""
        return sorted(self._rows)

    def rows_of(self, key: Any) -> int:
        """Number of rows of a key."""
        return self._rows[key]

    def append(self, rows: pl.DataFrame) -> None:
        """Add rows."""
        parts = rows.partition_by(self._key, as_dict=True, maintain_order=True, include_key=False)
        for (key,), part in parts.items():
            self._waiting[key].append(part)
            self._rows[key] += part.height
        self._n_waiting += rows.height
        if self._n_waiting >= self._rows_in_memory:
            self._flush()

    def scan(self, key: Any) -> pl.LazyFrame:
        """The rows of a key, in the order of appending."""
        parts = self._parts(key)
        return pl.concat(parts) if parts else pl.LazyFrame(schema=self._schema)

    def pieces(self, key: Any) -> Iterator[pl.DataFrame]:
        """The rows of a key, in the order of appending, in pieces of bounded size."""
        yield from (part.collect() for part in self._parts(key))

    def discard(self) -> None:
        """Delete the rows on the disk."""
        self._writer.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _parts(self, key: Any) -> list[pl.LazyFrame]:
        self._wait_for_write()
        written = [pl.scan_ipc(path) for path in self._files[key]]
        parts = [*written, *(part.lazy() for part in self._waiting[key])]
        value = pl.lit(key, self._schema[self._key]).alias(self._key)
        names = self._schema.names()
        return [part.with_columns(value).select(names).cast(self._schema) for part in parts]

    def _flush(self) -> None:
        self._wait_for_write()
        self._folder.mkdir(parents=True, exist_ok=True)
        lot: dict[Path, list[pl.DataFrame]] = {}
        for key, parts in self._waiting.items():
            path = self._folder / f"{key}-{len(self._files[key]):05d}.arrow"
            self._files[key].append(path)
            lot[path] = parts
        self._written = self._writer.submit(_write, lot)
        self._waiting = defaultdict(list)
        self._n_waiting = 0

    def _wait_for_write(self) -> None:
        """Wait until the rows before are on the disk; raises what their writing raised."""
        if self._written is not None:
            written, self._written = self._written, None
            written.result()


def _write(lot: Mapping[Path, Sequence[pl.DataFrame]]) -> None:
    for path, parts in lot.items():
        # Uncompressed: it is read back soon, and compressing would take longer than writing.
        rows = pl.concat(parts)
        repetitive = [name for name in _REPETITIVE if rows.schema.get(name) == pl.String]
        rows.with_columns(pl.col(repetitive).cast(pl.Categorical)).write_ipc(
            path, compression="uncompressed"
        )
