"""Prepare: the lake's interactions become histories in buckets, split in time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from pydantic import Field

from recsys_core.artifacts import MANIFEST, Artifact, is_finished
from recsys_core.data.catalogue.candidates import (
    CandidatePolicy,
    build_catalogue,
    count_training_interactions,
    item_embeddings,
)
from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.data.histories.build import write_histories
from recsys_core.data.histories.events import events_before, first_interactions, only_later_rows
from recsys_core.data.histories.filters import FilterConfig, filter_histories
from recsys_core.data.histories.splits import SplitKind, TimeWindows
from recsys_core.data.histories.targets import TargetConfig, target_weights
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import EVENT_TYPES, INTERACTIONS, ITEM_INDEX, ITEMS
from recsys_core.settings import Settings
from tasks.contracts.ingest import IngestResult, TimestampKind
from tasks.contracts.split import Split
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.text_content import SENTENCES, sentence_vectors


class PrepareConfig(Settings):
    """How interactions become histories, and where training ends."""

    split: SplitKind = Field(
        default="global_time",
        description="global_time for production; leave_one_out for published benchmarks only",
    )
    validation_days: int = Field(
        default=1, ge=1, le=3650, description="Days of the validation window"
    )
    test_days: int = Field(
        default=1, ge=1, le=3650, description="Days of the test window, the newest"
    )
    popularity_days: int = Field(
        default=7, ge=1, le=3650, description="Days before validation that recent popularity counts"
    )
    catalogue: CandidatePolicy = Field(
        default="all", description="Recommend all listed items, or only those interacted with"
    )
    exclude_seen: bool = Field(
        default=True, description="Items in a user's history are not recommended again"
    )
    targets: TargetConfig = Field(default=TargetConfig(), description="What models predict")
    filters: FilterConfig = Field(
        default=FilterConfig(), description="Rare users, rare items and short sessions"
    )
    text_encoder: str | None = Field(
        default=None,
        min_length=1,
        description="A sentence-transformers model, by folder or by its name on the hub, whose "
        "vectors of titles and categories are content too; needs the extra recdistill[text]",
    )
    n_buckets: int = Field(
        default=8, ge=1, le=4096, description="Files that the users are spread over"
    )


@stage(
    output="prepared",
    version=1,
    libraries=("deltalake", "numpy", "polars"),
    optional_libraries={
        "sentence-transformers": lambda config: config.text_encoder is not None,
        "torch": lambda config: config.text_encoder is not None,
    },
)
def prepare(
    run: StageRun,
    config: PrepareConfig,
    *,
    ingested: Artifact,
    validated: Artifact,
    run_date: date,
    timezone: str,
) -> Summary:
    """Write histories, `items.parquet`, `embeddings.parquet` and `split.json`.

    Args:
        run: The run of the stage.
        config: Split, targets, filters and content.
        ingested: `ingest.json`, with the versions of the lake to read.
        validated: Not read. It is an input so that nothing unvalidated is prepared.
        run_date: Only events before this date are used.
        timezone: IANA zone in which days begin at midnight.

    Raises:
        ValueError: The settings need times and the source has an order only, a target is a kind
            of event that never occurred, or there is no training event.
    """
    result = IngestResult.load(ingested)
    _check_timestamps(config, result.timestamp_kind)
    windows = TimeWindows.before(
        run_date,
        timezone=timezone,
        validation_days=config.validation_days,
        test_days=config.test_days,
    )
    tables = _Tables.at(result.versions, Lake(run.lake))
    buckets = _histories(run, config, tables, windows)
    totals = _totals(buckets)
    _check_training_events(config, windows, totals["train_events"])
    items = _catalogue(config, tables, windows, buckets, timezone)
    items.write_parquet(run.out / "items.parquet", compression="zstd")
    vectors, encoder = _item_vectors(run, config, tables, windows, items, timezone)
    vectors.write_parquet(run.out / "embeddings.parquet", compression="zstd")
    _split(config, tables, windows, encoder, totals).save(run.out)
    return {"n_items": len(tables.index), "n_candidates": int(items["active"].sum()), **totals}


@dataclass(frozen=True)
class _Tables:
    """The lake's tables at the versions that the night reads.

    Attributes:
        interactions: Their snapshot.
        items: The catalogue's versions of items.
        index: `item_id`, `item_idx`.
        event_types: `event_type`, `code`, sorted by code.
    """

    interactions: Snapshot
    items: pl.LazyFrame
    index: pl.DataFrame
    event_types: pl.DataFrame

    @classmethod
    def at(cls, versions: Mapping[str, int], lake: Lake) -> "_Tables":
        event_types = lake.scan(EVENT_TYPES.name, versions[EVENT_TYPES.name])
        return cls(
            interactions=lake.snapshot(INTERACTIONS, versions[INTERACTIONS.name]),
            items=lake.scan(ITEMS.name, versions[ITEMS.name]),
            index=lake.item_index(versions[ITEM_INDEX.name]),
            event_types=event_types.collect().sort("code"),
        )


def _check_timestamps(config: PrepareConfig, kind: TimestampKind) -> None:
    """Raise ValueError if the settings need times and the source has an order only."""
    if kind == "time":
        return
    if config.split == "global_time":
        msg = (
            "The source knows only the order of events (timestamp_kind = 'order'), so there is no "
            "time to split at. Set prepare.split to 'leave_one_out'."
        )
        raise ValueError(msg)
    if config.filters.min_session_events > 1:
        msg = (
            "The source knows only the order of events (timestamp_kind = 'order'), so there are no "
            "sessions. Leave prepare.filters.min_session_events out."
        )
        raise ValueError(msg)


def _check_training_events(config: PrepareConfig, windows: TimeWindows, n_events: int) -> None:
    if n_events:
        return
    limit = ""
    if config.split == "global_time":
        limit = f" before the validation window ({windows.validation_start.isoformat()})"
    msg = (
        f"No history has a training event{limit}: there is nothing to train on. Check run_date, "
        "the windows' days, the filters and the source."
    )
    raise ValueError(msg)


def _histories(
    run: StageRun, config: PrepareConfig, tables: _Tables, windows: TimeWindows
) -> list[Path]:
    """Write the histories of all users; returns the bucket files."""
    base = None if config.filters.any else _base(run, config, tables)
    if base:
        run.logger.info("Histories: only what came since %s is new", base.artifact.key)
    buckets = write_histories(
        events_before(
            windows.end,
            tables.interactions,
            item_index=tables.index,
            event_types=target_weights(config.targets, tables.event_types),
            min_weight=config.targets.min_weight,
            since=base.interactions if base else None,
        ),
        run.out / "histories",
        run.scratch,
        kind=config.split,
        windows=windows,
        n_buckets=config.n_buckets,
        base=base.buckets if base else None,
        progress=run.progress,
    )
    if config.filters.any:
        dropped = filter_histories(
            buckets, config.filters, n_items=len(tables.index), progress=run.progress
        )
        run.logger.info(
            "Filters left out %s users, %s items, %s events", *(f"{n:,}" for n in dropped)
        )
    return buckets


@dataclass(frozen=True)
class _Base:
    """An earlier night's histories that tonight's extend."""

    artifact: Artifact
    interactions: Snapshot

    @property
    def buckets(self) -> list[Path]:
        return sorted(self.artifact.file("histories").glob("bucket-*.parquet"))


def _base(run: StageRun, config: PrepareConfig, tables: _Tables) -> _Base | None:
    """The newest histories to which the lake has only added later rows; None: start from nothing.

    A base saves work and nothing else: the files are the same, to the byte.
    """
    candidates: list[tuple[int, Path]] = []
    for manifest in run.out.parent.glob(f"*/{MANIFEST}"):
        folder = manifest.parent
        split = Split.of_earlier(folder) if is_finished(folder) else None
        if split and _can_be_extended(split, config, tables):
            candidates.append((split.lake_version, folder))
    for version, folder in sorted(candidates, reverse=True):
        before = Snapshot(tables.interactions.path, INTERACTIONS, version)
        if only_later_rows(before, tables.interactions):
            return _Base(Artifact("prepare", folder.name, folder), before)
    return None


def _can_be_extended(split: Split, config: PrepareConfig, tables: _Tables) -> bool:
    n_events = split.train_events + split.validation_events + split.test_events
    prefix = tables.index["item_id"].head(split.n_items)
    return (
        split.n_buckets == config.n_buckets
        and split.targets == config.targets
        and split.lake_version <= tables.interactions.version
        and split.lake_rows == n_events  # the night left no row out as too late
        and split.item_index_sha256 == index_prefix_sha256(prefix)
    )


def _totals(buckets: Sequence[Path]) -> dict[str, int]:
    """Numbers of users and of events in each range."""
    n_events = pl.col("item_idx").list.len().cast(pl.Int32)
    return (
        pl.scan_parquet(list(buckets))
        .select(
            n_users=pl.len(),
            train_events=pl.col("train_end").sum().cast(pl.Int64),
            validation_events=(pl.col("validation_end") - pl.col("train_end")).sum().cast(pl.Int64),
            test_events=(n_events - pl.col("validation_end")).sum().cast(pl.Int64),
        )
        .collect()
        .row(0, named=True)
    )


def _catalogue(
    config: PrepareConfig,
    tables: _Tables,
    windows: TimeWindows,
    buckets: Sequence[Path],
    timezone: str,
) -> pl.DataFrame:
    """The items, whether each is a candidate, and their numbers of training interactions."""
    items = build_catalogue(
        tables.index,
        tables.items,
        first_interactions(windows.end, tables.interactions),
        kind=config.split,
        windows=windows,
        timezone=timezone,
        catalogue=config.catalogue,
    )
    recent_since = windows.validation_start - timedelta(days=config.popularity_days)
    counts = count_training_interactions(
        buckets,
        n_items=len(tables.index),
        since=recent_since if config.split == "global_time" else None,
    )
    return items.join(counts, on="item_idx", maintain_order="left")


def _item_vectors(
    run: StageRun,
    config: PrepareConfig,
    tables: _Tables,
    windows: TimeWindows,
    items: pl.DataFrame,
    timezone: str,
) -> tuple[pl.DataFrame, str | None]:
    """The items' embedding columns, and the fingerprint of the text encoder if there is one."""
    vectors = item_embeddings(tables.index, tables.items, windows=windows, timezone=timezone)
    if config.text_encoder is None:
        return vectors, None
    if SENTENCES in vectors.columns:
        msg = (
            f"The catalogue's column {SENTENCES!r} has the name of the text encoder's vectors. "
            "Rename it in the source, or leave prepare.text_encoder out."
        )
        raise ValueError(msg)
    sentences, encoder = sentence_vectors(run, config.text_encoder, items)
    return vectors.with_columns(sentences), encoder


def _split(
    config: PrepareConfig,
    tables: _Tables,
    windows: TimeWindows,
    encoder: str | None,
    totals: Mapping[str, int],
) -> Split:
    by_time = config.split == "global_time"
    validation_start = windows.validation_start.isoformat() if by_time else None
    return Split(
        kind=config.split,
        trained_through=validation_start,
        validation_start=validation_start,
        test_start=windows.test_start.isoformat() if by_time else None,
        n_items=len(tables.index),
        item_index_sha256=index_prefix_sha256(tables.index["item_id"].to_list()),
        n_buckets=config.n_buckets,
        lake_version=tables.interactions.version,
        lake_rows=int(tables.interactions.files()["rows"].sum()),
        event_types=tuple(tables.event_types["event_type"]),
        targets=config.targets,
        exclude_seen=config.exclude_seen,
        text_encoder=encoder,
        **totals,
    )
