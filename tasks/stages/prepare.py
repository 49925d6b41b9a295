"""Prepare: the lake's interactions become histories in buckets, split in time."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from recsys_core.artifacts import MANIFEST, Artifact, is_finished, read_json, write_json
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
from tasks.engine.stage import StageRun, Summary, stage
from tasks.training.text_content import sentence_vectors


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
    """Write histories, `items.parquet`, `embeddings.parquet`, `split.json` as of the run date.

    Args:
        run: Where and how.
        config: The split.
        ingested: Which versions of the lake to read.
        validated: Nothing is prepared that was not validated.
        run_date: Only what happened before it counts.
        timezone: IANA zone in which days begin at midnight.
    """
    facts = read_json(ingested.file("ingest.json"))
    if facts["timestamp_kind"] == "order" and config.split == "global_time":
        msg = (
            "The source knows only the order of events (timestamp_kind = 'order'), so there is no "
            "time to split at. Set prepare.split to 'leave_one_out'."
        )
        raise ValueError(msg)
    if facts["timestamp_kind"] == "order" and config.filters.min_session_events > 1:
        msg = (
            "The source knows only the order of events (timestamp_kind = 'order'), so there are no "
            "sessions. Leave prepare.filters.min_session_events out."
        )
        raise ValueError(msg)
    windows = TimeWindows.before(
        run_date,
        timezone=timezone,
        validation_days=config.validation_days,
        test_days=config.test_days,
    )
    lake, versions = Lake(run.lake), facts["versions"]
    interactions = lake.snapshot(INTERACTIONS, versions[INTERACTIONS.name])
    index = lake.item_index(versions[ITEM_INDEX.name])
    kinds = lake.scan(EVENT_TYPES.name, versions[EVENT_TYPES.name]).collect().sort("code")
    base = None if config.filters.any else _base(run, config, interactions, index)
    if base:
        run.logger.info("Histories: only what came since %s is new", base.artifact.key)
    buckets = write_histories(
        events_before(
            windows.end,
            interactions,
            item_index=index,
            event_types=target_weights(config.targets, kinds),
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
            buckets, config.filters, n_items=len(index), progress=run.progress
        )
        run.logger.info(
            "Filters left out %s users, %s items, %s events", *(f"{n:,}" for n in dropped)
        )
    by_time = config.split == "global_time"
    items = build_catalogue(
        index,
        lake.scan(ITEMS.name, versions[ITEMS.name]),
        first_interactions(windows.end, interactions),
        kind=config.split,
        windows=windows,
        timezone=timezone,
        catalogue=config.catalogue,
    )
    counts = count_training_interactions(
        buckets,
        n_items=len(index),
        since=windows.validation_start - timedelta(days=config.popularity_days)
        if by_time
        else None,
    )
    items.join(counts, on="item_idx", maintain_order="left").write_parquet(
        run.out / "items.parquet", compression="zstd"
    )
    embeddings = item_embeddings(
        index,
        lake.scan(ITEMS.name, versions[ITEMS.name]),
        windows=windows,
        timezone=timezone,
    )
    encoder = None
    if config.text_encoder:
        sentences, encoder = sentence_vectors(run, config.text_encoder, items)
        if sentences.name in embeddings.columns:
            msg = (
                f"The catalogue's column {sentences.name!r} has the name of the text encoder's "
                "vectors. Rename it in the source, or leave prepare.text_encoder out."
            )
            raise ValueError(msg)
        embeddings = embeddings.with_columns(sentences)
    embeddings.write_parquet(run.out / "embeddings.parquet", compression="zstd")
    totals = _totals(run)
    split = {
        "kind": config.split,
        "trained_through": windows.validation_start.isoformat() if by_time else None,
        "validation_start": windows.validation_start.isoformat() if by_time else None,
        "test_start": windows.test_start.isoformat() if by_time else None,
        "n_items": len(index),
        "item_index_sha256": index_prefix_sha256(index["item_id"].to_list()),
        "n_buckets": config.n_buckets,
        "lake_version": interactions.version,
        "lake_rows": int(interactions.files()["rows"].sum()),
        "event_types": kinds["event_type"].to_list(),
        "targets": config.targets.model_dump(mode="json"),
        "exclude_seen": config.exclude_seen,
        "text_encoder": encoder,
        **totals,
    }
    if not totals["train_events"]:
        msg = (
            f"No interaction lies before the validation window ({split['validation_start']}): "
            "there is nothing to train on. Check run_date, the windows' days, the filters and the "
            "source."
        )
        raise ValueError(msg)
    write_json(run.out / "split.json", split)
    return {"n_items": len(index), "n_candidates": int(items["active"].sum()), **totals}


@dataclass(frozen=True)
class _Base:
    """An earlier night's histories, which tonight's only extend."""

    artifact: Artifact
    interactions: Snapshot

    @property
    def buckets(self) -> list[Path]:
        return sorted(self.artifact.file("histories").glob("bucket-*.parquet"))


def _base(
    run: StageRun, config: PrepareConfig, interactions: Snapshot, index: pl.DataFrame
) -> _Base | None:
    """The newest histories to which the lake has only added; None: make them anew.

    They save work and nothing else: what is written is the same, to the byte.
    """
    candidates: list[tuple[int, Path]] = []
    for manifest in run.out.parent.glob(f"*/{MANIFEST}"):
        split = read_json(manifest.with_name("split.json"))
        if "lake_rows" not in split:
            continue  # made by an earlier version
        events = sum(split[f"{part}_events"] for part in ("train", "validation", "test"))
        prefix = index["item_id"].head(split["n_items"])
        if (
            split["n_buckets"] == config.n_buckets
            and split.get("targets") == config.targets.model_dump(mode="json")
            and split["lake_version"] <= interactions.version
            and split["lake_rows"] == events  # nothing was too late for it
            and split["item_index_sha256"] == index_prefix_sha256(prefix)
            and is_finished(manifest.parent)
        ):
            candidates.append((split["lake_version"], manifest.parent))
    for version, folder in sorted(candidates, reverse=True):
        before = Snapshot(interactions.path, INTERACTIONS, version)
        if only_later_rows(before, interactions):
            return _Base(Artifact("prepare", folder.name, folder), before)
    return None


def _totals(run: StageRun) -> dict[str, Any]:
    return (
        pl.scan_parquet(run.out / "histories" / "*.parquet")
        .select(
            n_users=pl.len(),
            train_events=pl.col("train_end").sum().cast(pl.Int64),
            validation_events=(pl.col("validation_end") - pl.col("train_end")).sum().cast(pl.Int64),
            test_events=(pl.col("item_idx").list.len().cast(pl.Int32) - pl.col("validation_end"))
            .sum()
            .cast(pl.Int64),
        )
        .collect()
        .row(0, named=True)
    )
