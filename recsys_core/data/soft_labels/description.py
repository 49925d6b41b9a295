"""`soft_labels.json`: what a store holds, of which teacher, and the checksums of its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl

from recsys_core.artifacts import sha256_file
from recsys_core.json_file import JsonFile

FORMAT_VERSION = 3
LABELS = "labels"

Layout = Literal["factorized", "sparse"]


class SoftLabelError(ValueError):
    """The stored labels do not fit the histories, the catalogue or this format version."""


class SoftLabelDescription(JsonFile):
    """What a store of soft labels holds, and of which teacher.

    Attributes:
        format_version: Version of the layout on disk.
        layout: "factorized" or "sparse".
        teacher: Key of the teacher, or its name if it was made elsewhere.
        item_index_sha256: Hash of the item ids that the item_idx of the labels belong to.
        n_items: Number of these ids.
        trained_through: The teacher's training events were before this, ISO 8601; None: unknown.
        columns: The columns of a label, without those that say where it belongs.
        dim: Width of states and item vectors; None if sparse.
        top_k: Items in a list; None if a label has none.
        n_samples: Draws from the teacher's distribution for each label; 0: none.
        rows: Number of labels; a position that lies in two windows has two.
        bytes: Size of the files in `labels/`.
        sha256: Checksum of each file, by its path within the store.
    """

    file_name = "soft_labels.json"

    format_version: int
    layout: Layout
    teacher: str
    item_index_sha256: str
    n_items: int
    trained_through: str | None
    columns: tuple[str, ...]
    dim: int | None = None
    top_k: int | None = None
    n_samples: int = 0
    rows: int
    bytes: int
    sha256: dict[str, str]

    @property
    def value_bytes(self) -> int:
        """Memory of what one label says, without where it belongs."""
        of_column = {
            "state": self.dim or 0,  # int8
            "scale": 4,
            "top_ids": 4 * (self.top_k or 0),
            "top_logits": 2 * (self.top_k or 0),
            "log_normalizer": 4,
            "sample_ids": 4 * self.n_samples,
            "sample_counts": 2 * self.n_samples,
        }
        return sum(of_column[name] for name in self.columns)

    def after_revision(self, folder: Path, files: Mapping[str, str]) -> "SoftLabelDescription":
        """The description of the store after rows were deleted from its files.

        Args:
            folder: The store's.
            files: The new checksum of each file, by its path within the store; others are ignored.
        """
        rows, size = _size(folder)
        sha256 = {name: files[name] for name in self.sha256}
        return self.model_copy(update={"rows": rows, "bytes": size, "sha256": sha256})


def store_sha256(folder: Path) -> str | None:
    """Checksum of a store's `soft_labels.json`, and so of all its files; None: there is none."""
    path = folder / SoftLabelDescription.file_name
    return sha256_file(path) if path.is_file() else None


def finish(
    folder: Path,
    *,
    layout: Layout,
    teacher: str,
    item_index_sha256: str,
    n_items: int,
    trained_through: str | None,
    columns: tuple[str, ...],
    dim: int | None = None,
    top_k: int | None = None,
    n_samples: int = 0,
) -> SoftLabelDescription:
    """Finish a store whose files are written: count, compute checksums, save the description.

    Args:
        folder: The store's; its labels are in `labels/`.
        layout: See `SoftLabelDescription`, as for all other arguments.
        teacher: Key or name.
        item_index_sha256: Of the item ids.
        n_items: Number of these ids.
        trained_through: ISO 8601; None: unknown.
        columns: Of a label.
        dim: Width of the states.
        top_k: Items in a list.
        n_samples: Draws for each label.
    """
    rows, size = _size(folder)
    files = sorted(folder.rglob("*.parquet"))
    description = SoftLabelDescription(
        format_version=FORMAT_VERSION,
        layout=layout,
        teacher=teacher,
        item_index_sha256=item_index_sha256,
        n_items=n_items,
        trained_through=trained_through,
        columns=columns,
        dim=dim,
        top_k=top_k,
        n_samples=n_samples,
        rows=rows,
        bytes=size,
        sha256={path.relative_to(folder).as_posix(): sha256_file(path) for path in files},
    )
    description.save(folder)
    return description


def _size(folder: Path) -> tuple[int, int]:
    """Rows and bytes of the files in `labels/`."""
    files = sorted((folder / LABELS).glob("*.parquet"))
    rows = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in files)
    return rows, sum(path.stat().st_size for path in files)
