"""The sparse layout: what comes back, what a position costs, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_core.data.soft_labels.description import SoftLabelDescription, SoftLabelError
from recsys_core.data.soft_labels.matching import prefix_hashes
from recsys_core.data.soft_labels.sparse import SparseLabels, SparseRows, SparseShape, sparse_labels
from recsys_core.data.soft_labels.sparse_writing import describe_sparse, write_sparse_labels
from recsys_core.data.soft_labels.store import SoftLabels
from tests.resident import resident_histories

BUCKETS = [Path("bucket-000.parquet"), Path("bucket-001.parquet")]
HISTORIES = resident_histories({"a": [5, 6, 7], "empty": [], "b": [5, 6, 7, 8], "c": [1]})
SHAPE = SparseShape(3, with_logits=True, with_normalizer=True, n_samples=4)
EVENTS = np.array([4, 0, 3])
"""Of "b" the position 1, of "a" the position 0, of "b" the position 0."""
ROWS = SparseRows(
    pl.Series(["b", "a", "b"]),
    np.array([1, 0, 0], np.int32),
    prefix_hashes(HISTORIES.items, HISTORIES.starts)[EVENTS],
    np.array([[9, 2, 4], [1, 0, 0], [3, 8, 0]], np.int32),
    np.array([[2.5, 1.25, -3], [0.5, np.nan, np.inf], [7, 6, 0]], np.float32),
    np.array([3.0, 1.5, 8], np.float32),
    np.array([[9, 7, 0, 0], [1, 2, 3, 4], [5, 0, 0, 0]], np.int32),
    np.array([[3, 1, 0, 0], [1, 1, 1, 1], [4, 0, 0, 0]], np.int64),
)


def _store(folder: Path, rows: SparseRows = ROWS, shape: SparseShape = SHAPE) -> SoftLabels:
    parts = [_some(rows, slice(0, 2)), _some(rows, slice(2, None))]
    for path, part in zip(BUCKETS, parts, strict=True):
        n_labels = write_sparse_labels(folder / "labels" / path.name, shape, [part])
        assert n_labels == len(part.positions)
    describe_sparse(
        folder,
        teacher="a language model",
        item_index_sha256="index",
        n_items=9,
        trained_through=None,
        shape=shape,
    )
    return SoftLabels(folder, item_index_sha256="index")


def _some(rows: SparseRows, which: slice) -> SparseRows:
    parts: list[Any] = [None if part is None else part[which] for part in rows]
    return SparseRows(*parts)


def test_labels_come_back_by_event(tmp_path: Path) -> None:
    labels = _store(tmp_path).align(HISTORIES, BUCKETS)
    assert isinstance(labels, SparseLabels)
    assert labels.rows.tolist() == [1, -1, -1, 2, 0, -1, -1, -1]
    assert labels.top_ids.tolist() == ROWS.top_ids.tolist()
    assert labels.top_logits is not None
    assert labels.top_logits.tolist() == [[2.5, 1.25, -3], [0.5, 0, 0], [7, 6, 0]]
    assert labels.log_normalizer is not None
    assert labels.log_normalizer.tolist() == [3, 1.5, 8]
    assert labels.sample_ids is not None
    assert labels.sample_counts is not None
    assert labels.sample_ids.tolist() == [[9, 7, 0, 0], [1, 2, 3, 4], [5, 0, 0, 0]]
    assert labels.sample_counts.tolist() == [[3, 1, 0, 0], [1, 1, 1, 1], [4, 0, 0, 0]]


def test_lists_alone_are_enough(tmp_path: Path) -> None:
    rows = ROWS._replace(top_logits=None, log_normalizer=None, sample_ids=None, sample_counts=None)
    store = _store(tmp_path, rows, SparseShape(3))
    labels = store.align(HISTORIES, BUCKETS)
    assert isinstance(labels, SparseLabels)
    assert labels.top_ids.tolist() == ROWS.top_ids.tolist()
    assert labels[2:] == (None,) * 4
    assert store.description.columns == ("top_ids",)
    with pytest.raises(SoftLabelError, match="its teacher has no item vectors"):
        store.item_vectors()


def test_the_description_says_what_is_in_the_store(tmp_path: Path) -> None:
    description = _store(tmp_path).description
    files = [tmp_path / "labels" / path.name for path in BUCKETS]
    assert description == SoftLabelDescription(
        format_version=3,
        layout="sparse",
        teacher="a language model",
        item_index_sha256="index",
        n_items=9,
        trained_through=None,
        columns=("top_ids", "top_logits", "log_normalizer", "sample_ids", "sample_counts"),
        top_k=3,
        n_samples=4,
        rows=3,
        bytes=sum(path.stat().st_size for path in files),
        sha256=description.sha256,
    )
    assert sorted(description.sha256) == [f"labels/{path.name}" for path in BUCKETS]


def test_64_items_with_logits_cost_at_most_230_bytes_a_position(tmp_path: Path) -> None:
    """Of a flat softmax over 3,416 items, as ml-1m has: the most expensive case of few items."""
    n_rows, n_items, top_k = 20_000, 3_416, 64
    random = np.random.default_rng(0)
    items = resident_histories(
        {str(user): random.integers(1, n_items, 201).tolist() for user in range(n_rows // 200)}
    )
    positions = np.tile(np.arange(200, dtype=np.int32), n_rows // 200)
    users = np.repeat(np.arange(n_rows // 200), 200)
    popularity = np.log(1 / np.arange(1, n_items + 1))
    logits = popularity + 2 * random.standard_normal((n_rows, n_items), np.float32)
    top_ids = np.argsort(-logits, axis=1)[:, :top_k]
    rows = SparseRows(
        items.user_ids.gather(pl.Series(users)),
        positions,
        prefix_hashes(items.items, items.starts)[users * 201 + positions],
        (top_ids + 1).astype(np.int32),
        np.take_along_axis(logits, top_ids, axis=1).astype(np.float32),
        np.log(np.exp(logits).sum(axis=1)).astype(np.float32),
    )
    path = tmp_path / "labels" / "bucket-000.parquet"
    shape = SparseShape(top_k, with_logits=True, with_normalizer=True)
    assert write_sparse_labels(path, shape, [rows]) == n_rows
    assert path.stat().st_size / n_rows <= 230
    assert pl.read_parquet(path)["top_ids"].to_numpy().tolist() == rows.top_ids.tolist()
    lists = rows._replace(top_logits=None, log_normalizer=None)
    write_sparse_labels(path, SparseShape(top_k), [lists])
    assert path.stat().st_size / n_rows <= 130


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"top_ids": [[9, 2, 9], [1, 0, 0], [3, 8, 0]]}, "top_ids must hold distinct items"),
        ({"top_ids": [[9, 0, 4], [1, 0, 0], [3, 8, 0]]}, "top_ids must hold distinct items"),
        ({"top_ids": [[9, 2, 4], [0, 0, 0], [3, 8, 0]]}, "top_ids must hold distinct items"),
        ({"top_ids": [[9, 2, -4], [1, 0, 0], [3, 8, 0]]}, "top_ids must hold distinct items"),
        ({"top_logits": [[1, np.nan, 0], [1, 0, 0], [3, 8, 0]]}, "top_logits hold nan"),
        ({"top_logits": [[1, 0, 0], [1e5, 0, 0], [3, 8, 0]]}, "top_logits hold 100000"),
        ({"top_logits": [[1, 0, 0], [1000.2, 0, 0], [3, 8, 0]]}, "more than 0.1 nats"),
        ({"log_normalizer": [1, np.inf, 2]}, "log_normalizer holds NaN or infinity"),
        ({"sample_counts": [[3, 0, 0, 0], [1] * 4, [4, 0, 0, 0]]}, "add up to the 4 draws"),
        ({"sample_counts": [[3, 1, 0, 0], [1] * 4, [4, 1, 0, 0]]}, "be 0 where sample_ids are"),
        ({"sample_counts": [[5, -1, 0, 0], [1] * 4, [4, 0, 0, 0]]}, "add up to the 4 draws"),
    ],
)
def test_labels_that_would_be_misread_are_not_written(
    tmp_path: Path, changes: dict[str, list[Any]], sentence: str
) -> None:
    dtypes = {name: getattr(ROWS, name).dtype for name in changes}
    arrays = {name: np.array(values, dtypes[name]) for name, values in changes.items()}
    path = tmp_path / "labels" / BUCKETS[0].name
    with pytest.raises(SoftLabelError, match=sentence):
        write_sparse_labels(path, SHAPE, [ROWS._replace(**arrays)])
    assert not path.exists()


def test_a_position_with_two_labels_is_refused(tmp_path: Path) -> None:
    labels = pl.read_parquet(_store(tmp_path).folder / "labels" / BUCKETS[0].name)
    with pytest.raises(SoftLabelError, match=r"1 positions of the soft labels .* come twice"):
        sparse_labels(labels[[0, 1, 0]], HISTORIES, tmp_path)


@pytest.mark.parametrize(
    "users",
    [{"a": [6, 7], "b": [5, 6, 7]}, {"a": [5, 6], "b": [5, 6]}, {"b": [5, 6, 7, 8]}],
    ids=["changed", "shorter", "user gone"],
)
def test_labels_of_other_histories_are_refused(tmp_path: Path, users: dict[str, list[int]]) -> None:
    with pytest.raises(SoftLabelError, match=r"1 of 3 soft labels .* do not belong"):
        _store(tmp_path).align(resident_histories(users), BUCKETS)
