"""Ingest of catalogue files, and the growth of the item index."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path

import polars as pl

from recsys_core.artifacts import digest
from recsys_core.data.catalogue.item_index import new_entries
from recsys_core.data.catalogue.versions import store_items, store_listing
from recsys_core.data.ingest.batch import FileTally, ToRead
from recsys_core.data.ingest.clean_items import clean_items, embedding_widths, item_ids
from recsys_core.data.ingest.interactions import ingested_file
from recsys_core.data.ingest.merge import MergeResult, replace_quarantine
from recsys_core.data.io.spool import Spool
from recsys_core.data.lake.ingest_log import IngestedFile, update_ingest_log
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS, ITEM_INDEX, ITEMS, QUARANTINE
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.reader import read_chunks


def ingest_catalogue(
    lake: Lake,
    files: Sequence[ToRead],
    config: SourceConfig,
    *,
    others: Iterable[ToRead],
    run_date: date,
    scratch: Path,
) -> Iterator[IngestedFile]:
    """Read catalogue files and store their items in the lake.

    If several files have an item, each column has the value of the last file with that column.

    Args:
        lake: The lake.
        files: Files to read, in the order of their ordinals.
        config: Settings of the sources.
        others: Catalogue files that need no reading. Only if the catalogue is complete, their item
            ids are read, to find the items that are no longer listed.
        run_date: The night's date.
        scratch: Folder for spooled rows.

    Yields:
        Each file's entry, once its rows are committed.

    Raises:
        SourceError: A file can't be read, or has changed since the night began; or no file has a
            configured column of embeddings; or too many items would be retired.
    """
    config = config.resolved()
    present = [*files, *others]
    if config.items_are_complete and present:
        ids = pl.concat([_ids(file, config, scratch) for file in present])
        share = config.max_retired_share
        store_listing(lake, ids, run_date=run_date, max_retired_share=share)
    for file in files:
        yield _ingest(lake, file, config, run_date=run_date, scratch=scratch)
    if present:
        _refuse_missing_embeddings(lake, config)


def extend_item_index(lake: Lake, new: Iterable[IngestedFile]) -> None:
    """Append the new items of the catalogue and of the new files to the item index."""
    new = list(new)
    interactions = [entry for entry in new if entry.is_interactions]
    dates = sorted({day for entry in interactions for day in entry.dates})
    candidates: list[pl.LazyFrame] = []
    if interactions:
        candidates.append(
            lake.scan(INTERACTIONS.name)
            .filter(pl.col("date").is_in(dates))
            .group_by("item_id")
            .agg(pl.col("timestamp").min().alias("first_seen"))
        )
    if len(interactions) < len(new):
        # The whole catalogue: after a kill the lake may have items that the index lacks.
        catalogue = lake.scan(ITEMS.name).select("item_id", first_seen="available_from")
        candidates.append(catalogue)
    if not candidates:
        return
    rows = pl.concat([part.collect(engine="streaming") for part in candidates])
    lake.append(ITEM_INDEX, lambda index: new_entries(index, rows))


def _ingest(
    lake: Lake, file: ToRead, config: SourceConfig, *, run_date: date, scratch: Path
) -> IngestedFile:
    mapping = config.mapping(ITEMS.name)
    widths = embedding_widths(lake.scan(ITEMS.name), config.item_columns.embeddings)
    cleaned = clean_items(
        _rows(file, config, scratch), config, source=file.name, run_date=run_date, widths=widths
    )
    store_items(lake, cleaned.kept, run_date=run_date)
    refused = Spool(scratch / "refused", QUARANTINE.schema)
    refused.append(cleaned.quarantined)
    content = digest([file.name, file.fingerprint, mapping, run_date])
    replace_quarantine(lake, [refused], [file.name], content=content)
    refused.discard()
    tally = FileTally(cleaned.n_rows, Counter(cleaned.reasons))
    merged = MergeResult(
        kept=Counter({file.name: cleaned.kept.height}),
        duplicates=Counter({file.name: cleaned.n_duplicates}),
    )
    entry = ingested_file(file, tally, merged, mapping, run_date)
    update_ingest_log(lake, [entry])
    return entry


def _rows(file: ToRead, config: SourceConfig, scratch: Path) -> pl.LazyFrame:
    with file.opened(config, scratch) as path:
        chunks = list(read_chunks(file.source, path, config))
    return pl.concat(chunks, how="diagonal_relaxed").lazy()


def _ids(file: ToRead, config: SourceConfig, scratch: Path) -> pl.Series:
    with file.opened(config, scratch) as path:
        return pl.concat([item_ids(chunk) for chunk in read_chunks(file.source, path, config)])


def _refuse_missing_embeddings(lake: Lake, config: SourceConfig) -> None:
    columns = lake.scan(ITEMS.name).collect_schema().names()
    for name in config.item_columns.embeddings:
        if name not in columns:
            msg = (
                f"No item file has a column {name!r}, which source.item_columns.embeddings names. "
                "Export it, or take it out of the setting."
            )
            raise SourceError(msg)
