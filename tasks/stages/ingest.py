"""Ingest: source files to the lake's tables, at versions that the rest of the night reads."""

from collections import Counter
from collections.abc import Mapping
from datetime import date
from itertools import chain

from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.data.ingest.batch import ToRead
from recsys_core.data.ingest.clean_interactions import available_until
from recsys_core.data.ingest.interactions import (
    extend_event_types,
    ingest_interactions,
    may_lack_rows,
    withdraw_missing,
)
from recsys_core.data.ingest.items import extend_item_index, ingest_catalogue
from recsys_core.data.ingest.user_ids import UserIdPolicy
from recsys_core.data.lake.ingest_log import IngestedFile, read_ingest_log, register_files
from recsys_core.data.lake.tables import Lake
from recsys_core.data.privacy.denylist import read_denylist
from recsys_core.data.privacy.pseudonyms import claim_key
from recsys_core.data.schema import (
    EVENT_TYPES,
    INTERACTIONS,
    ITEM_INDEX,
    ITEMS,
    QUARANTINE,
    Table,
)
from recsys_core.data.sources.config import SourceConfig, SourceError, SourceFile
from recsys_core.data.sources.discovery import find_sources
from tasks.contracts.ingest import FileResult, IngestResult
from tasks.engine.night import ReadAgain
from tasks.engine.stage import StageRun, Summary, stage
from tasks.privacy.user_id_key import user_id_key

READ_TABLES = (INTERACTIONS, ITEMS, ITEM_INDEX, EVENT_TYPES, QUARANTINE)


@stage(output="ingested", version=1, libraries=("deltalake", "numpy", "polars", "pyarrow"))
def ingest(
    run: StageRun,
    config: SourceConfig,
    *,
    run_date: date,
    sources: dict[str, str],
    read_again: ReadAgain | None = None,
) -> Summary:
    """Read new and changed files into the lake, and extend the item index by their items.

    Writes `ingest.json`: the versions of the lake's tables, what became of each file, and which
    files are new, that is, not validated yet by any night.

    Args:
        run: The run of the stage; the lake is the night's.
        config: The sources.
        run_date: Only events before this date are read.
        sources: The files to read and the fingerprint of each, from `source_fingerprint`.
        read_again: Files to read once more though nothing about them has changed.

    Raises:
        SourceError: A file can't be read; the message says which, why and what to do.
        PseudonymError: The key for user ids is missing, too short, or not the lake's.
    """
    key = user_id_key(config.hash_user_ids)
    claim_key(run.lake, key)
    lake = Lake(run.lake)
    gone, vanished = withdraw_missing(lake, sources, run_date=run_date, scratch=run.scratch)
    for name in gone:
        run.logger.warning("%s is gone and was never validated: its rows are withdrawn", name)
    wanted = _wanted(config, sources)
    known = register_files(lake, wanted, run_date=run_date)
    files = [ToRead(source, known[source.name], sources[source.name]) for source in wanted]
    repeated = read_again.files if read_again else ()
    current = [
        file
        for file in files
        if file.name not in repeated and _is_current(file, config, run_date, vanished)
    ]
    are_current = {file.name for file in current}
    due = [file for file in files if file.name not in are_current]
    items = ingest_catalogue(
        lake,
        _of(ITEMS, due),
        config,
        others=_of(ITEMS, current),
        run_date=run_date,
        scratch=run.scratch,
    )
    interactions = ingest_interactions(
        lake,
        _of(INTERACTIONS, due),
        config,
        others=_of(INTERACTIONS, current),
        run_date=run_date,
        scratch=run.scratch,
        user_id_policy=UserIdPolicy(key, read_denylist(run.lake)),
        progress=run.progress,
    )
    for record in chain(items, interactions):
        run.logger.info("%s", _sentence(record))
    stored = read_ingest_log(lake)
    records = [stored[name] for name in sorted(sources)]
    new = [record for record in records if not record.validated]
    extend_event_types(lake, new)
    extend_item_index(lake, new)
    result = _result(lake, config, run_date, records)
    result.save(run.out)
    totals = ("rows_in", "rows_kept", "rows_quarantined", "rows_duplicate")
    return {
        "new_files": len(new),
        **{total: sum(getattr(record, total) for record in new) for total in totals},
        "n_items": result.n_items,
    }


def _of(table: Table, files: list[ToRead]) -> list[ToRead]:
    return [file for file in files if file.source.table == table.name]


def _is_current(file: ToRead, config: SourceConfig, run_date: date, vanished: set[date]) -> bool:
    """Whether the lake has all that a file brings."""
    mapping = config.mapping(file.source.table)
    current = file.entry.is_current(file.fingerprint, mapping, run_date)
    return current and not may_lack_rows(file.entry, vanished)


def _wanted(config: SourceConfig, sources: Mapping[str, str]) -> list[SourceFile]:
    """The files that the night began with; what has arrived since then is for the next one."""
    found = {source.name: source for source in find_sources(config)}
    for name in sources:
        if name not in found:
            msg = f"{name} was there when the night began, but is gone. Run the night again."
            raise SourceError(msg)
    return [source for name, source in found.items() if name in sources]


def _result(
    lake: Lake, config: SourceConfig, run_date: date, records: list[IngestedFile]
) -> IngestResult:
    new = [record for record in records if not record.validated]
    events = [record for record in new if record.is_interactions]
    index = lake.item_index()
    reasons = Counter[str]()
    for record in new:
        reasons.update(record.refused)
    return IngestResult(
        versions={table.name: lake.version(table.name) for table in READ_TABLES},
        files=tuple(_file_result(record) for record in records),
        reasons=dict(reasons),
        new_rows=sum(record.rows_kept for record in events),
        new_dates=tuple(sorted({day for record in events for day in record.dates})),
        n_items=index.height,
        item_index_sha256=index_prefix_sha256(index["item_id"]),
        timestamp_kind=config.resolved().timestamp_kind,
        run_date=run_date,
        available_until=available_until(run_date, config.timezone).isoformat(),
        max_quarantined_share=config.max_quarantined_share,
    )


def _file_result(record: IngestedFile) -> FileResult:
    return FileResult(
        source=record.source,
        fingerprint=record.fingerprint,
        new=not record.validated,
        rows_in=record.rows_in,
        rows_kept=record.rows_kept,
        rows_quarantined=record.rows_quarantined,
        rows_duplicate=record.rows_duplicate,
        reasons=record.refused,
    )


def _sentence(record: IngestedFile) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in record.refused.items())
    return (
        f"{record.source}: {record.rows_in} rows, {record.rows_kept} kept, "
        f"{record.rows_quarantined} quarantined{f' ({reasons})' if reasons else ''}, "
        f"{record.rows_duplicate} duplicate"
    )
