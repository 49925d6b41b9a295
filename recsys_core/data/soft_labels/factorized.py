"""Soft labels on disk in the factorized layout: the teacher's states, and its item vectors once.

A teacher's logits are dot products, so `state · item vector` gives the logit of any item: the whole
distribution is stored, exact up to rounding, in fewer bytes than a list of the top 64. A state is
stored as int8 with one scale. Labels are stored by windows, so a student reads the events that its
teacher read.
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
from recsys_core.data.histories.windows import Windows
from recsys_core.data.soft_labels.description import SoftLabelDescription, SoftLabelError, finish
from recsys_core.data.soft_labels.matching import match

# pyarrow has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

ITEM_VECTORS = "item_vectors.parquet"

_INT8_MAX = 127


class StateLabels(NamedTuple):
    """Teacher states of windows of some histories.

    Attributes:
        windows: The labelled windows.
        rows: Row of each window's first position in `states`; its other positions follow.
        states: `[rows, dim]`, to be multiplied by `scales`.
        scales: `[rows]`.
        top_ids: `[rows, k]`, the items that the teacher ranks first, see `LabelRows`; None if they
            are not stored.
    """

    windows: Windows
    rows: NDArray[np.int64]
    states: NDArray[np.int8]
    scales: NDArray[np.float32]
    top_ids: NDArray[np.int32] | None = None


class LabelRows(NamedTuple):
    """Labels of some windows, position by position.

    Attributes:
        user_ids: `[rows]`, strings.
        window_starts: `[rows]`, the first position that the teacher read.
        positions: `[rows]`, counted from the start of the user's history; those of a window follow
            each other from its first.
        hashes: `[rows]`, hash of the history up to and including the position.
        states: `[rows, dim]`, the teacher's final states.
        top_ids: `[rows, k]`, item_idx of the items that the teacher ranks first, best first, of
            those that compete; 0 pads a shorter list. None: not stored.
    """

    user_ids: pl.Series
    window_starts: NDArray[np.int32]
    positions: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    states: NDArray[np.float32]
    top_ids: NDArray[np.int32] | None = None


def state_labels(labels: pl.DataFrame, histories: ResidentHistories, folder: Path) -> StateLabels:
    """The labels of some files as windows of the histories.

    Args:
        labels: The rows of the files.
        histories: The training events.
        folder: The store, for messages.

    Raises:
        SoftLabelError: A label does not belong to the histories, or a window has a gap.
    """
    users, first, events = match(labels, histories, folder)
    offsets = labels["window_start"].to_numpy()
    changes = (np.diff(users) != 0) | (np.diff(offsets) != 0)
    rows = np.concatenate([np.zeros(min(1, len(users)), np.int64), 1 + changes.nonzero()[0]])
    lengths = np.diff(np.append(rows, len(users)))
    starts = first[rows] + offsets[rows]
    places = np.arange(len(users)) - np.repeat(rows, lengths)
    if not np.array_equal(events, np.repeat(starts, lengths) + places):
        msg = (
            f"A window of the soft labels in {folder} has a gap: a position is missing or "
            "comes twice. Write the labels again."
        )
        raise SoftLabelError(msg)
    order = np.lexsort((starts, users[rows]))
    windows = Windows(users[rows], starts, starts + lengths + 1)
    return StateLabels(
        Windows(*(part[order] for part in windows)),
        rows[order],
        labels["state"].to_numpy(),
        labels["scale"].to_numpy(),
        labels["top_ids"].to_numpy() if "top_ids" in labels.columns else None,
    )


def write_labels(
    path: Path, dim: int, parts: Iterable[LabelRows], *, top_k: int | None = None
) -> int:
    """Write the labels of one bucket, part by part; a kill leaves no half-written file.

    Args:
        path: `labels/<name of the histories' bucket file>`.
        dim: Width of the states.
        parts: Whole windows; memory is that of one part.
        top_k: Items beside each state; None: none.

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
    encoding: dict[str, Any] = {}
    if top_k is not None:  # the high bytes of ids repeat
        encoding = {
            "use_dictionary": list(schema),
            "use_byte_stream_split": ["top_ids.list.element"],
        }
        schema["top_ids"] = pl.Array(pl.Int32, top_k)
    arrow_schema = pl.DataFrame(schema=schema).to_arrow().schema
    n_labels = 0
    path.parent.mkdir(exist_ok=True)
    with (
        replacing(path) as draft,
        ParquetWriter(draft, arrow_schema, compression="zstd", **encoding) as writer,
    ):
        for part in parts:
            columns = (*part[:4], *quantize_rows(part.states))
            if part.top_ids is not None:
                columns = (*columns, part.top_ids)
            table = pl.DataFrame(dict(zip(schema, columns, strict=True)), schema)
            writer.write_table(table.to_arrow())
            n_labels += len(part.states)
    return n_labels


def describe(
    folder: Path,
    *,
    teacher: str,
    item_index_sha256: str,
    trained_through: str | None,
    item_vectors: NDArray[np.float32],
    top_k: int | None = None,
) -> SoftLabelDescription:
    """Finish a store: write the item vectors `[n_items + 1, dim]` and the description.

    Args:
        folder: The store's; its labels are in `labels/`.
        teacher: Its key.
        item_index_sha256: Hash of the item ids that the item_idx belong to.
        trained_through: The teacher's training events were before this, ISO 8601; None: unknown.
        item_vectors: The teacher's.
        top_k: Items beside each state; None: none.

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
    return finish(
        folder,
        layout="factorized",
        teacher=teacher,
        item_index_sha256=item_index_sha256,
        n_items=len(item_vectors) - 1,
        trained_through=trained_through,
        columns=("state", "scale") if top_k is None else ("state", "scale", "top_ids"),
        dim=dim,
        top_k=top_k,
    )


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
