"""Soft labels on disk in the factorized layout: the teacher's states, and its item vectors once.

A teacher's logits are dot products, so `state · item vector` gives the logit of any item: the whole
distribution is stored, exact up to rounding, in fewer bytes than a list of the top 64. A state is
stored as int8 with one scale. Labels are stored by windows, so a student reads the events that its
teacher read. The module needs no torch, so readers need no training library.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pyarrow.parquet import ParquetWriter

from recsys_core.artifacts import replacing
from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.histories.windows import Windows
from recsys_core.json_file import JsonFile

# pyarrow has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

FORMAT_VERSION = 2
ITEM_VECTORS = "item_vectors.parquet"

_HASH_BASE = np.uint64(0x9E3779B97F4A7C15)
_INT8_MAX = 127


class SoftLabelError(ValueError):
    """The stored labels do not fit the histories, the catalogue or this format version."""


class SoftLabelDescription(JsonFile):
    """What a store of soft labels holds, and of which teacher.

    Attributes:
        format_version: Version of the layout on disk.
        layout: "factorized".
        teacher: Key of the teacher.
        item_index_sha256: Hash of the item ids that the vectors belong to.
        trained_through: The teacher's training events were before this, ISO 8601; None: unknown.
        dim: Width of states and item vectors.
        dtype: How states are stored.
        rows: Number of labels; a position that lies in two windows has two.
        bytes: Size of the files in `labels/`.
    """

    file_name = "soft_labels.json"

    format_version: int
    layout: str
    teacher: str
    item_index_sha256: str
    trained_through: str | None
    dim: int
    dtype: str
    rows: int
    bytes: int


class StateLabels(NamedTuple):
    """Teacher states of windows of some histories.

    Attributes:
        windows: The labelled windows.
        rows: Row of each window's first position in `states`; its other positions follow.
        states: `[rows, dim]`, to be multiplied by `scales`.
        scales: `[rows]`.
    """

    windows: Windows
    rows: NDArray[np.int64]
    states: NDArray[np.int8]
    scales: NDArray[np.float32]


class LabelRows(NamedTuple):
    """Labels of some windows, position by position.

    Attributes:
        user_ids: `[rows]`, strings.
        window_starts: `[rows]`, the first position that the teacher read.
        positions: `[rows]`, counted from the start of the user's history; those of a window follow
            each other from its first.
        hashes: `[rows]`, hash of the history up to and including the position.
        states: `[rows, dim]`, the teacher's final states.
    """

    user_ids: pl.Series
    window_starts: NDArray[np.int32]
    positions: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    states: NDArray[np.float32]


class SoftLabels:
    """A store of soft labels, checked against the catalogue that it is used with.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = describe(
    ...         Path(folder),
    ...         teacher="teacher-1",
    ...         item_index_sha256="abc",
    ...         trained_through=None,
    ...         item_vectors=np.array([[0, 0], [1, 2], [3, 4]], np.float32),
    ...     )
    ...     labels = SoftLabels(Path(folder), item_index_sha256="abc")
    ...     labels.item_vectors().tolist()
    [[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]

    Args:
        folder: Output of the stage that wrote the labels.
        item_index_sha256: Hash of the prefix of the item index that is as long as the labels' own.

    Raises:
        SoftLabelError: The labels have another format version or another catalogue.
    """

    def __init__(self, folder: Path, *, item_index_sha256: str) -> None:
        self.folder = folder
        self.description = SoftLabelDescription.load(folder)
        version = self.description.format_version
        if version != FORMAT_VERSION:
            msg = (
                f"{folder} holds soft labels of format {version}, expected {FORMAT_VERSION}. Write "
                "the labels again."
            )
            raise SoftLabelError(msg)
        if self.description.item_index_sha256 != item_index_sha256:
            msg = (
                f"The soft labels in {folder} were made over another item index, so their item "
                "vectors mean other items. Write the labels again with the present one."
            )
            raise SoftLabelError(msg)

    def item_vectors(self) -> NDArray[np.float32]:
        """The teacher's item vectors `[n_items + 1, dim]` by item_idx; row 0 is zero."""
        vectors = pl.read_parquet(self.folder / ITEM_VECTORS)["vector"].to_numpy()
        return np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])

    def align(self, histories: ResidentHistories, buckets: Sequence[Path]) -> StateLabels:
        """The labels of these bucket files, as windows of the histories.

        Raises:
            SoftLabelError: A label is for a position that the history lacks, the history up to that
                position has changed since the label was written, or a window has a gap.
        """
        labels = pl.concat(
            [pl.read_parquet(self.folder / "labels" / path.name) for path in buckets]
        )
        users = pl.DataFrame(
            {
                "user_id": histories.user_ids,
                "user": np.arange(len(histories.user_ids)),
                "start": histories.starts[:-1],
                "length": histories.lengths,
            }
        )
        labels = labels.join(users, on="user_id", how="left", maintain_order="left")
        events = (labels["start"] + labels["position"]).to_numpy()
        outside = labels.select(
            (pl.col("length").is_null() | (pl.col("position") >= pl.col("length") - 1)).sum()
        ).item()
        stale = 0
        if not outside:
            hashes = prefix_hashes(histories.items, histories.starts)
            stale = int((hashes[events] != labels["prefix_hash"].to_numpy()).sum())
        if outside or stale:
            msg = (
                f"{outside or stale} of {len(labels)} soft labels in {self.folder} do not belong "
                "to the histories: these were shifted or changed since. Write the labels again."
            )
            raise SoftLabelError(msg)
        windows, rows = self._windows(labels, events)
        return StateLabels(windows, rows, labels["state"].to_numpy(), labels["scale"].to_numpy())

    def _windows(
        self, labels: pl.DataFrame, events: NDArray[np.int64]
    ) -> tuple[Windows, NDArray[np.int64]]:
        """The windows in the order of users and starts, and each one's first row of labels."""
        users, offsets = labels["user"].to_numpy(), labels["window_start"].to_numpy()
        changes = (np.diff(users) != 0) | (np.diff(offsets) != 0)
        rows = np.concatenate([np.zeros(min(1, len(users)), np.int64), 1 + changes.nonzero()[0]])
        lengths = np.diff(np.append(rows, len(users)))
        starts = labels["start"].to_numpy()[rows] + offsets[rows]
        places = np.arange(len(users)) - np.repeat(rows, lengths)
        if not np.array_equal(events, np.repeat(starts, lengths) + places):
            msg = (
                f"A window of the soft labels in {self.folder} has a gap: a position is missing or "
                "comes twice. Write the labels again."
            )
            raise SoftLabelError(msg)
        order = np.lexsort((starts, users[rows]))
        windows = Windows(users[rows], starts, starts + lengths + 1)
        return Windows(*(part[order] for part in windows)), rows[order]


def write_labels(path: Path, dim: int, parts: Iterable[LabelRows]) -> int:
    """Write the labels of one bucket, part by part; a kill leaves no half-written file.

    Args:
        path: `labels/<name of the histories' bucket file>`.
        dim: Width of the states.
        parts: Whole windows; memory is that of one part.

    Returns:
        The number of labels.
    """
    schema = {
        "user_id": pl.String,
        "window_start": pl.Int32,
        "position": pl.Int32,
        "prefix_hash": pl.UInt64,
        "state": pl.Array(pl.Int8, dim),
        "scale": pl.Float32,
    }
    arrow_schema = pl.DataFrame(schema=schema).to_arrow().schema
    n_labels = 0
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as draft, ParquetWriter(draft, arrow_schema, compression="zstd") as writer:
        for user_ids, window_starts, positions, hashes, states in parts:
            quantized, scales = quantize_rows(states)
            columns = (user_ids, window_starts, positions, hashes, quantized, scales)
            table = pl.DataFrame(dict(zip(schema, columns, strict=True)), schema)
            writer.write_table(table.to_arrow())
            n_labels += len(states)
    return n_labels


def describe(
    folder: Path,
    *,
    teacher: str,
    item_index_sha256: str,
    trained_through: str | None,
    item_vectors: NDArray[np.float32],
) -> SoftLabelDescription:
    """Finish a store: write the item vectors `[n_items + 1, dim]` and the description.

    Raises:
        SoftLabelError: A vector holds NaN or infinity, so the teacher is broken.
    """
    _check_finite(item_vectors, "item vectors")
    dim = item_vectors.shape[1]
    pl.DataFrame(
        {
            "item_idx": np.arange(1, len(item_vectors), dtype=np.int32),
            "vector": pl.Series(item_vectors[1:], dtype=pl.Array(pl.Float32, dim)),
        }
    ).write_parquet(folder / ITEM_VECTORS, compression="zstd")
    files = sorted((folder / "labels").glob("*.parquet"))
    description = SoftLabelDescription(
        format_version=FORMAT_VERSION,
        layout="factorized",
        teacher=teacher,
        item_index_sha256=item_index_sha256,
        trained_through=trained_through,
        dim=dim,
        dtype="int8 with a float32 scale a row",
        rows=sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in files),
        bytes=sum(path.stat().st_size for path in files),
    )
    description.save(folder)
    return description


def quantize_rows(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale per row: `values ≈ quantized × scale[:, None]`.

    >>> quantized, scale = quantize_rows(np.array([[0.5, -1.0]], np.float32))
    >>> quantized.tolist(), (quantized * scale[:, None]).round(2).tolist()
    ([[64, -127]], [[0.5, -1.0]])


    Raises:
        SoftLabelError: A value is NaN or infinite, so the teacher is broken.
    """
    _check_finite(values, "states")
    scales = np.maximum(np.abs(values).max(axis=1), np.finfo(np.float32).tiny) / _INT8_MAX
    return np.rint(values / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def _check_finite(values: NDArray[np.float32], what: str) -> None:
    if not np.isfinite(values).all():
        msg = f"The teacher's {what} hold NaN or infinity: train the teacher again."
        raise SoftLabelError(msg)


def prefix_hashes(items: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash of each user's history up to and including each event: Σ mix(itemᵢ)·Bⁱ mod 2⁶⁴.

    Args:
        items: item_idx of all events, user after user.
        starts: Where each user's events begin; one more entry than users.

    Returns:
        `[events]`.
    """
    lengths = np.diff(starts)
    longest = int(lengths.max(initial=0))
    powers = np.cumprod(np.full(longest, _HASH_BASE | np.uint64(1), np.uint64), dtype=np.uint64)
    position = np.arange(len(items)) - np.repeat(starts[:-1], lengths)
    sums = np.cumsum(_mix(items) * powers[position], dtype=np.uint64)
    before = np.concatenate([np.zeros(1, np.uint64), sums])[starts[:-1]]
    return sums - np.repeat(before, lengths)


def _mix(values: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Scatter close integers over 64 bits (the finalizer of splitmix64)."""
    mixed = values.astype(np.uint64) + _HASH_BASE
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
