"""Training events are read back, however the user's other events are split."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from recsys_core.data.histories.read import (
    count_training_events,
    group_buckets,
    read_training_histories,
    training_events,
    training_lists,
)

USERS = {
    "a": ([1, 2, 3, 4], 2, 3),
    "b": ([], 0, 0),
    "new": ([7], 0, 0),
    "old": ([5, 6, 5], 3, 3),
}


def test_only_training_events_are_read(write_bucket: Callable[..., Path]) -> None:
    histories = read_training_histories([write_bucket(USERS)])
    lengths = dict(zip(histories.user_ids, histories.lengths.tolist(), strict=True))
    assert lengths == {"a": 2, "b": 0, "new": 0, "old": 3}
    assert histories.items.tolist() == [1, 2, 5, 6, 5]
    assert histories.items.dtype == np.int32
    assert histories.newest.tolist() == [1, 0, 0, 2]


def test_buckets_follow_each_other(write_bucket: Callable[..., Path]) -> None:
    paths = [write_bucket(USERS), write_bucket({}, "1.parquet"), write_bucket(USERS, "2.parquet")]
    histories = read_training_histories(paths)
    assert histories.items.tolist() == [1, 2, 5, 6, 5] * 2
    assert histories.starts.tolist() == [0, 2, 2, 2, 5, 7, 7, 7, 10]


def test_empty_buckets_have_no_events(write_bucket: Callable[..., Path]) -> None:
    histories = read_training_histories([write_bucket({})])
    assert (len(histories.user_ids), len(histories.items), histories.starts.tolist()) == (0, 0, [0])
    assert histories.newest.tolist() == []


def test_training_events_are_rows_in_file_order(write_bucket: Callable[..., Path]) -> None:
    events = training_events(write_bucket(USERS), "item_idx", "timestamp").collect()
    assert events.rows() == [(1, 0), (2, 1), (5, 0), (6, 1), (5, 2)]


def test_the_newest_training_events_of_each_user(write_bucket: Callable[..., Path]) -> None:
    lists = training_lists(write_bucket(USERS), "item_idx", newest=2)
    users = lists.select("user_id", "item_idx").collect().rows()
    assert users == [("a", [1, 2]), ("b", []), ("new", []), ("old", [6, 5])]


def test_training_events_are_counted_without_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "bucket.parquet"
    pl.DataFrame({"train_end": [3, 0, 4]}).write_parquet(path)
    assert count_training_events(path) == 7


def test_groups_hold_at_most_as_much_as_there_is_room_for() -> None:
    sizes = {Path(str(i)): size for i, size in enumerate([3, 3, 9, 0, 1, 4, 2])}
    groups = [[int(path.name) for path in group] for group in group_buckets(sizes, 6)]
    assert groups == [[0, 1], [2], [3, 4, 5], [6]]
    assert group_buckets(sizes, 100) == [list(sizes)]
    assert [len(group) for group in group_buckets(sizes, 1)] == [1, 1, 1, 2, 1, 1]
