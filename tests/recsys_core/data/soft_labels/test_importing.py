"""Labels made elsewhere: what becomes a label, and what is dropped and counted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_core.artifacts import sha256_file
from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.soft_labels.coverage import Coverage, coverage
from recsys_core.data.soft_labels.description import SoftLabelError
from recsys_core.data.soft_labels.importing import ImportSummary, import_labels
from recsys_core.data.soft_labels.label_file import read_label_file
from recsys_core.data.soft_labels.sparse import SparseLabels
from recsys_core.data.soft_labels.store import SoftLabels

ITEMS = pl.DataFrame({"item_id": ["v", "w", "x", "y", "z"], "item_idx": [1, 2, 3, 4, 5]})
ROWS = [
    ("a", 1, "w", ["z", "?", "x", "z", "y", "v"], [9.0, 8, 7, 6, 5, 4]),
    ("b", 1, "x", ["w"], [1.0]),
    ("a", 3, "y", ["w"], [1.0]),
    ("a", 0, "v", ["w"], [1.0]),
    ("nobody", 1, "v", ["w"], [1.0]),
    ("a", 2, "v", ["w"], [1.0]),
    ("c", 1, "y", ["?", "!"], [1.0, 0]),
    ("c", 2, "x", ["y", "z"], [2.5, 1]),
]
"""user, n_events, last item, list, scores. a has read w, x, then y; b x, z; c y, x, w."""


@pytest.fixture
def buckets(
    tmp_path: Path, write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]]
) -> list[Path]:
    users = [
        [("a", [2, 3, 4, 1], 3, 4), ("d", [1], 1, 1)],
        [("b", [3, 5], 2, 2), ("c", [4, 3, 2], 3, 3)],
    ]
    return write_buckets(tmp_path / "histories", users)


def _import(
    tmp_path: Path,
    buckets: list[Path],
    rows: list[tuple[Any, ...]] = ROWS,
    *drop: str,
    max_items: int = 3,
) -> tuple[ImportSummary, SoftLabels]:
    names = ["user_id", "n_events", "last_item_id", "item_ids", "scores"]
    path = tmp_path / "labels.parquet"
    pl.DataFrame(rows, schema=names, orient="row").drop(drop).write_parquet(path)
    summary = import_labels(
        read_label_file(path),
        path,
        tmp_path / "store",
        teacher="a language model",
        items=ITEMS,
        item_index_sha256="index",
        buckets=buckets,
        trained_through="2026-01-01",
        max_items=max_items,
    )
    return summary, SoftLabels(tmp_path / "store", item_index_sha256="index")


def test_what_fits_becomes_a_label_and_the_rest_is_counted(
    tmp_path: Path, buckets: list[Path]
) -> None:
    summary, store = _import(tmp_path, buckets)
    assert summary == ImportSummary(
        source="labels.parquet",
        source_sha256=sha256_file(tmp_path / "labels.parquet"),
        rows=8,
        labels=3,
        dropped_rows={
            "of users without a history": 1,
            "outside of the training events": 2,
            "whose last_item_id is another item": 1,
            "without any known item": 1,
        },
        dropped_items={
            "unknown items": 3,
            "repetitions of an item": 1,
            "items beyond the longest list kept": 1,
        },
    )
    assert ImportSummary.load(store.folder) == summary
    histories = read_training_histories(buckets)
    labels = store.align(histories, buckets)
    assert isinstance(labels, SparseLabels)
    by_event = {
        (histories.user_ids[user], int(event - histories.starts[user])): labels.top_ids[
            row
        ].tolist()
        for event, row in enumerate(labels.rows)
        if row >= 0
        for user in [int(np.searchsorted(histories.starts, event, side="right")) - 1]
    }
    assert by_event == {("a", 0): [5, 3, 4], ("b", 0): [2, 0, 0], ("c", 1): [4, 5, 0]}
    assert labels.top_logits is not None
    assert sorted(labels.top_logits.tolist()) == [[1, 0, 0], [2.5, 1, 0], [9, 7, 5]]
    assert store.description.teacher == "a language model"
    assert store.description.trained_through == "2026-01-01"


def test_without_the_last_item_a_row_is_taken_at_its_word(
    tmp_path: Path, buckets: list[Path]
) -> None:
    summary, store = _import(tmp_path, buckets, ROWS, "last_item_id", "scores")
    assert summary.labels == 4
    assert store.description.columns == ("top_ids",)


def test_the_normaliser_is_of_the_catalogue(tmp_path: Path, buckets: list[Path]) -> None:
    """Item ? is unknown, has half of the probability, and is listed twice; w has all of its own."""
    path = tmp_path / "labels.parquet"
    rows = [
        ("a", 1, ["?", "z", "?"], np.log([2.0, 1.0, 0.5]), np.log(4)),
        ("b", 1, ["w"], [1.0], 1.0),
        ("c", 1, ["?", "w"], [5.0, 0.0], 5.0),
    ]
    names = ["user_id", "n_events", "item_ids", "scores", "log_normalizer"]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(path)
    import_labels(
        read_label_file(path),
        path,
        tmp_path / "store",
        teacher="t",
        items=ITEMS,
        item_index_sha256="index",
        buckets=buckets,
        trained_through=None,
        max_items=3,
    )
    labels = pl.read_parquet(tmp_path / "store" / "labels" / "*.parquet").sort("user_id")
    np.testing.assert_allclose(labels["log_normalizer"], [np.log(2), 1, 0], atol=1e-5)


def test_coverage_counts_users_positions_and_items(tmp_path: Path, buckets: list[Path]) -> None:
    _, store = _import(tmp_path, buckets)
    assert coverage(store, buckets) == Coverage(
        users=3, n_users=3, positions=3, n_positions=5, items=4, n_items=5
    )
    with pytest.raises(SoftLabelError, match="is of a bucket that these histories lack"):
        coverage(store, buckets[:1])


def test_if_nothing_fits_there_is_no_store(tmp_path: Path, buckets: list[Path]) -> None:
    with pytest.raises(SoftLabelError, match=r"No row of .*: 1 of users without a history."):
        _import(tmp_path, buckets, ROWS[4:5])
    assert not (tmp_path / "store").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, buckets: list[Path]) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mine.txt").write_text("mine")
    with pytest.raises(SoftLabelError, match=r"is not empty\. Name another folder"):
        _import(tmp_path, buckets)
