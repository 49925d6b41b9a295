"""Views of shared events."""

import numpy as np
import polars as pl

from recsys_core.evaluation.histories import Histories

HISTORIES = Histories(
    items=np.array([5, 6, 7, 8], np.int32),
    kinds=np.array([0, 1, 2, 3], np.int8),
    times=np.array([10, 20, 30, 40]),
    begins=np.array([0, 0, 2, 3]),
    ends=np.array([2, 0, 4, 4]),
)


def test_a_history_is_a_span_of_events() -> None:
    assert [history.tolist() for history in HISTORIES] == [[5, 6], [], [7, 8], [8]]
    assert np.shares_memory(HISTORIES[2], HISTORIES.items)
    part = HISTORIES[1:3]
    assert [kinds.tolist() for kinds in part.of_kinds()] == [[], [2, 3]]
    assert [times.tolist() for times in part.of_times()] == [[], [30, 40]]


def test_some_events_can_be_left_out() -> None:
    even = HISTORIES.where(lambda items: items % 2 == 0)
    assert [history.tolist() for history in even] == [[6], [], [8], [8]]
    assert [kinds.tolist() for kinds in even.of_kinds()] == [[1], [], [3], [3]]
    assert [times.tolist() for times in even.of_times()] == [[20], [], [40], [40]]
    assert len(HISTORIES[:0].where(lambda items: items > 0)) == 0


def test_users_of_a_file_are_histories() -> None:
    users = pl.DataFrame(
        {
            "item_idx": [[5, 6], [], [7]],
            "event_type": [[0, 1], [], [2]],
            "timestamp": [[1, 2], [], [3]],
        }
    )
    whole = Histories.whole(users)
    assert [history.tolist() for history in whole] == [[5, 6], [], [7]]
    assert [kinds.tolist() for kinds in whole.of_kinds()] == [[0, 1], [], [2]]
    assert [times.tolist() for times in whole[2:].of_times()] == [[3]]
    assert len(Histories.whole(users[:0])) == 0
