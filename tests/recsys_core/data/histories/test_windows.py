"""Windows of training: every position in one, none too long, most with half a window of past."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.histories.read import ResidentHistories
from recsys_core.data.histories.windows import training_windows


def _histories(lengths: Sequence[int]) -> ResidentHistories:
    return ResidentHistories(
        user_ids=pl.Series([str(user) for user in range(len(lengths))], dtype=pl.String),
        items=np.ones(sum(lengths), np.int32),
        target_weights=np.ones(sum(lengths), np.float32),
        kinds=np.zeros(sum(lengths), np.int8),
        times=np.zeros(sum(lengths), np.int64),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


@given(st.lists(st.integers(0, 60), max_size=6), st.integers(2, 21))
def test_windows_cover_each_position_with_enough_of_its_past(
    lengths: list[int], max_length: int
) -> None:
    histories = _histories(lengths)
    windows = training_windows(histories, max_length)
    read_before: dict[int, int] = {}
    for user, start, end in zip(*windows, strict=True):
        begin, n_events = int(histories.starts[user]), lengths[user]
        assert begin <= start < end - 1 < begin + n_events
        assert end - start - 1 == min(max_length, n_events - 1)
        for event in range(start, end - 1):
            read_before[event] = max(read_before.get(event, 0), event - start)
    for begin, length in zip(histories.starts.tolist(), lengths, strict=False):
        for position in range(length - 1):
            assert read_before.pop(begin + position) >= min(position, max_length // 2)
    assert not read_before
    pairs = list(zip(windows.users.tolist(), windows.starts.tolist(), strict=True))
    assert pairs == sorted(set(pairs))


@pytest.mark.parametrize(
    ("newest", "begins"), [(1, [22]), (7, [22]), (8, [19, 22]), (11, [16, 19, 22])]
)
def test_the_newest_positions_need_the_newest_windows(newest: int, begins: list[int]) -> None:
    windows = training_windows(_histories([30, 1]), 7, newest)
    assert windows.starts.tolist() == begins
    assert windows.ends[-1] == 30
