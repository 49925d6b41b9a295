"""The factorized layout: nearly exact, and refused where it does not belong."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_core.artifacts import sha256_file
from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels.description import SoftLabelDescription, SoftLabelError
from recsys_core.data.soft_labels.factorized import (
    LabelRows,
    StateLabels,
    describe,
    quantize_rows,
    state_labels,
    write_labels,
)
from recsys_core.data.soft_labels.matching import prefix_hashes
from recsys_core.data.soft_labels.store import SoftLabels
from tests.resident import resident_histories

BUCKET = Path("bucket-000.parquet")


HISTORIES = resident_histories({"a": [5, 6, 7], "empty": [], "b": [5, 6, 7, 8], "c": [1]})
EVENTS = np.array([3, 4, 4, 5, 0, 1])
"""Of "b" the positions 0 and 1, then 1 and 2 as a second window, of "a" 0 and 1."""
WINDOW_STARTS = np.array([0, 0, 1, 1, 0, 0], np.int32)
STATES = np.arange(18, dtype=np.float32).reshape(6, 3) - 8.5


def _write(path: Path, histories: ResidentHistories = HISTORIES) -> None:
    users = np.searchsorted(histories.starts, EVENTS, side="right") - 1
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = LabelRows(
        histories.user_ids.gather(pl.Series(users)),
        WINDOW_STARTS,
        (EVENTS - histories.starts[users]).astype(np.int32),
        prefix_hashes(histories.items, histories.starts)[EVENTS],
        STATES,
    )
    assert write_labels(path, 3, [_rows_of(rows, 0, 4), _rows_of(rows, 4, 6)]) == len(EVENTS)


def _rows_of(rows: LabelRows, start: int, end: int) -> LabelRows:
    return LabelRows(
        rows.user_ids[start:end],
        rows.window_starts[start:end],
        rows.positions[start:end],
        rows.hashes[start:end],
        rows.states[start:end],
    )


@pytest.fixture
def store(tmp_path: Path) -> SoftLabels:
    folder = tmp_path / "soft"
    _write(folder / "labels" / BUCKET.name)
    vectors = np.concatenate([np.zeros((1, 3)), np.eye(3), np.full((6, 3), 0.5)])
    describe(
        folder,
        teacher="the teacher",
        item_index_sha256="index",
        trained_through="2026-01-01",
        item_vectors=vectors.astype(np.float32),
    )
    return SoftLabels(folder, item_index_sha256="index")


FINITE = st.floats(-1e4, 1e4, width=32)


@given(arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 6)), elements=FINITE))
def test_rounding_is_bounded_by_half_a_step(values: np.ndarray) -> None:
    quantized, scales = quantize_rows(values)
    assert quantized.dtype == np.int8
    assert scales.dtype == np.float32
    assert quantized.shape == values.shape
    error = np.abs(quantized * scales[:, None].astype(np.float64) - values)
    assert (error <= scales[:, None] * 0.5001 + 1e-38).all()
    largest = np.abs(values).max(axis=1, initial=0)
    np.testing.assert_allclose(scales, largest / 127, rtol=1e-5, atol=1e-38)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_teacher_is_refused(tmp_path: Path, value: float) -> None:
    values = np.ones((2, 3), np.float32)
    values[1, 2] = value
    with pytest.raises(SoftLabelError, match="states hold NaN or infinity"):
        quantize_rows(values)
    (tmp_path / "labels").mkdir()
    with pytest.raises(SoftLabelError, match="item vectors hold NaN or infinity"):
        describe(
            tmp_path, teacher="t", item_index_sha256="i", trained_through=None, item_vectors=values
        )


def test_labels_come_back_as_windows_of_the_histories(store: SoftLabels) -> None:
    labels = store.align(HISTORIES, [BUCKET])
    assert isinstance(labels, StateLabels)
    assert [part.tolist() for part in labels.windows] == [[0, 2, 2], [0, 3, 4], [3, 6, 7]]
    assert labels.rows.tolist() == [4, 0, 2]
    restored = labels.states * labels.scales[:, None]
    np.testing.assert_allclose(restored, STATES, atol=8.5 / 127 / 2)


def test_a_store_of_no_labels_has_no_windows(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    assert write_labels(folder / "labels" / BUCKET.name, 3, []) == 0
    describe(
        folder,
        teacher="t",
        item_index_sha256="index",
        trained_through=None,
        item_vectors=np.zeros((2, 3), np.float32),
    )
    labels = SoftLabels(folder, item_index_sha256="index").align(HISTORIES, [BUCKET])
    assert isinstance(labels, StateLabels)
    assert [len(part) for part in labels.windows] == [0, 0, 0]
    assert labels.states.shape == (0, 3)


@pytest.mark.parametrize("kept", [[0, 1, 3, 4, 5], [0, 1, 2, 3, 4, 4], [1, 0, 2, 3, 4, 5]])
def test_a_window_with_a_gap_is_refused(store: SoftLabels, kept: list[int]) -> None:
    labels = pl.read_parquet(store.folder / "labels" / BUCKET.name)[kept]
    with pytest.raises(SoftLabelError, match="has a gap: a position is missing or comes twice"):
        state_labels(labels, HISTORIES, store.folder)


def test_item_vectors_come_back_exactly_with_a_padding_row(store: SoftLabels) -> None:
    expected = np.concatenate([np.zeros((1, 3)), np.eye(3), np.full((6, 3), 0.5)])
    vectors = store.item_vectors()
    np.testing.assert_array_equal(vectors, expected)
    assert vectors.dtype == np.float32


def test_the_description_says_what_is_in_the_store(store: SoftLabels) -> None:
    path = store.folder / "labels" / BUCKET.name
    assert store.description == SoftLabelDescription(
        format_version=3,
        layout="factorized",
        teacher="the teacher",
        item_index_sha256="index",
        n_items=9,
        trained_through="2026-01-01",
        columns=("state", "scale"),
        dim=3,
        rows=6,
        bytes=path.stat().st_size,
        sha256={
            "item_vectors.parquet": sha256_file(store.folder / "item_vectors.parquet"),
            "labels/bucket-000.parquet": sha256_file(path),
        },
    )


def test_users_may_come_in_any_order_and_have_new_events(store: SoftLabels) -> None:
    later = resident_histories({"new": [9], "b": [5, 6, 7, 8, 9], "a": [5, 6, 7, 1]})
    labels = store.align(later, [BUCKET])
    assert isinstance(labels, StateLabels)
    assert [part.tolist() for part in labels.windows] == [[1, 1, 2], [1, 2, 6], [4, 5, 9]]
    assert labels.rows.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    "users",
    [
        {"a": [6, 7, 8], "b": [5, 6, 7, 8]},
        {"a": [5, 6, 7], "b": [4, 5, 6, 7, 8]},
        {"a": [5, 6, 7], "b": [6, 5, 7, 8]},
        {"a": [5, 6, 7], "b": [5, 6, 9, 8]},
        {"a": [5, 6, 7], "b": [5, 6]},
        {"a": [5], "b": [5, 6, 7, 8]},
        {"b": [5, 6, 7, 8]},
    ],
    ids=["shifted", "event in front", "swapped", "replaced", "shorter", "shorter a", "user gone"],
)
def test_changed_histories_are_refused(store: SoftLabels, users: dict[str, list[int]]) -> None:
    with pytest.raises(SoftLabelError, match=r"[1-4] of 6 soft labels .* do not belong"):
        store.align(resident_histories(users), [BUCKET])


def test_another_index_and_another_format_are_refused(store: SoftLabels) -> None:
    with pytest.raises(SoftLabelError, match="made over another item index"):
        SoftLabels(store.folder, item_index_sha256="other")
    store.description.model_copy(update={"format_version": 1}).save(store.folder)
    with pytest.raises(SoftLabelError, match="format 1, expected 3"):
        SoftLabels(store.folder, item_index_sha256="index")


def test_a_kill_leaves_no_half_written_file(tmp_path: Path) -> None:
    path = tmp_path / "labels" / BUCKET.name

    def killed() -> Iterator[LabelRows]:
        yield LabelRows(
            pl.Series(["a"]),
            np.zeros(1, np.int32),
            np.zeros(1, np.int32),
            np.zeros(1, np.uint64),
            STATES[:1],
        )
        raise KeyboardInterrupt

    path.parent.mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_labels(path, 3, killed())
    assert not path.exists()
    _write(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert pl.read_parquet(path).height == len(EVENTS)
