"""Windows of histories: whole users, contiguous, reproducible, a bounded number in memory."""

import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_core.data.histories.read import ResidentHistories, read_training_histories
from recsys_core.training import batch as batch_module
from recsys_core.training import batching
from recsys_core.training.batch import Batch
from recsys_core.training.batching import EVENT_BYTES, Recent, TrainingSet
from tests.recsys_core.training.numbered_histories import (
    MAX_LENGTH,
    epochs,
    only_even_items_are_targets,
    trainable,
)


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
    assert training_set.n_windows == len(trainable())
    begins: dict[int, set[int]] = {user: set() for user in trainable()}
    for batches in epochs(training_set, 80):
        windows = _windows(batches)
        assert len(batches) <= training_set.steps_per_epoch
        assert all(len(batch.history) <= batch_size for batch in batches)
        assert sorted(window[0] // 100 for window in windows) == sorted(trainable())
        for window in windows:
            user, begin = divmod(window[0] - 1, 100)
            assert window == list(range(window[0], window[0] + len(window)))
            assert len(window) == min(trainable()[user], MAX_LENGTH + 1)
            assert begin + len(window) <= trainable()[user], "reads behind the training events"
            begins[user].add(begin)
    assert begins[4] == {0}, "7 events are one window"
    assert begins[10] == {0, 1, 2}, "9 events are three windows"
    assert len(begins[2]) > 10


def test_the_newest_events_are_every_other_window(buckets: list[Path]) -> None:
    training_set = TrainingSet(buckets, max_length=MAX_LENGTH, batch_size=4)
    windows = [window for batches in epochs(training_set, 300) for window in _windows(batches)]
    ends = [window[-1] for window in windows if window[0] // 100 == 2]
    newest = sum(end == 230 for end in ends) / len(ends)
    assert 0.42 < newest < 0.62


def test_batches_follow_from_seed_and_epoch_alone(buckets: list[Path]) -> None:
    def make() -> TrainingSet:
        return TrainingSet(
            buckets, max_length=MAX_LENGTH, batch_size=4, resident_bytes=40 * EVENT_BYTES
        )

    first = epochs(make(), 3)
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


def test_what_the_user_had_before_a_window_is_with_it(
    buckets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "_EARLIER_EVENTS", 9)
    training_set = TrainingSet(buckets, max_length=MAX_LENGTH, batch_size=3, exclude_seen=True)
    n_earlier: set[int] = set()
    for batches in epochs(training_set, 20):
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
    only_even_items_are_targets(paths)
    training_set = TrainingSet(paths, max_length=MAX_LENGTH, batch_size=3)
    assert training_set.n_windows == 1
    ((batch,),) = epochs(training_set, 1)
    assert (batch.history.tolist(), batch.targets.tolist()) == ([[1]], [[2]])


def test_a_warm_start_sees_who_is_new_and_a_sample_of_the_others(buckets: list[Path]) -> None:
    """A fixture's newest training event is as many microseconds old as it has events before."""
    training_set = TrainingSet(
        buckets, max_length=MAX_LENGTH, batch_size=4, recent=Recent(since=6, replay_share=0.5)
    )
    active = {user for user, length in trainable().items() if length - 1 >= 6}
    others = set(trainable()) - active
    replayed: set[int] = set()
    for batches in epochs(training_set, 40):
        users = [window[0] // 100 for window in _windows(batches)]
        assert len(users) == len(set(users)) == training_set.n_windows
        assert active <= set(users)
        drawn = set(users) - active
        assert len(drawn) == round(len(others) / 2)
        replayed |= drawn
    assert replayed == others
    whole = TrainingSet(buckets, max_length=MAX_LENGTH, batch_size=4)
    assert whole.n_events == sum(min(length, MAX_LENGTH) for length in trainable().values())
    assert 0 < training_set.n_events < whole.n_events
