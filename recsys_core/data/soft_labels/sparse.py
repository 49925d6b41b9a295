"""Soft labels on disk in the sparse layout: for each position the items that a teacher ranks first.

It is for teachers that are no dot product, such as a language model, and for those made elsewhere.
A label is a ranked list of items, perhaps with their scores, and perhaps with draws from the whole
distribution. A position has one label or none, and a student may read any window around it.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels.description import SoftLabelError
from recsys_core.data.soft_labels.matching import match


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
