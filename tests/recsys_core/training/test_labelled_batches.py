"""Batches with soft labels: those of the window that is read, left out where they don't count."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.data.histories.windows import training_windows
from recsys_core.data.soft_labels.description import SoftLabelError
from recsys_core.data.soft_labels.factorized import LabelRows, describe, write_labels
from recsys_core.data.soft_labels.matching import prefix_hashes
from recsys_core.data.soft_labels.sparse import SparseRows, SparseShape
from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.training import batching
from recsys_core.training.batching import EVENT_BYTES, TrainingSet
from tests.recsys_core.training.numbered_histories import (
    LENGTHS,
    MAX_LENGTH,
    epochs,
    only_even_items_are_targets,
    trainable,
)
from tests.sparse_store import write_sparse_store


def _write_labels(folder: Path, buckets: list[Path]) -> SoftLabels:
    """Labels that say of which window, user and position they are."""
    for path in buckets:
        histories = read_training_histories([path])
        windows = training_windows(histories, MAX_LENGTH)
        window = np.repeat(np.arange(len(windows.lengths)), windows.lengths)
        ends = np.cumsum(windows.lengths)
        rows = windows.starts[window] + np.arange(len(window)) - (ends - windows.lengths)[window]
        users = windows.users[window]
        first = histories.starts[users]
        items = histories.items[rows]
        window_starts = windows.starts[window] - first
        states = [np.full(len(rows), 127), items // 100, (items - 1) % 100, window_starts]
        labels = LabelRows(
            histories.user_ids.gather(pl.Series(users, dtype=pl.UInt32)),
            window_starts.astype(np.int32),
            (rows - first).astype(np.int32),
            prefix_hashes(histories.items, histories.starts)[rows],
            np.stack(states, axis=1).astype(np.float32),
        )
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        write_labels(folder / "labels" / path.name, 4, [labels])
    describe(
        folder,
        teacher="t",
        item_index_sha256="index",
        trained_through=None,
        item_vectors=np.zeros((3, 4), np.float32),
    )
    return SoftLabels(folder, item_index_sha256="index")


@pytest.mark.parametrize("resident_events", [1, 1000])
def test_labels_are_those_of_the_window_that_is_read(
    tmp_path: Path, buckets: list[Path], resident_events: int
) -> None:
    training_set = TrainingSet(
        buckets,
        max_length=MAX_LENGTH,
        batch_size=3,
        labels=_write_labels(tmp_path / "soft", buckets),
        resident_bytes=EVENT_BYTES * resident_events,
    )
    assert training_set.n_windows == len(trainable())
    begins: set[int] = set()
    for batches in epochs(training_set, 60):
        for batch in batches:
            assert batch.teacher_states is not None
            asked = batch.targets > 0
            items = batch.history[asked]
            first = batch.history[:, :1].expand_as(batch.history)[asked]
            expected = [torch.full_like(items, 127), items // 100, (items - 1) % 100]
            expected.append((first - 1) % 100)
            assert torch.equal(batch.teacher_states, torch.stack(expected, dim=1).float())
            begins |= set(((first - 1) % 100)[items // 100 == 2].tolist())
    assert begins == {0, 2, 5, 8, 11, 14, 17, 20, 23}, "30 events in windows of seven"


def test_the_width_of_labels_counts_as_memory(
    tmp_path: Path, buckets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide labels leave room for one bucket at a time, where the events alone fit all at once."""
    read: list[int] = []

    def count(paths: Sequence[Path]) -> ResidentHistories:
        read.append(len(paths))
        return read_training_histories(paths)

    monkeypatch.setattr(batching, "read_training_histories", count)
    labels = _write_labels(tmp_path / "soft", buckets)
    n_labels, n_events = labels.description.rows, sum(sum(lengths) for lengths in LENGTHS)
    sizes = [labels.resident_bytes(path) for path in buckets]
    assert sum(sizes) == n_labels * (4 + 4 + 100)
    room = n_events * EVENT_BYTES + sum(sizes)
    common = {"max_length": MAX_LENGTH, "batch_size": 3, "labels": labels}
    TrainingSet(buckets, **common, resident_bytes=room)
    assert read == [4]
    labels.description = labels.description.model_copy(update={"dim": 1000})
    TrainingSet(buckets, **common, resident_bytes=room)
    assert len(read) > 2


def test_labels_of_longer_windows_are_refused(tmp_path: Path, buckets: list[Path]) -> None:
    labels = _write_labels(tmp_path / "soft", buckets)
    with pytest.raises(ValueError, match="windows of up to 6 events, and the model reads 5"):
        TrainingSet(buckets, max_length=5, batch_size=3, labels=labels)


@pytest.mark.parametrize("resident_events", [1, 1000])
def test_sparse_labels_are_those_of_the_position(
    tmp_path: Path, buckets: list[Path], resident_events: int
) -> None:
    """Every third position has a label: the item that was read, and its number as a score."""

    def label(histories: ResidentHistories, events: np.ndarray, rows: SparseRows) -> SparseRows:
        ids = np.stack([histories.items[events], np.zeros(len(events), np.int32)], axis=1)
        logits = (ids % 100).astype(np.float32)
        return rows._replace(top_ids=ids, top_logits=logits, log_normalizer=logits[:, 0] + 1)

    shape = SparseShape(2, with_logits=True, with_normalizer=True)
    store = write_sparse_store(tmp_path, buckets, shape, label, n_items=1500, every=3)
    training_set = TrainingSet(
        buckets,
        max_length=MAX_LENGTH,
        batch_size=3,
        labels=store,
        resident_bytes=EVENT_BYTES * resident_events,
    )
    plain = TrainingSet(
        buckets, max_length=MAX_LENGTH, batch_size=3, resident_bytes=EVENT_BYTES * resident_events
    )
    assert training_set.n_windows == plain.n_windows
    n_labels = 0
    for batch, other in zip(training_set.epoch(3, 1), plain.epoch(3, 1), strict=True):
        assert torch.equal(batch.history, other.history), "labels change no window"
        labels = batch.sparse_labels
        assert labels is not None
        assert batch.teacher_states is None
        items = batch.history[batch.targets > 0]
        expected = torch.where((items - 1) % 100 % 3 == 0, items, 0)
        assert torch.equal(labels.top_ids, torch.stack([expected, expected * 0], dim=1))
        assert labels.top_logits is not None
        assert torch.equal(labels.top_logits[:, 0], (expected % 100).float())
        assert labels.log_normalizer is not None
        assert labels.sample_ids is None
        n_labels += int((expected > 0).sum())
    assert n_labels > 10


def _counts(targets: torch.Tensor) -> torch.Tensor:
    """More than 12 events before, of items in `LENGTHS`, which say their position."""
    return (targets - 1) % 100 > 12


@pytest.mark.parametrize("resident_bytes", [1, 1_000_000])
def test_a_label_is_left_out_by_the_length_of_the_whole_history(
    tmp_path: Path, buckets: list[Path], resident_bytes: int
) -> None:
    labels = _write_labels(tmp_path / "soft", buckets)
    settings: dict[str, Any] = {
        "max_length": MAX_LENGTH,
        "batch_size": 3,
        "labels": labels,
        "resident_bytes": resident_bytes,
    }
    whole = TrainingSet(buckets, **settings)
    partly = TrainingSet(buckets, **settings, trusted=lambda lengths: lengths > 12)
    n_counted = n_left_out = 0
    for epoch in range(4):
        for batch, other in zip(partly.epoch(epoch, 1), whole.epoch(epoch, 1), strict=True):
            assert batch.teacher_states is not None
            assert other.teacher_states is not None
            assert torch.equal(batch.history, other.history)
            assert torch.equal(batch.targets, other.targets)
            counts = _counts(batch.targets[batch.targets > 0])
            assert torch.equal(batch.teacher_states[counts], other.teacher_states[counts])
            assert batch.teacher_states[~counts].isnan().all()
            n_counted += int(counts.sum())
            n_left_out += int((~counts).sum())
    assert min(n_counted, n_left_out) > 10


def test_labels_of_other_histories_are_refused_before_training(
    tmp_path: Path,
    buckets: list[Path],
    write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]],
) -> None:
    labels = _write_labels(tmp_path / "soft", buckets)
    shifted = [
        [
            (user, items[1:], max(end - 1, 0), end)
            for user, items, end in pl.read_parquet(path)
            .select("user_id", "item_idx", "train_end")
            .rows()
        ]
        for path in buckets
    ]
    others = write_buckets(tmp_path / "shifted", shifted)
    with pytest.raises(SoftLabelError, match="do not belong to the histories"):
        TrainingSet(others, max_length=MAX_LENGTH, batch_size=3, labels=labels)
    labels.description.model_copy(update={"format_version": 99}).save(labels.folder)
    with pytest.raises(SoftLabelError, match="format 99, expected 3"):
        SoftLabels(labels.folder, item_index_sha256="index")


def test_other_kinds_of_events_are_history_and_never_asked_for(
    tmp_path: Path, buckets: list[Path]
) -> None:
    only_even_items_are_targets(buckets)
    training_set = TrainingSet(
        buckets,
        max_length=MAX_LENGTH,
        batch_size=3,
        labels=_write_labels(tmp_path / "soft", buckets),
    )
    users: set[int] = set()
    for batches in epochs(training_set, 6):
        for batch in batches:
            # An even item follows an odd one, for a user's items go up one by one.
            asked = batch.targets > 0
            assert torch.equal(asked, batch.history % 2 == 1)
            assert torch.equal(batch.targets[asked], batch.history[asked] + 1)
            assert batch.teacher_states is not None
            assert batch.teacher_states[:, 1].tolist() == (batch.history[asked] // 100).tolist()
            users |= set((batch.history[batch.history > 0] // 100).tolist())
    assert users == trainable().keys()
    assert training_set.n_windows == len(users)
