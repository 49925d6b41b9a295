"""A store whose files have changed is refused, whatever its layout."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_core.data.soft_labels.description import SoftLabelDescription, SoftLabelError
from recsys_core.data.soft_labels.factorized import LabelRows, describe, write_labels
from recsys_core.data.soft_labels.matching import prefix_hashes
from recsys_core.data.soft_labels.sparse import SparseRows, SparseShape
from recsys_core.data.soft_labels.sparse_writing import describe_sparse, write_sparse_labels
from recsys_core.data.soft_labels.store import SoftLabels
from tests.resident import resident_histories

BUCKET = Path("bucket-000.parquet")
HISTORIES = resident_histories({"a": [1, 2, 3]})
USERS, POSITIONS = pl.Series(["a", "a"]), np.array([0, 1], np.int32)
HASHES = prefix_hashes(HISTORIES.items, HISTORIES.starts)[:2]


@pytest.fixture(params=["factorized", "sparse"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "labels" / BUCKET.name
    path.parent.mkdir()
    if request.param == "factorized":
        rows = LabelRows(USERS, np.zeros(2, np.int32), POSITIONS, HASHES, np.eye(2, 3, dtype="f"))
        write_labels(path, 3, [rows])
        vectors = np.ones((4, 3), np.float32)
        describe(
            tmp_path,
            teacher="t",
            item_index_sha256="index",
            trained_through=None,
            item_vectors=vectors,
        )
    else:
        ids = np.array([[3, 1], [2, 0]], np.int32)
        write_sparse_labels(path, SparseShape(2), [SparseRows(USERS, POSITIONS, HASHES, ids)])
        describe_sparse(
            tmp_path,
            teacher="t",
            item_index_sha256="index",
            n_items=3,
            trained_through=None,
            shape=SparseShape(2),
        )
    return tmp_path


def _change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_is_refused_before_the_file_is_read(folder: Path) -> None:
    _change_a_byte(folder / "labels" / BUCKET.name)
    labels = SoftLabels(folder, item_index_sha256="index")
    with pytest.raises(SoftLabelError, match=r"bucket-000.parquet has changed since .* SHA-256"):
        labels.align(HISTORIES, [BUCKET])


def test_changed_item_vectors_are_refused(folder: Path) -> None:
    if (path := folder / "item_vectors.parquet").exists():
        _change_a_byte(path)
        labels = SoftLabels(folder, item_index_sha256="index")
        labels.align(HISTORIES, [BUCKET])
        with pytest.raises(SoftLabelError, match=r"item_vectors.parquet has changed"):
            labels.item_vectors()


def test_a_missing_file_and_one_that_was_added_are_refused(folder: Path) -> None:
    (folder / "labels" / BUCKET.name).rename(folder / "labels" / "bucket-001.parquet")
    labels = SoftLabels(folder, item_index_sha256="index")
    with pytest.raises(SoftLabelError, match=r"bucket-000.parquet is missing"):
        labels.align(HISTORIES, [BUCKET])
    with pytest.raises(SoftLabelError, match=r"bucket-001.parquet is not listed"):
        labels.align(HISTORIES, [Path("bucket-001.parquet")])


def test_the_description_after_a_revision_has_the_new_checksums(folder: Path) -> None:
    path = folder / "labels" / BUCKET.name
    before = SoftLabelDescription.load(folder)
    pl.read_parquet(path)[:1].write_parquet(path)
    files = {name: "new" for name in before.sha256} | {"other.json": "other"}
    after = before.after_revision(folder, files)
    assert after.rows == 1
    assert after.bytes == path.stat().st_size
    assert after.sha256 == dict.fromkeys(before.sha256, "new")
