"""The ingest log: one entry per source file, as it was last read."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date

import polars as pl

from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import AFTER_RUN_DATE, INTERACTIONS, SOURCES
from recsys_core.data.sources.config import SourceFile


@dataclass(frozen=True)
class IngestedFile:
    """How a file was last ingested: a row of the table `sources`.

    Attributes:
        source: Name of the file.
        ordinal: Number of the file among all files ever seen, from 0.
        run_date: Run date of the night that read it.
        fingerprint: Fingerprint of the content; empty if it was not read yet.
        stamp: Stamp of the file when it was read. While the stamp is the same, the content is
            assumed to be the same.
        mapping: Digest of the settings that it was read with.
        rows_in: Number of rows; the sum of the three that follow.
        rows_kept: Number of rows added to the lake.
        rows_quarantined: Number of refused rows.
        rows_duplicate: Number of rows that were duplicates.
        reasons: Number of refused rows by reason, as JSON.
        dates: Dates of the rows that were not refused, sorted.
        validated: Whether the rows have passed the validation of a night.
    """

    source: str
    ordinal: int
    run_date: date
    fingerprint: str = ""
    stamp: str = ""
    mapping: str = ""
    rows_in: int = 0
    rows_kept: int = 0
    rows_quarantined: int = 0
    rows_duplicate: int = 0
    reasons: str = "{}"
    dates: list[date] = field(default_factory=list[date])
    validated: bool = False

    @property
    def is_interactions(self) -> bool:
        """Whether the file has interactions, not items."""
        return self.source.startswith(f"{INTERACTIONS.name}/")

    @property
    def refused(self) -> dict[str, int]:
        """Number of refused rows by reason."""
        return json.loads(self.reasons)

    def is_current(self, fingerprint: str, mapping: str, run_date: date) -> bool:
        """Whether the file need not be read again: unchanged, and none of its early rows is due."""
        waiting = AFTER_RUN_DATE in self.refused and self.run_date < run_date
        return self.fingerprint == fingerprint and self.mapping == mapping and not waiting


IngestLog = dict[str, IngestedFile]
"""Its entries by source name."""


def read_ingest_log(lake: Lake) -> IngestLog:
    """All entries, sorted by source."""
    return ingest_log_of(lake.ingest_log())


def known_files(lake: Lake) -> dict[str, tuple[str, str]]:
    """Stamp and fingerprint of each file when it was last read."""
    return {
        name: (entry.stamp, entry.fingerprint)
        for name, entry in read_ingest_log(lake).items()
        if entry.fingerprint
    }


def register_files(lake: Lake, sources: Iterable[SourceFile], *, run_date: date) -> IngestLog:
    """Add entries for files that were never seen before; they get ordinals in the given order.

    Returns:
        All entries, sorted by source.
    """
    names = [source.name for source in sources]

    def with_new(entries: IngestLog) -> IngestLog:
        after = 1 + max((entry.ordinal for entry in entries.values()), default=-1)
        new = [name for name in names if name not in entries]
        return entries | {
            name: IngestedFile(name, ordinal, run_date)
            for ordinal, name in enumerate(new, start=after)
        }

    _rewrite(lake, with_new)
    return read_ingest_log(lake)


def update_ingest_log(lake: Lake, changed: Iterable[IngestedFile]) -> None:
    """Replace the entries of some files."""
    by_name = {entry.source: entry for entry in changed}
    _rewrite(lake, lambda entries: entries | by_name)


def remove_from_ingest_log(lake: Lake, names: Iterable[str]) -> None:
    """Delete the entries of some files."""
    gone = set(names)
    _rewrite(
        lake, lambda entries: {name: kept for name, kept in entries.items() if name not in gone}
    )


def mark_validated(lake: Lake, validated: Mapping[str, str]) -> None:
    """Mark files as validated.

    Args:
        lake: The lake.
        validated: Source name to the fingerprint of the validated content.
    """

    def passed(entries: IngestLog) -> IngestLog:
        return {
            name: replace(entry, validated=True)
            if entry.fingerprint and validated.get(name) == entry.fingerprint
            else entry
            for name, entry in entries.items()
        }

    _rewrite(lake, passed)


def _rewrite(lake: Lake, change: Callable[[IngestLog], IngestLog]) -> None:
    def rows(log: pl.DataFrame) -> pl.DataFrame:
        changed = [asdict(entry) for entry in change(ingest_log_of(log.sort("source"))).values()]
        return pl.DataFrame(changed, schema=SOURCES.schema).sort("source")

    lake.rewrite(SOURCES, rows)


def ingest_log_of(log: pl.DataFrame) -> IngestLog:
    """The rows of the table `sources` as entries."""
    return {row["source"]: IngestedFile(**row) for row in log.to_dicts()}
