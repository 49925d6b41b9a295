"""Windows of histories: whole users, contiguous, reproducible, a bounded number in memory."""

import gc
import weakref
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
from recsys_core.training import batch as batch_module
from recsys_core.training import batching
from recsys_core.training.batch import Batch
from recsys_core.training.batching import EVENT_BYTES, Recent, TrainingSet
from tests.sparse_store import write_sparse_store

MAX_LENGTH = 6
LENGTHS = [[2, 3, 30, 1, 7], [], [0, 8, 5, 2], [6, 9, 1, 4, 7, 7]]
"""Training events of each user, bucket by bucket. User u's item at position p is 100 u + p + 1."""


@pytest.fixture
def buckets(
    tmp_path: Path, write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]]
) -> list[Path]:
    user = 0
    users: list[list[tuple[str, list[int], int, int]]] = []
    for lengths in LENGTHS:
        users.append([])
        for length in lengths:
            items = [100 * user + place + 1 for place in range(length + 2)]
            users[-1].append((f"u{user:02d}", items, length, length + 1))
            user += 1
    return write_buckets(tmp_path / "histories", users)


def _trainable() -> dict[int, int]:
    lengths = [length for bucket in LENGTHS for length in bucket]
    return {user: length for user, length in enumerate(lengths) if length >= 2}


def _windows(batches: list[Batch]) -> list[list[int]]:
    """Events of every window, the last target included; checks the padding on the way."""
    windows: list[list[int]] = []
    for batch in batches:
        assert batch.history.shape == batch.targets.shape
        for history, targets in zip(batch.history.tolist(), batch.targets.tolist(), strict=True):
            length = sum(item > 0 for item in history)
            assert all(history[:length])
            assert all(targets[:length])
            assert not any(history[length:] + targets[length:])
            assert history[1:length] == targets[: length - 1]
            windows.append([*history[:length], targets[length - 1]])
        assert batch.history[:, -1].any(), "wider than its longest window"
    return windows


def _epochs(training_set: TrainingSet, n: int, seed: int = 1) -> list[list[Batch]]:
    return [list(training_set.epoch(epoch, seed)) for epoch in range(n)]


@pytest.mark.parametrize("resident_events", [1, 40, 1000])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_user_comes_once_with_a_piece_of_their_history(
    buckets: list[Path], batch_size: int, resident_events: int
) -> None:
    training_set = TrainingSet(
        buckets,
        max_length=MAX_LENGTH,
        batch_size=batch_size,
        resident_bytes=EVENT_BYTES * resident_events,
    )
    assert training_set.n_windows == len(_trainable())
    begins: dict[int, set[int]] = {user: set() for user in _trainable()}
    for batches in _epochs(training_set, 80):
        windows = _windows(batches)
        assert len(batches) <= training_set.steps_per_epoch
        assert all(len(batch.history) <= batch_size for batch in batches)
        assert sorted(window[0] // 100 for window in windows) == sorted(_trainable())
        for window in windows:
            user, begin = divmod(window[0] - 1, 100)
            assert window == list(range(window[0], window[0] + len(window)))
            assert len(window) == min(_trainable()[user], MAX_LENGTH + 1)
            assert begin + len(window) <= _trainable()[user], "reads behind the training events"
            begins[user].add(begin)
    assert begins[4] == {0}, "7 events are one window"
    assert begins[10] == {0, 1, 2}, "9 events are three windows"
    assert len(begins[2]) > 10


def test_the_newest_events_are_every_other_window(buckets: list[Path]) -> None:
    training_set = TrainingSet(buckets, max_length=MAX_LENGTH, batch_size=4)
    windows = [window for batches in _epochs(training_set, 300) for window in _windows(batches)]
    ends = [window[-1] for window in windows if window[0] // 100 == 2]
    newest = sum(end == 230 for end in ends) / len(ends)
    assert 0.42 < newest < 0.62


def test_batches_follow_from_seed_and_epoch_alone(buckets: list[Path]) -> None:
    def make() -> TrainingSet:
        return TrainingSet(
            buckets, max_length=MAX_LENGTH, batch_size=4, resident_bytes=40 * EVENT_BYTES
        )

    first = _epochs(make(), 3)
    later = list(make().epoch(2, 1))
    for one, other in zip(first[2], later, strict=True):
        assert torch.equal(one.history, other.history)
        assert torch.equal(one.targets, other.targets)
    assert _windows(first[0]) != _windows(first[1])
    assert _windows(first[0]) != _windows(list(make().epoch(0, 2)))


def test_one_group_of_buckets_is_in_memory_at_a_time(
    buckets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_before: list[weakref.ref[ResidentHistories]] = []
    groups: list[int] = []

    def read(paths: Sequence[Path]) -> ResidentHistories:
        gc.collect()
        assert not any(made() for made in read_before), (
            "the last group is still held while the next one is read"
        )
        histories = read_training_histories(paths)
        read_before.append(weakref.ref(histories))
        groups.append(len(histories.items))
        return histories

    monkeypatch.setattr(batching, "read_training_histories", read)
    training_set = TrainingSet(
        buckets, max_length=MAX_LENGTH, batch_size=2, resident_bytes=45 * EVENT_BYTES
    )
    for _ in training_set.epoch(0, 1):
        pass
    assert len(groups) > 4
    assert max(groups) <= 45


def test_users_without_a_next_item_are_refused(
    tmp_path: Path, write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]]
) -> None:
    paths = write_buckets(tmp_path / "few", [[("a", [1], 1, 1), ("b", [1, 2], 0, 1)], []])
    with pytest.raises(ValueError, match="no next item to learn from"):
        TrainingSet(paths, max_length=5, batch_size=2)


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
    assert training_set.n_windows == len(_trainable())
    begins: set[int] = set()
    for batches in _epochs(training_set, 60):
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


def _only_even_items_are_targets(paths: list[Path]) -> None:
    even = pl.col("item_idx").list.eval((pl.element() % 2 == 0).cast(pl.Float32))
    for path in paths:
        pl.read_parquet(path).with_columns(target_weight=even).write_parquet(path)


def test_other_kinds_of_events_are_history_and_never_asked_for(
    tmp_path: Path, buckets: list[Path]
) -> None:
    _only_even_items_are_targets(buckets)
    training_set = TrainingSet(
        buckets,
        max_length=MAX_LENGTH,
        batch_size=3,
        labels=_write_labels(tmp_path / "soft", buckets),
    )
    users: set[int] = set()
    for batches in _epochs(training_set, 6):
        for batch in batches:
            # An even item follows an odd one, for a user's items go up one by one.
            asked = batch.targets > 0
            assert torch.equal(asked, batch.history % 2 == 1)
            assert torch.equal(batch.targets[asked], batch.history[asked] + 1)
            assert batch.teacher_states is not None
            assert batch.teacher_states[:, 1].tolist() == (batch.history[asked] // 100).tolist()
            users |= set((batch.history[batch.history > 0] // 100).tolist())
    assert users == _trainable().keys()
    assert training_set.n_windows == len(users)


def test_what_the_user_had_before_a_window_is_with_it(
    buckets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "_EARLIER_EVENTS", 9)
    training_set = TrainingSet(buckets, max_length=MAX_LENGTH, batch_size=3, exclude_seen=True)
    n_earlier: set[int] = set()
    for batches in _epochs(training_set, 20):
        for batch in batches:
            assert batch.earlier is not None
            for first, earlier in zip(batch.history[:, 0], batch.earlier.tolist(), strict=True):
                items = [item for item in earlier if item]
                begin = int(first) - (int(first) - 1) % 100
                assert sorted(items) == list(range(begin, int(first)))[-9:]
                n_earlier.add(len(items))
    assert {0, 1, 2, 9} <= n_earlier
    plain = TrainingSet(buckets, max_length=MAX_LENGTH, batch_size=3)
    assert all(batch.earlier is None for batch in plain.epoch(0, 1))


def test_what_the_user_had_before_is_no_target_where_it_is_never_recommended(
    tmp_path: Path, write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]]
) -> None:
    users = [[("a", [5, 6, 5, 7, 6, 8, 9], 6, 7), ("b", [4, 4, 4, 1], 3, 4)]]
    paths = write_buckets(tmp_path / "repeats", users)
    training_set = TrainingSet(paths, max_length=9, batch_size=2, exclude_seen=True)
    (batch,) = training_set.epoch(0, 1)
    assert batch.history.tolist() == [[5, 6, 5, 7, 6]]
    assert batch.targets.tolist() == [[6, 0, 7, 0, 8]]
    repeats = TrainingSet(paths, max_length=9, batch_size=2)
    (batch,) = repeats.epoch(0, 1)
    assert sorted(batch.targets.tolist()) == [[4, 4, 0, 0, 0], [6, 5, 7, 6, 8]]


def test_users_who_only_begin_with_a_target_are_not_drawn(
    tmp_path: Path, write_buckets: Callable[[Path, Sequence[Sequence[Any]]], list[Path]]
) -> None:
    users = [("a", [2, 1, 3], 3, 3), ("b", [1, 2], 2, 2), ("c", [], 0, 0)]
    paths = write_buckets(tmp_path / "histories", [users])
    _only_even_items_are_targets(paths)
    training_set = TrainingSet(paths, max_length=MAX_LENGTH, batch_size=3)
    assert training_set.n_windows == 1
    ((batch,),) = _epochs(training_set, 1)
    assert (batch.history.tolist(), batch.targets.tolist()) == ([[1]], [[2]])


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


def test_a_warm_start_sees_who_is_new_and_a_sample_of_the_others(buckets: list[Path]) -> None:
    """A fixture's newest training event is as many microseconds old as it has events before."""
    training_set = TrainingSet(
        buckets, max_length=MAX_LENGTH, batch_size=4, recent=Recent(since=6, replay_share=0.5)
    )
    active = {user for user, length in _trainable().items() if length - 1 >= 6}
    others = set(_trainable()) - active
    replayed: set[int] = set()
    for batches in _epochs(training_set, 40):
        users = [window[0] // 100 for window in _windows(batches)]
        assert len(users) == len(set(users)) == training_set.n_windows
        assert active <= set(users)
        drawn = set(users) - active
        assert len(drawn) == round(len(others) / 2)
        replayed |= drawn
    assert replayed == others
    whole = TrainingSet(buckets, max_length=MAX_LENGTH, batch_size=4)
    assert whole.n_events == sum(min(length, MAX_LENGTH) for length in _trainable().values())
    assert 0 < training_set.n_events < whole.n_events
