"""Stores of sparse labels over prepared histories."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.data.soft_labels.matching import prefix_hashes
from recsys_core.data.soft_labels.sparse import SparseRows, SparseShape
from recsys_core.data.soft_labels.sparse_writing import describe_sparse, write_sparse_labels
from recsys_core.data.soft_labels.store import SoftLabels

Label = Callable[[ResidentHistories, NDArray[np.int64], SparseRows], SparseRows]
"""Fill in the labels of some events of the histories."""


def write_sparse_store(
    folder: Path,
    buckets: Sequence[Path],
    shape: SparseShape,
    label: Label,
    *,
    n_items: int,
    every: int = 1,
) -> SoftLabels:
    """Label every n-th of the positions that have a next event."""
    for path in buckets:
        histories = read_training_histories([path])
        users = np.repeat(np.arange(len(histories.lengths)), histories.lengths)
        positions = np.arange(len(users)) - histories.starts[users]
        is_labelled = (positions < histories.lengths[users] - 1) & (positions % every == 0)
        events = np.flatnonzero(is_labelled)
        rows = SparseRows(
            histories.user_ids.gather(pl.Series(users[events], dtype=pl.UInt32)),
            positions[events].astype(np.int32),
            prefix_hashes(histories.items, histories.starts)[events],
            np.zeros((len(events), shape.top_k), np.int32),
        )
        parts = [label(histories, events, rows)] if len(events) else []
        write_sparse_labels(folder / "labels" / path.name, shape, parts)
    describe_sparse(
        folder,
        teacher="made elsewhere",
        item_index_sha256="index",
        n_items=n_items,
        trained_through=None,
        shape=shape,
    )
    return SoftLabels(folder, item_index_sha256="index")
