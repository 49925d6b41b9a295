"""Stores of soft labels beside the data of the newest finished night."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from flows.cli.output import warn
from flows.config import NightlyConfig
from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.data.privacy.pseudonyms import check_key, pseudonymise
from recsys_core.data.soft_labels.coverage import Coverage, coverage
from recsys_core.data.soft_labels.description import SoftLabelDescription, SoftLabelError
from recsys_core.data.soft_labels.importing import ImportSummary, import_labels
from recsys_core.data.soft_labels.label_file import read_label_file
from recsys_core.data.soft_labels.store import SoftLabels
from tasks.contracts.split import Split
from tasks.engine.outputs import outputs
from tasks.privacy.user_id_key import user_id_key


class NoPreparedDataError(RuntimeError):
    """No night has prepared histories yet, so labels have nothing to belong to."""


class LeakingTeacherError(ValueError):
    """The teacher has seen events that the student is evaluated on."""


@dataclass(frozen=True)
class _NightData:
    """What the newest finished `prepare` stage wrote."""

    buckets: list[Path]
    items: pl.DataFrame
    split: Split


def import_file(
    config: NightlyConfig,
    file: Path,
    out: Path,
    *,
    teacher: str,
    trained_through: datetime | None,
    max_items: int,
    is_hashed: bool = False,
) -> ImportSummary:
    """Write a store of the labels in a file, see `importing.import_labels`.

    Args:
        config: Gives the workspace and the key for user ids.
        file: Parquet or JSON lines.
        out: The store's folder.
        teacher: Name of the teacher.
        trained_through: The teacher saw no event at or after this time, UTC; None: unknown.
        max_items: Longest list to keep.
        is_hashed: The user ids in the file are those of the histories, not of the source data.

    Raises:
        SoftLabelError: The file would be misread, or no label fits.
        NoPreparedDataError: No night has prepared histories.
        LeakingTeacherError: The teacher was trained beyond the training events.
        PseudonymError: The key for user ids is missing, or it is not the lake's key.
    """
    night = _newest_night(config.workspace)
    through = None if trained_through is None else trained_through.replace(tzinfo=UTC)
    end = night.split.trained_through
    if through is not None and end is not None and through > datetime.fromisoformat(end):
        msg = (
            f"{teacher} was trained through {through.isoformat()}, beyond the training events, "
            f"which end before {end}: it has seen what the student is evaluated on. Make the "
            "labels with a teacher of earlier events."
        )
        raise LeakingTeacherError(msg)
    if end is None:
        warn(
            "The split of the newest night is by order and has no dates, so it can't be checked "
            f"whether {teacher} has seen what the student is evaluated on. If it has, the figures "
            "of the night will be too good."
        )
    table = read_label_file(file)
    key = user_id_key(config.events.hash_user_ids)
    check_key(config.workspace / "lake", key)
    if key is not None and not is_hashed:
        table = table.with_columns(user_id=pseudonymise(table["user_id"], key))
    return import_labels(
        table,
        file,
        out,
        teacher=teacher,
        items=night.items,
        item_index_sha256=night.split.item_index_sha256,
        buckets=night.buckets,
        trained_through=None if through is None else through.isoformat(),
        max_items=max_items,
    )


def check_store(config: NightlyConfig, store: Path) -> Coverage:
    """Check a store's checksums and that it fits the newest night's data.

    Raises:
        SoftLabelError: A file has changed, or labels do not fit.
        NoPreparedDataError: No night has prepared histories.
    """
    night = _newest_night(config.workspace)
    n_items = SoftLabelDescription.load(store).n_items
    if n_items > len(night.items):
        msg = (
            f"{store} is of a catalogue of {n_items:,} items, the newest night's has "
            f"{len(night.items):,}: it belongs to another workspace. Import the labels here."
        )
        raise SoftLabelError(msg)
    prefix = index_prefix_sha256(night.items["item_id"].head(n_items))
    return coverage(SoftLabels(store, item_index_sha256=prefix), night.buckets)


def look(
    config: NightlyConfig, store: Path
) -> tuple[SoftLabelDescription, Coverage | None, str | None]:
    """What a store says of itself, its coverage, and why that is unknown if it is None."""
    description = SoftLabelDescription.load(store)
    try:
        return description, check_store(config, store), None
    except (NoPreparedDataError, SoftLabelError) as error:
        return description, None, f"unknown. {error}"


def _newest_night(workspace: Path) -> _NightData:
    """The data of the newest finished `prepare` stage.

    Raises:
        NoPreparedDataError: There is none.
    """
    prepared = [one for one in outputs(workspace) if one.folder.parent.name == "prepare"]
    if not prepared:
        msg = (
            f"No night has prepared data in {workspace.resolve()}: labels belong to the histories "
            "of a night. Run `recdistill nightly` first, or name its workspace with --workspace."
        )
        raise NoPreparedDataError(msg)
    folder = max(prepared, key=lambda one: one.finished_at).folder
    return _NightData(
        sorted((folder / "histories").glob("bucket-*.parquet")),
        pl.read_parquet(folder / "items.parquet", columns=["item_id", "item_idx"]),
        Split.load(folder),
    )
