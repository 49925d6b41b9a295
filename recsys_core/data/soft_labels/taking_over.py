"""The labels of a sparse store that fit tonight's histories become tonight's labels.

Histories grow and users leave between the night that a store was imported for and later ones. A
label still fits where the events that its teacher read are the same.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys_core.artifacts import sha256_file
from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.soft_labels.coverage import coverage
from recsys_core.data.soft_labels.description import LABELS, SoftLabelDescription, SoftLabelError
from recsys_core.data.soft_labels.label_origin import LabelOrigin
from recsys_core.data.soft_labels.matching import fitting
from recsys_core.data.soft_labels.sparse import SparseRows, SparseShape
from recsys_core.data.soft_labels.sparse_writing import describe_sparse, write_sparse_labels
from recsys_core.data.soft_labels.store import SoftLabels


def take_over(
    store: SoftLabels,
    folder: Path,
    *,
    item_index_sha256: str,
    n_items: int,
    buckets: Sequence[Path],
) -> SoftLabelDescription:
    """Write the labels of a store that fit, with their origin.

    Args:
        store: Of a prefix of tonight's item index.
        folder: Where to write.
        item_index_sha256: Hash of tonight's item ids.
        n_items: Number of these ids.
        buckets: Tonight's files of histories.

    Raises:
        SoftLabelError: The store is not sparse, a file of it has changed, it is spread over other
            buckets, or no label fits.
    """
    before = store.description
    if before.layout != "sparse" or before.top_k is None:
        msg = (
            f"{store.folder} is of the layout {before.layout}, which belongs to the night that "
            "wrote it. Name a store of `recdistill soft-labels import`."
        )
        raise SoftLabelError(msg)
    files = {f"{LABELS}/{path.name}" for path in buckets}
    if files != before.sha256.keys():
        msg = (
            f"{store.folder} is spread over {len(before.sha256)} buckets, tonight's histories over "
            f"{len(buckets)} (prepare.n_buckets). Import the labels again."
        )
        raise SoftLabelError(msg)
    shape = SparseShape(
        before.top_k,
        with_logits="top_logits" in before.columns,
        with_normalizer="log_normalizer" in before.columns,
        n_samples=before.n_samples,
    )
    kept = 0
    for path in buckets:
        labels = store.read(f"{LABELS}/{path.name}")
        labels = labels.filter(fitting(labels, read_training_histories([path])))
        kept += write_sparse_labels(folder / LABELS / path.name, shape, [_rows(labels)])
    if not kept:
        msg = f"None of the {before.rows:,} labels in {store.folder} fits. Import them again."
        raise SoftLabelError(msg)
    description = describe_sparse(
        folder,
        teacher=before.teacher,
        item_index_sha256=item_index_sha256,
        n_items=n_items,
        trained_through=before.trained_through,
        shape=shape,
    )
    covered = coverage(SoftLabels(folder, item_index_sha256=item_index_sha256), buckets)
    LabelOrigin(
        teacher=before.teacher,
        trained_through=before.trained_through,
        store_sha256=sha256_file(store.folder / SoftLabelDescription.file_name),
        labels=kept,
        stale=before.rows - kept,
        users=covered.users,
        n_users=covered.n_users,
        positions=covered.positions,
        n_positions=covered.n_positions,
    ).save(folder)
    return description


def _rows(labels: pl.DataFrame) -> SparseRows:
    names = ("top_logits", "log_normalizer", "sample_ids", "sample_counts")
    others = {name: labels[name].to_numpy() for name in names if name in labels.columns}
    return SparseRows(
        labels["user_id"],
        labels["position"].to_numpy(),
        labels["prefix_hash"].to_numpy(),
        labels["top_ids"].to_numpy(),
        **others,
    )
