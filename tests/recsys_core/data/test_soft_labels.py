"""Soft labels on disk: nearly exact, and refused where they do not belong."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.soft_labels import (
    LabelRows,
    SoftLabelDescription,
    SoftLabelError,
    SoftLabels,
    describe,
    prefix_hashes,
    quantize_rows,
    write_labels,
)

BUCKET = Path("bucket-000.parquet")


def _histories(users: Mapping[str, Sequence[int]]) -> ResidentHistories:
    lengths = [len(items) for items in users.values()]
    return ResidentHistories(
        user_ids=pl.Series("user_id", list(users), dtype=pl.String),
        items=np.array([item for items in users.values() for item in items], np.int32),
        target_weights=np.ones(sum(lengths), np.float32),
        kinds=np.zeros(sum(lengths), np.int8),
        times=np.zeros(sum(lengths), np.int64),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


HISTORIES = _histories({"a": [5, 6, 7], "empty": [], "b": [5, 6, 7, 8], "c": [1]})
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
    assert [len(part) for part in labels.windows] == [0, 0, 0]
    assert labels.states.shape == (0, 3)


@pytest.mark.parametrize("kept", [[0, 1, 3, 4, 5], [0, 1, 2, 3, 4, 4], [1, 0, 2, 3, 4, 5]])
def test_a_window_with_a_gap_is_refused(store: SoftLabels, kept: list[int]) -> None:
    path = store.folder / "labels" / BUCKET.name
    pl.read_parquet(path)[kept].write_parquet(path)
    with pytest.raises(SoftLabelError, match="has a gap: a position is missing or comes twice"):
        store.align(HISTORIES, [BUCKET])


def test_item_vectors_come_back_exactly_with_a_padding_row(store: SoftLabels) -> None:
    expected = np.concatenate([np.zeros((1, 3)), np.eye(3), np.full((6, 3), 0.5)])
    vectors = store.item_vectors()
    np.testing.assert_array_equal(vectors, expected)
    assert vectors.dtype == np.float32


def test_the_description_says_what_is_in_the_store(store: SoftLabels) -> None:
    path = store.folder / "labels" / BUCKET.name
    assert store.description == SoftLabelDescription(
        format_version=2,
        layout="factorized",
        teacher="the teacher",
        item_index_sha256="index",
        trained_through="2026-01-01",
        dim=3,
        dtype="int8 with a float32 scale a row",
        rows=6,
        bytes=path.stat().st_size,
    )


def test_users_may_come_in_any_order_and_have_new_events(store: SoftLabels) -> None:
    later = _histories({"new": [9], "b": [5, 6, 7, 8, 9], "a": [5, 6, 7, 1]})
    labels = store.align(later, [BUCKET])
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
        store.align(_histories(users), [BUCKET])


def test_another_index_and_another_format_are_refused(store: SoftLabels) -> None:
    with pytest.raises(SoftLabelError, match="made over another item index"):
        SoftLabels(store.folder, item_index_sha256="other")
    store.description.model_copy(update={"format_version": 1}).save(store.folder)
    with pytest.raises(SoftLabelError, match="format 1, expected 2"):
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


ITEMS = st.lists(st.integers(1, 2**31 - 1), max_size=8)
SMALL = st.lists(st.integers(1, 3), max_size=8)


def _hashes(*users: Sequence[int]) -> list[list[int]]:
    histories = _histories({str(i): items for i, items in enumerate(users)})
    hashes = prefix_hashes(histories.items, histories.starts)
    return [of_user.tolist() for of_user in np.split(hashes, histories.starts[1:-1])]


@given(st.lists(ITEMS, max_size=4), ITEMS, st.lists(ITEMS, max_size=4))
def test_a_prefix_hashes_the_same_among_any_users(
    before: list[list[int]], items: list[int], after: list[list[int]]
) -> None:
    alone = _hashes(items)[0]
    assert _hashes(*before, items, *after)[len(before)] == alone
    for length in range(len(items) + 1):
        assert _hashes(items[:length])[0] == alone[:length]


@given(st.lists(SMALL, min_size=1, max_size=6) | st.lists(ITEMS, min_size=1, max_size=6))
def test_different_prefixes_hash_differently(users: list[list[int]]) -> None:
    seen: dict[int, tuple[int, ...]] = {}
    for items, hashes in zip(users, _hashes(*users), strict=True):
        for length, value in enumerate(hashes, start=1):
            prefix = tuple(items[:length])
            assert seen.setdefault(value, prefix) == prefix
