"""Ingest of interaction files: new and changed files are read, known ones are skipped.

The ingest log identifies a file by its name, and holds fingerprints of its content and of the
settings that it was read with. A changed file replaces exactly the rows that it brought before, on
all dates. An entry counts as new until a night has validated it.

Files go to the lake in batches: read in chunks, deduplicated one date at a time, committed with
their interactions first, their quarantine second, their entries in the log last. What a table holds
of a file is always replaced as a whole, so after a kill the next run repeats the batch.
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
from recsys_core.settings import Progress, part, silent

ROWS_IN_BATCH = 25_000_000
"""A batch ends with the file that reaches this many rows; a kill costs at most about as many."""


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
    """Read files and merge their rows into the lake, batch by batch.

    Args:
        lake: The lake.
        files: Files to read, in the order of their ordinals.
        config: Settings of the sources.
        others: Files that need no reading. One of them is read again if another file withdraws
            rows that were duplicates in it, so that no row is lost.
        run_date: The night's date.
        scratch: Folder for spooled rows.
        user_id_policy: Whether user ids are hashed, and whose rows are refused.
        rows_in_batch: A batch ends with the file that reaches this many rows.
        progress: Called after each chunk.

    Yields:
        Each file's entry, once its rows are committed.

    Raises:
        SourceError: A file can't be read, or has changed since the night began.
    """
    settings, mapping = config.resolved(), config.mapping(INTERACTIONS.name)
    waiting, idle, n_read = list(files), list(others), 0
    while waiting:
        batch = IngestBatch(scratch)
        while waiting and (not batch.files or batch.n_rows < rows_in_batch):
            of_file = part(progress, n_read, n_read + len(waiting))
            batch.read(
                waiting.pop(0),
                settings,
                user_id_policy=user_id_policy,
                run_date=run_date,
                scratch=scratch,
                progress=of_file,
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
    """Delete the rows of files that never passed validation and no longer exist.

    So a user gets rid of a bad export by removing the file. The rows of validated files stay in
    the lake after the files are gone.

    Returns:
        Names of the withdrawn files, and the dates that lost rows.
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
    """Whether the lake may lack rows of this file, because it held them from another file.

    Args:
        entry: The file's entry.
        vanished: Dates on which another file withdrew rows.
    """
    return entry.rows_duplicate > 0 and not set(vanished).isdisjoint(entry.dates)


def extend_event_types(lake: Lake, new: Iterable[IngestedFile]) -> None:
    """Append the new files' kinds of events to the table of event types, in order of appearance.

    Raises:
        SourceError: There are more than `MAX_EVENT_TYPES` kinds.
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


def ingested_file(
    file: ToRead, tally: FileTally, merged: MergeResult, mapping: str, run_date: date
) -> IngestedFile:
    """The entry of a file whose rows were merged.

    Raises:
        RuntimeError: Kept, quarantined and duplicate rows don't add up to the file's rows.
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
