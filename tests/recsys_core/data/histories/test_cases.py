"""Cases: which events are predicted, and the histories before them."""

import numpy as np
import polars as pl
import pytest

from recsys_core.data.histories.cases import CaseHistories, candidate_mask, read_cases

USERS = {
    "a": ([1, 2, 3, 1, 4, 5], 2, 4),
    "b": ([5], 0, 0),
    "c": ([2, 3], 2, 2),
    "d": ([3, 4], 0, 1),
    "e": ([], 0, 0),
}

HISTORIES = CaseHistories(
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
    whole = CaseHistories.whole(users)
    assert [history.tolist() for history in whole] == [[5, 6], [], [7]]
    assert [kinds.tolist() for kinds in whole.of_kinds()] == [[0, 1], [], [2]]
    assert [times.tolist() for times in whole[2:].of_times()] == [[3]]
    assert len(CaseHistories.whole(users[:0])) == 0


def facts(cases):
    return [
        (user, position, target, history.tolist(), trained)
        for user, position, target, history, trained in zip(
            cases.user_id,
            cases.positions,
            cases.targets,
            cases.histories,
            cases.train_lengths,
            strict=True,
        )
    ]


def test_validation_cases_are_the_events_between_the_ends(write_bucket, catalogue):
    cases = read_cases(write_bucket(USERS), catalogue([1] * 5), "validation", exclude_seen=True)
    assert facts(cases) == [("a", 2, 3, [1, 2], 2), ("d", 0, 3, [], 0)]
    assert cases.dropped == {"seen": 1, "not_candidate": 0}


def test_test_cases_are_the_events_after_validation(write_bucket, catalogue):
    items = catalogue([1] * 5, inactive=(4,))
    cases = read_cases(write_bucket(USERS), items, "test", exclude_seen=True)
    assert facts(cases) == [("a", 5, 5, [1, 2, 3, 1, 4], 2), ("b", 0, 5, [], 0)]
    assert cases.dropped == {"seen": 0, "not_candidate": 2}


def test_repeats_are_cases_where_repeats_are_allowed(write_bucket, catalogue):
    cases = read_cases(write_bucket(USERS), catalogue([1] * 5), "validation", exclude_seen=False)
    assert [target for _, _, target, *_ in facts(cases)] == [3, 1, 3]
    assert cases.dropped == {"seen": 0, "not_candidate": 0}


def test_every_event_of_a_window_is_a_case_or_counted(write_bucket, catalogue):
    bucket = write_bucket(USERS)
    cases = read_cases(bucket, catalogue([1] * 5, inactive=(3,)), "validation", exclude_seen=True)
    assert len(cases) + sum(cases.dropped.values()) == 3


def test_events_that_are_no_targets_are_history_only(write_bucket, catalogue):
    bucket = write_bucket({"a": ([1, 2, 3, 1, 4], 2, 5)})
    odd = pl.col("item_idx").list.eval((pl.element() % 2).cast(pl.Float32)).alias("target_weight")
    pl.read_parquet(bucket).with_columns(odd).write_parquet(bucket)
    cases = read_cases(bucket, catalogue([1] * 4), "validation", exclude_seen=False)
    assert facts(cases) == [("a", 2, 3, [1, 2], 2), ("a", 3, 1, [1, 2, 3], 2)]
    assert cases.dropped == {"seen": 0, "not_candidate": 0}


def test_a_long_window_costs_no_copies(write_bucket, catalogue):
    n = 2_000
    bucket = write_bucket({"heavy": (list(range(1, n + 1)), 0, 0)})
    cases = read_cases(bucket, catalogue([1] * n), "test", exclude_seen=True)
    assert len(cases) == n
    assert cases.histories[-1].tolist() == list(range(1, n))
    assert np.shares_memory(cases.histories[1_000], cases.histories[-1])


def test_a_bucket_without_cases_is_fine(write_bucket, catalogue):
    cases = read_cases(write_bucket({}), catalogue([1]), "test", exclude_seen=True)
    assert len(cases) == 0
    assert cases.dropped == {"seen": 0, "not_candidate": 0}


def test_a_history_of_another_catalogue_is_refused(write_bucket, catalogue):
    with pytest.raises(ValueError, match=r"item_idx from 1 to 5 .* the catalogue has 1 to 3"):
        read_cases(write_bucket(USERS), catalogue([1] * 3), "test", exclude_seen=True)


def test_a_catalogue_out_of_order_is_refused(catalogue):
    items = catalogue([1, 2, 3]).reverse()
    with pytest.raises(ValueError, match="item_idx 1 to 3 in order"):
        candidate_mask(items, "test")
