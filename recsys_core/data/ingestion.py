"""Files into the lake: what is new is cleaned and stored, what is known is left alone.

A file is known by its name and recorded with the hash of its bytes and of the settings by which it
was read. A changed file replaces exactly its own rows. A record stays unvalidated, and therefore
counts as new, until a night has validated it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date

import polars as pl

from recsys_core.artifacts import digest
from recsys_core.data.cleaning import clean_interactions, drop_known
from recsys_core.data.item_index import new_entries
from recsys_core.data.items import clean_items
from recsys_core.data.judging import Cleaned
from recsys_core.data.lake import Lake
from recsys_core.data.readers import read_source
from recsys_core.data.schema import AFTER_RUN_DATE, INTERACTIONS, ITEMS, QUARANTINE, SOURCES
from recsys_core.data.sources import SourceConfig, SourceError, SourceFile, checksum


@dataclass(frozen=True)
class SourceRecord:
    """How a file was last ingested: a row of the table `sources`.

    Attributes:
        source: Its name.
        ordinal: Its place among all files ever ingested, from 0.
        sha256: Of its bytes.
        mapping: Digest of the settings by which it was read.
        run_date: Of the night that read it.
        rows_in: Its rows; the sum of the three that follow.
        rows_kept: Rows that went to the lake.
        rows_quarantined: Rows that were refused.
        rows_duplicate: Rows that were there already.
        reasons: Refused rows by reason, as JSON.
        dates: The dates of the kept rows, sorted.
        validated: Whether a night has found its rows valid.
    """

    source: str
    ordinal: int
    sha256: str
    mapping: str
    run_date: date
    rows_in: int
    rows_kept: int
    rows_quarantined: int
    rows_duplicate: int
    reasons: str
    dates: list[date]
    validated: bool = False

    @property
    def is_interactions(self) -> bool:
        """Whether it is a file of interactions, not of items."""
        return self.source.startswith(f"{INTERACTIONS.name}/")

    @property
    def refused(self) -> dict[str, int]:
        """Refused rows by reason."""
        return json.loads(self.reasons)

    def is_current(self, sha256: str, mapping: str, run_date: date) -> bool:
        """Whether the file need not be read again: nothing changed, and no row's time has come."""
        waiting = AFTER_RUN_DATE in self.refused and self.run_date < run_date
        return self.sha256 == sha256 and self.mapping == mapping and not waiting


def read_records(lake: Lake) -> dict[str, SourceRecord]:
    """All records by source, sorted."""
    return {row["source"]: SourceRecord(**row) for row in lake.sources().to_dicts()}


def write_records(lake: Lake, records: Mapping[str, SourceRecord]) -> None:
    """Replace all records."""
    rows = [asdict(record) for record in records.values()]
    lake.write_sources(pl.DataFrame(rows, schema=SOURCES.schema))


def ingest_file(
    lake: Lake, source: SourceFile, config: SourceConfig, *, sha256: str, run_date: date
) -> SourceRecord:
    """Bring one file's rows to the lake, unless it is there as it is.

    Args:
        lake: Where to.
        source: The file.
        config: How to read it.
        sha256: Of the bytes that the night has decided to read.
        run_date: The night's date.

    Raises:
        SourceError: The file can't be read, or has changed since the night began.
    """
    records = read_records(lake)
    mapping = config.mapping(source.table)
    record = records.get(source.name)
    if record is not None and record.is_current(sha256, mapping, run_date):
        return record
    if checksum(source.path) != sha256:
        msg = f"{source.path} changed while the night was running. Run the night again."
        raise SourceError(msg)
    ordinal = (
        record.ordinal
        if record is not None
        else max((other.ordinal for other in records.values()), default=-1) + 1
    )
    cleaned = _clean(lake, source, config, ordinal=ordinal, run_date=run_date)
    _check_balance(source, cleaned)
    content = digest([sha256, mapping, run_date])
    if source.table == INTERACTIONS.name:
        lake.replace_source(INTERACTIONS, cleaned.kept, source=source.name, content=content)
    else:
        lake.upsert_items(ITEMS, cleaned.kept, source=source.name, content=content)
    lake.replace_source(QUARANTINE, cleaned.quarantined, source=source.name, content=content)
    record = SourceRecord(
        source=source.name,
        ordinal=ordinal,
        sha256=sha256,
        mapping=mapping,
        run_date=run_date,
        rows_in=cleaned.n_rows,
        rows_kept=cleaned.kept.height,
        rows_quarantined=cleaned.quarantined.height,
        rows_duplicate=cleaned.n_duplicates,
        reasons=json.dumps(cleaned.reasons, sort_keys=True),
        dates=_dates(source, cleaned),
    )
    write_records(lake, records | {source.name: record})
    return record


def withdraw_missing(lake: Lake, present: Iterable[str]) -> list[str]:
    """Take back interactions of files that never passed validation and are no longer there.

    This is how a user gets rid of a bad export: remove the file (or correct it). Files that were
    validated stay in the lake when they are gone.

    Returns:
        Names of the files that were withdrawn.
    """
    records = read_records(lake)
    names = set(present)
    gone = [name for name, record in records.items() if not record.validated and name not in names]
    for name in gone:
        content = digest(["withdrawn", name])
        for table in (INTERACTIONS, QUARANTINE):
            lake.replace_source(
                table, pl.DataFrame(schema=table.schema), source=name, content=content
            )
    if gone:
        write_records(lake, {name: kept for name, kept in records.items() if name not in gone})
    return gone


def extend_item_index(lake: Lake, new: Iterable[SourceRecord]) -> None:
    """Append the items that the catalogue and the new files bring to the item index."""
    new = list(new)
    if not new:
        return
    dates = sorted({day for record in new for day in record.dates})
    names = [record.source for record in new if record.is_interactions]
    seen = (
        lake.scan(INTERACTIONS.name)
        .filter(pl.col("date").is_in(dates), pl.col("source").is_in(names))
        .group_by("item_id")
        .agg(pl.col("timestamp").min().alias("first_seen"))
    )
    catalogue = lake.scan(ITEMS.name).select("item_id", first_seen="available_from")
    candidates = pl.concat([seen.collect(), catalogue.collect()])
    lake.append_items_to_index(new_entries(lake.item_index(), candidates))


def mark_validated(lake: Lake, validated: Mapping[str, str]) -> None:
    """Record that the content of these files was found valid.

    Args:
        lake: Whose records to change.
        validated: Source name to the SHA-256 of what was validated.
    """
    records = read_records(lake)
    passed = {
        name: replace(record, validated=True)
        for name, record in records.items()
        if not record.validated and validated.get(name) == record.sha256
    }
    if passed:
        write_records(lake, records | passed)


def _clean(
    lake: Lake, source: SourceFile, config: SourceConfig, *, ordinal: int, run_date: date
) -> Cleaned:
    raw = read_source(source, config)
    if source.table == ITEMS.name:
        return clean_items(raw, config, source=source.name, run_date=run_date)
    cleaned = clean_interactions(
        raw, config, source=source.name, ordinal=ordinal, run_date=run_date
    )
    others = lake.scan(INTERACTIONS.name).filter(pl.col("source") != source.name)
    return drop_known(cleaned, others)


def _check_balance(source: SourceFile, cleaned: Cleaned) -> None:
    parts = (cleaned.kept.height, cleaned.quarantined.height, cleaned.n_duplicates)
    if sum(parts) != cleaned.n_rows:
        msg = (
            f"{source.path}: {cleaned.n_rows} rows went in, but {parts[0]} kept, {parts[1]} "
            f"quarantined and {parts[2]} duplicate rows came out. Nothing was stored; this is a "
            "defect of the cleaning, please report it with the file."
        )
        raise RuntimeError(msg)


def _dates(source: SourceFile, cleaned: Cleaned) -> list[date]:
    if source.table != INTERACTIONS.name:
        return []
    return cleaned.kept["date"].unique().sort().to_list()
