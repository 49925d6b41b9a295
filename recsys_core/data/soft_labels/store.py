"""Reading a store of soft labels, of either layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.artifacts import sha256_file
from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels.description import (
    FORMAT_VERSION,
    LABELS,
    SoftLabelDescription,
    SoftLabelError,
)
from recsys_core.data.soft_labels.factorized import ITEM_VECTORS, StateLabels, state_labels
from recsys_core.data.soft_labels.sparse import SparseLabels, sparse_labels

_KEY_BYTES = 100
"""Memory of a label's user, position and hash, about, and of matching them with the histories."""


class SoftLabels:
    """A store of soft labels, checked against the catalogue that it is used with.

    A file's checksum is compared before the file is read for the first time.

    >>> from tempfile import TemporaryDirectory
    >>> from recsys_core.data.soft_labels.factorized import describe
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
        folder: Output of the stage that wrote the labels, or of `recdistill soft-labels import`.
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
                f"The soft labels in {folder} were made over another item index, so their items "
                "mean other items. Write the labels again with the present one."
            )
            raise SoftLabelError(msg)
        self._checked: set[str] = set()

    def item_vectors(self) -> NDArray[np.float32]:
        """The teacher's item vectors `[n_items + 1, dim]` by item_idx; row 0 is zero.

        Raises:
            SoftLabelError: The layout is sparse, or the file has changed.
        """
        if self.description.layout != "factorized":
            msg = f"{self.folder} holds lists of items: its teacher has no item vectors."
            raise SoftLabelError(msg)
        vectors = self.read(ITEM_VECTORS)["vector"].to_numpy()
        return np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])

    def align(
        self, histories: ResidentHistories, buckets: Sequence[Path]
    ) -> StateLabels | SparseLabels:
        """The labels of these bucket files, placed in the histories.

        Args:
            histories: The training events.
            buckets: Files of histories; the files of labels have the same names.

        Raises:
            SoftLabelError: A file has changed, a label is for a position that the history lacks,
                the history up to that position has changed since the label was written, a window
                has a gap, or a position of a sparse store comes twice.
        """
        labels = pl.concat([self.read(f"{LABELS}/{path.name}") for path in buckets])
        place = state_labels if self.description.layout == "factorized" else sparse_labels
        return place(labels, histories, self.folder)

    def resident_bytes(self, bucket: Path) -> int:
        """Memory of the labels of a bucket of histories while they are read, approximately.

        Raises:
            SoftLabelError: The store has no labels of this bucket.
        """
        path = self._file(f"{LABELS}/{bucket.name}")
        n_labels = int(pl.scan_parquet(path).select(pl.len()).collect().item())
        return n_labels * (self.description.value_bytes + _KEY_BYTES)

    def read(self, name: str) -> pl.DataFrame:
        """Read a file, whose checksum is compared the first time.

        Args:
            name: Its path within the store.

        Raises:
            SoftLabelError: The file is unknown or missing, or has changed.
        """
        path = self._file(name)
        if name not in self._checked:
            expected = self.description.sha256[name]
            if (found := sha256_file(path)) != expected:
                msg = (
                    f"{path} has changed since the soft labels were written: its SHA-256 is "
                    f"{found}, soft_labels.json says {expected}. Restore the file, or write the "
                    "labels again."
                )
                raise SoftLabelError(msg)
            self._checked.add(name)
        return pl.read_parquet(path)

    def _file(self, name: str) -> Path:
        path, is_listed = self.folder / name, name in self.description.sha256
        if not is_listed or not path.is_file():
            what = "is missing" if is_listed else "is not listed in soft_labels.json"
            msg = f"{path} {what}: the store is incomplete or of other buckets. Write it again."
            raise SoftLabelError(msg)
        return path
