"""Files into the lake: what is new is cleaned and merged, what is known is left alone.

A file is known by its name and recorded with the fingerprint of its content and of the settings by
which it was read. A changed file replaces exactly the rows that it brought before, on whatever
dates they are. A entry stays unvalidated, and therefore counts as new, until a night has validated
it.

Files go to the lake in batches: read in chunks, deduplicated one date at a time, committed with
their interactions first, their quarantine second, their entries in the log last. What a table holds
of a file is always replaced as a whole, so what a kill cut short is simply done again.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import polars as pl

from recsys_core.artifacts import digest
from recsys_core.data.ingest.batch import FileTally, IngestBatch, ToRead
from recsys_core.data.ingest.merge import MergeResult, merge_batch
from recsys_core.data.ingest.user_ids import KEEP_USER_IDS, UserIdPolicy
from recsys_core.data.io.spool import Spool
from recsys_core.data.lake.ingest_log import (
    IngestedFile,
    read_ingest_log,
    remove_from_ingest_log,
    update_ingest_log,
)
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import (
    EVENT_TYPES,
    INTERACTIONS,
    MAX_EVENT_TYPES,
    QUARANTINE,
    TOO_MANY_EVENTS,
)
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.settings import Progress, silent

ROWS_IN_BATCH = 25_000_000
"""A batch ends with the file that reaches this many rows: about what a kill may cost."""


def ingest_interactions(
    lake: Lake,
    files: Sequence[ToRead],
    config: SourceConfig,
    *,
    others: Iterable[ToRead],
    run_date: date,
    scratch: Path,
    user_id_policy: UserIdPolicy = KEEP_USER_IDS,
    rows_in_batch: int = ROWS_IN_BATCH,
    progress: Progress = silent,
) -> Iterator[IngestedFile]:
    """Bring files' rows to the lake, batch by batch; yields each file's entry once it is merged.

    Args:
        lake: Where to.
        files: What to read, in the order of their ordinals.
        config: How to read it.
        others: The files that are there and need no reading. They are read again where a file
            takes rows back that they brought too, so that nothing is lost.
        run_date: The night's date.
        scratch: Folder for rows on their way.
        user_id_policy: What becomes of user ids.
        rows_in_batch: A batch ends with the file that reaches this many rows.
        progress: Told after each chunk.

    Raises:
        SourceError: A file can't be read, or has changed since the night began.
    """
    settings, mapping = config.resolved(), config.mapping(INTERACTIONS.name)
    waiting, idle, n_read = list(files), list(others), 0
    while waiting:
        batch = IngestBatch(scratch)
        while waiting and (not batch.files or batch.n_rows < rows_in_batch):
            share = n_read / (n_read + len(waiting))
            batch.read(
                waiting.pop(0),
                settings,
                user_id_policy=user_id_policy,
                run_date=run_date,
                scratch=scratch,
                progress=partial(_at_share, progress, share),
            )
            n_read += 1
        contents = [[file.name, file.fingerprint] for file in batch.files]
        merged = merge_batch(
            lake,
            batch.valid,
            batch.refused,
            [file.name for file in batch.files],
            max_events_per_day=None
            if settings.timestamp_kind == "order"
            else settings.max_events_per_day,
            run_date=run_date,
            content=digest([contents, mapping, run_date]),
            scratch=scratch,
            progress=partial(progress, n_read / (n_read + len(waiting))),
        )
        entries = [
            ingested_file(file, batch.tallies[file.name], merged, mapping, run_date)
            for file in batch.files
        ]
        update_ingest_log(lake, entries)
        batch.discard()
        yield from entries
        needs_reread = [file for file in idle if may_lack_rows(file.entry, merged.vanished)]
        idle = [file for file in idle if file not in needs_reread]
        waiting += needs_reread


def withdraw_missing(
    lake: Lake, present: Iterable[str], *, run_date: date, scratch: Path
) -> tuple[list[str], set[date]]:
    """Take back interactions of files that never passed validation and are no longer there.

    This is how a user gets rid of a bad export: remove the file (or correct it). Files that were
    validated stay in the lake when they are gone.

    Returns:
        Names of the files that were withdrawn, and the dates on which rows are gone.
    """
    log, names = read_ingest_log(lake), set(present)
    gone = [name for name, entry in log.items() if not entry.validated and name not in names]
    if not gone:
        return [], set()
    merged = merge_batch(
        lake,
        Spool(scratch / "valid", INTERACTIONS.schema),
        Spool(scratch / "refused", QUARANTINE.schema),
        gone,
        max_events_per_day=None,
        run_date=run_date,
        content=digest(["withdrawn", gone, run_date]),
        scratch=scratch,
    )
    remove_from_ingest_log(lake, gone)
    return gone, merged.vanished


def may_lack_rows(entry: IngestedFile, vanished: Collection[date]) -> bool:
    """Whether rows that were duplicates in this file are perhaps nowhere now.

    Args:
        entry: Of the file.
        vanished: Dates on which another file took rows back.
    """
    return entry.rows_duplicate > 0 and not set(vanished).isdisjoint(entry.dates)


def extend_event_types(lake: Lake, new: Iterable[IngestedFile]) -> None:
    """Append the kinds of events that the new files bring, in order of appearance.

    Raises:
        SourceError: There are more kinds than the histories can tell apart.
    """
    new = [entry for entry in new if entry.is_interactions]
    dates = sorted({day for entry in new for day in entry.dates})
    if not dates:
        return
    seen = (
        lake.scan(INTERACTIONS.name)
        .filter(pl.col("date").is_in(dates))
        .group_by("event_type")
        .agg(pl.col("timestamp").min())
        .collect(engine="streaming")
        .sort("timestamp", "event_type")
    )

    def unknown(known: pl.DataFrame) -> pl.DataFrame:
        kinds = seen.join(known, on="event_type", how="anti", maintain_order="left")
        n_kinds = known.height + kinds.height
        if n_kinds > MAX_EVENT_TYPES:
            msg = (
                f"The interactions have {n_kinds} kinds of events; at most {MAX_EVENT_TYPES} can "
                "be told apart. Set source.columns.event_type to the right column, or name the "
                "kinds that count in source.event_types."
            )
            raise SourceError(msg)
        codes = pl.int_range(known.height, n_kinds, dtype=pl.Int8, eager=True)
        return kinds.select("event_type", codes.alias("code"))

    lake.append(EVENT_TYPES, unknown)


def _at_share(progress: Progress, share: float, _: float, message: str) -> None:
    progress(share, message)


def ingested_file(
    file: ToRead, tally: FileTally, merged: MergeResult, mapping: str, run_date: date
) -> IngestedFile:
    """The entry of a file that was read and merged.

    Raises:
        RuntimeError: Its rows kept, quarantined and repeated are not the rows that went in.
    """
    name, reasons = file.name, dict(tally.reasons)
    if merged.bots[name]:
        reasons[TOO_MANY_EVENTS] = merged.bots[name]
    kept, refused, repeated = merged.kept[name], sum(reasons.values()), merged.duplicates[name]
    if kept + refused + repeated != tally.n_rows:
        msg = (
            f"{file.source.location}: {tally.n_rows} rows went in, but {kept} kept, {refused} "
            f"quarantined and {repeated} duplicate rows came out. The night stops before anything "
            "is trained on them; this is a defect of the ingestion, please report it with the file."
        )
        raise RuntimeError(msg)
    return replace(
        file.entry,
        run_date=run_date,
        fingerprint=file.fingerprint,
        stamp=file.source.stamp,
        mapping=mapping,
        rows_in=tally.n_rows,
        rows_kept=kept,
        rows_quarantined=refused,
        rows_duplicate=repeated,
        reasons=json.dumps(reasons, sort_keys=True),
        dates=sorted(tally.dates),
        validated=False,
    )
