"""How much of the training data a store of soft labels covers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.soft_labels.description import LABELS, SoftLabelError
from recsys_core.data.soft_labels.factorized import StateLabels
from recsys_core.data.soft_labels.store import SoftLabels


@dataclass(frozen=True)
class Coverage:
    """What has a label, of the training data.

    Attributes:
        users: Users with a label.
        n_users: Users with a position that has a next training event.
        positions: Positions with a label.
        n_positions: All such positions.
        items: Distinct items that labels list or draw; all of them if the layout is factorized.
        n_items: Items of the catalogue.
    """

    users: int
    n_users: int
    positions: int
    n_positions: int
    items: int
    n_items: int


def coverage(store: SoftLabels, buckets: Sequence[Path]) -> Coverage:
    """Check every file of a store against its checksum and the histories, and count.

    Args:
        store: The store.
        buckets: Files of histories.

    Raises:
        SoftLabelError: A file has changed, does not belong to the histories, or is of a bucket that
            they lack.
    """
    description = store.description
    names = {f"{LABELS}/{path.name}" for path in buckets}
    files = {name for name in description.sha256 if name.startswith(f"{LABELS}/")}
    if others := sorted(files - names):
        msg = (
            f"{store.folder / others[0]} is of a bucket that these histories lack: they are spread "
            f"over {len(buckets)} files, and the labels over {len(files)}. Write the labels again."
        )
        raise SoftLabelError(msg)
    counts = np.zeros(4, np.int64)
    listed = np.zeros(description.n_items + 1, np.bool_)
    if description.layout == "factorized":
        listed[1 : len(store.item_vectors())] = True
    for path in buckets:
        histories = read_training_histories([path])
        labels = store.align(histories, [path])
        n_positions = np.maximum(histories.lengths - 1, 0)
        has_label = np.zeros(len(histories.items) + 1, np.int64)
        if isinstance(labels, StateLabels):
            np.add.at(has_label, labels.windows.starts, 1)
            np.add.at(has_label, labels.windows.ends - 1, -1)
            is_labelled = np.cumsum(has_label)[:-1] > 0
        else:
            is_labelled = labels.rows >= 0
            for ids in (labels.top_ids, labels.sample_ids):
                if ids is not None:
                    listed[ids.ravel()] = True
        of_user = np.searchsorted(histories.starts, is_labelled.nonzero()[0], side="right")
        counts += (
            len(np.unique(of_user)),
            int((n_positions > 0).sum()),
            int(is_labelled.sum()),
            int(n_positions.sum()),
        )
    users, n_users, positions, n_positions = counts.tolist()
    n_listed = int(listed[1:].sum())
    return Coverage(users, n_users, positions, n_positions, n_listed, description.n_items)
