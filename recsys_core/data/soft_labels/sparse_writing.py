"""Writing soft labels in the sparse layout, checked before they are stored."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pyarrow.parquet import ParquetWriter

from recsys_core.artifacts import replacing
from recsys_core.data.soft_labels.description import SoftLabelDescription, SoftLabelError, finish
from recsys_core.data.soft_labels.sparse import SparseRows, SparseShape

# pyarrow has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

MAX_ROUNDING = 0.1
"""Nats by which float16 may change a logit."""


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
