"""Soft labels on disk in the sparse layout: for each position the items that a teacher ranks first.

It is for teachers that are no dot product, such as a language model, and for those made elsewhere.
A label is a ranked list of items, perhaps with their scores, and perhaps with draws from the whole
distribution. A position has one label or none, and a student may read any window around it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pyarrow.parquet import ParquetWriter

from recsys_core.artifacts import replacing
from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels.description import SoftLabelDescription, SoftLabelError, finish
from recsys_core.data.soft_labels.matching import match

# pyarrow has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

MAX_SAMPLES = 65_535
"""Most draws for a label: counts are stored as 16-bit integers."""

MAX_ROUNDING = 0.1
"""Nats by which float16 may change a logit."""


class SparseShape(NamedTuple):
    """What each label of a store holds.

    Attributes:
        top_k: Items in a list; a shorter list is padded with item 0.
        with_logits: Whether their scores are known.
        with_normalizer: Whether the log of the sum over all items of exp(score) is known too.
        n_samples: Draws from the teacher's distribution; 0: none.
    """

    top_k: int
    with_logits: bool = False
    with_normalizer: bool = False
    n_samples: int = 0

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of a label file."""
        columns: dict[str, pl.DataType] = {
            "user_id": pl.String(),
            "position": pl.Int32(),
            "prefix_hash": pl.UInt64(),
            "top_ids": pl.Array(pl.Int32, self.top_k),
        }
        if self.with_logits:
            columns["top_logits"] = pl.Array(pl.Float16, self.top_k)
        if self.with_normalizer:
            columns["log_normalizer"] = pl.Float32()
        if self.n_samples:
            columns["sample_ids"] = pl.Array(pl.Int32, self.n_samples)
            columns["sample_counts"] = pl.Array(pl.UInt16, self.n_samples)
        return columns


class SparseRows(NamedTuple):
    """Labels of some positions, in any order.

    Attributes:
        user_ids: `[rows]`, strings.
        positions: `[rows]`, counted from the start of the user's history; the teacher has read the
            events up to and including it.
        hashes: `[rows]`, hash of the history up to and including the position.
        top_ids: `[rows, top_k]` item_idx, best first; 0 pads a shorter list at its end.
        top_logits: `[rows, top_k]` raw scores; those of the padding are ignored.
        log_normalizer: `[rows]` log Σ exp(score) over all items that the teacher may recommend.
        sample_ids: `[rows, n_samples]` item_idx of the distinct items that were drawn, then 0.
        sample_counts: `[rows, n_samples]` how often each was drawn; their sum is n_samples.
    """

    user_ids: pl.Series
    positions: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    top_ids: NDArray[np.int32]
    top_logits: NDArray[np.float32] | None = None
    log_normalizer: NDArray[np.float32] | None = None
    sample_ids: NDArray[np.int32] | None = None
    sample_counts: NDArray[np.int64] | None = None


class SparseLabels(NamedTuple):
    """Labels of some histories.

    Attributes:
        rows: `[events]`, row of each event's label in the other arrays; -1: it has none.
        top_ids: See `SparseRows`, as for the following.
        top_logits: None if unknown.
        log_normalizer: None if unknown.
        sample_ids: None without draws.
        sample_counts: None without draws.
    """

    rows: NDArray[np.int32]
    top_ids: NDArray[np.int32]
    top_logits: NDArray[np.float16] | None
    log_normalizer: NDArray[np.float32] | None
    sample_ids: NDArray[np.int32] | None
    sample_counts: NDArray[np.uint16] | None


def write_sparse_labels(path: Path, shape: SparseShape, parts: Iterable[SparseRows]) -> int:
    """Write the labels of one bucket, part by part; a kill leaves no half-written file.

    Args:
        path: `labels/<name of the histories' bucket file>`.
        shape: What each label holds.
        parts: Memory is that of one part.

    Returns:
        The number of labels.

    Raises:
        SoftLabelError: A list repeats an item or has a gap, a score is not finite or too large for
            float16, or the draws are not `shape.n_samples`.
    """
    schema = shape.schema
    arrow_schema = pl.DataFrame(schema=schema).to_arrow().schema
    leaves = [f"{name}.list.element" for name, kind in schema.items() if kind == pl.Array]
    n_labels = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    # Split by bytes, the high bytes of ids and of falling logits repeat, so zstd shrinks them.
    encoding: dict[str, Any] = {"use_dictionary": ["user_id"], "use_byte_stream_split": leaves}
    with (
        replacing(path) as draft,
        ParquetWriter(draft, arrow_schema, compression="zstd", **encoding) as writer,
    ):
        for part in parts:
            _check(part, shape)
            given = [column for column in _stored(part) if column is not None]
            table = pl.DataFrame(dict(zip(schema, given, strict=True)), schema)
            writer.write_table(table.to_arrow())
            n_labels += len(table)
    return n_labels


def describe_sparse(
    folder: Path,
    *,
    teacher: str,
    item_index_sha256: str,
    n_items: int,
    trained_through: str | None,
    shape: SparseShape,
) -> SoftLabelDescription:
    """Finish a store whose label files are written: save its description.

    Args:
        folder: The store's.
        teacher: Name of the teacher.
        item_index_sha256: Hash of the item ids that the item_idx belong to.
        n_items: Number of these ids.
        trained_through: The teacher's training events were before this, ISO 8601; None: unknown.
        shape: What each label holds.
    """
    return finish(
        folder,
        layout="sparse",
        teacher=teacher,
        item_index_sha256=item_index_sha256,
        n_items=n_items,
        trained_through=trained_through,
        columns=tuple(shape.schema)[3:],
        top_k=shape.top_k,
        n_samples=shape.n_samples,
    )


def sparse_labels(labels: pl.DataFrame, histories: ResidentHistories, folder: Path) -> SparseLabels:
    """The labels of some files, by the event that they belong to.

    Args:
        labels: The rows of the files.
        histories: The training events.
        folder: The store, for messages.

    Raises:
        SoftLabelError: A label does not belong to the histories, or a position has two.
    """
    events = match(labels, histories, folder).events
    rows = np.full(len(histories.items), -1, np.int32)
    rows[events] = np.arange(len(events))
    if twice := len(events) - int((rows >= 0).sum()):
        msg = f"{twice} positions of the soft labels in {folder} come twice. Write them again."
        raise SoftLabelError(msg)

    def column(name: str) -> NDArray[np.generic] | None:
        return labels[name].to_numpy() if name in labels.columns else None

    return SparseLabels(rows, *(column(name) for name in SparseLabels._fields[1:]))  # pyright: ignore[reportArgumentType]


def _stored(part: SparseRows) -> tuple[object, ...]:
    """The columns in the types of the file."""
    logits, counts = part.top_logits, part.sample_counts
    if logits is not None:
        logits = np.where(part.top_ids > 0, logits, 0).astype(np.float16)
    if counts is not None:
        counts = counts.astype(np.uint16)
    return part._replace(top_logits=logits, sample_counts=counts)  # pyright: ignore[reportArgumentType]


def _check(part: SparseRows, shape: SparseShape) -> None:
    """Refuse labels that would be misread."""
    _check_list(part.top_ids, "top_ids")
    listed = part.top_ids > 0
    if part.top_logits is not None:
        scores = part.top_logits[listed]
        with np.errstate(over="ignore"):
            rounding = np.abs(scores.astype(np.float16).astype(np.float32) - scores)
        # Written so that NaN fails too.
        if not (rounding <= MAX_ROUNDING).all():
            worst = scores[np.argmax(np.where(np.isfinite(rounding), rounding, np.inf))]
            msg = (
                f"top_logits hold {worst:g}, which float16 stores with an error of more than "
                f"{MAX_ROUNDING} nats. Scores must be finite; subtract from large ones, and from "
                "log_normalizer, a constant of the position, which changes no probability."
            )
            raise SoftLabelError(msg)
    if part.log_normalizer is not None and not np.isfinite(part.log_normalizer).all():
        msg = "log_normalizer holds NaN or infinity: the teacher is broken."
        raise SoftLabelError(msg)
    if part.sample_ids is not None and part.sample_counts is not None:
        _check_list(part.sample_ids, "sample_ids")
        drawn = np.where(part.sample_ids > 0, part.sample_counts, 0)
        totals, padding = drawn.sum(axis=1), part.sample_counts.sum(axis=1) - drawn.sum(axis=1)
        if (totals != shape.n_samples).any() or padding.any() or (drawn < 0).any():
            msg = (
                f"sample_counts must add up to the {shape.n_samples} draws of each label, and be 0 "
                "where sample_ids are."
            )
            raise SoftLabelError(msg)


def _check_list(ids: NDArray[np.int32], name: str) -> None:
    ordered = np.sort(ids, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)
    has_gap = (ids[:, 1:] > 0) & (ids[:, :-1] == 0)
    empty = ids[:, 0] == 0
    if repeated.any() or has_gap.any() or empty.any() or (ids < 0).any():
        msg = f"{name} must hold distinct items of each label, from the first place on, then 0."
        raise SoftLabelError(msg)
