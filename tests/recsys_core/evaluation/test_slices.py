import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.histories.cases import read_cases
from recsys_core.evaluation.slices import case_slices, popularity_groups


def members(mask):
    return np.flatnonzero(mask).tolist()


def test_groups_are_cut_by_share_of_interactions():
    # 100 interactions: 40, then 70 (crosses 50), then 85, 91 (crosses 90), then the rest.
    groups = popularity_groups(np.array([6, 40, 30, 15, 5, 4, 0]))
    assert members(groups.head) == [2, 3]
    assert members(groups.mid) == [1, 4]
    assert members(groups.tail) == [5, 6, 7]


def test_equal_counts_are_never_parted():
    groups = popularity_groups(np.array([5, 5, 5, 5, 1]))
    assert members(groups.head) == [1, 2, 3, 4]
    assert members(groups.tail) == [5]


def test_without_training_all_is_tail():
    assert members(popularity_groups(np.zeros(3, np.int64)).tail) == [1, 2, 3]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30))
def test_groups_part_the_catalogue(counts):
    groups = popularity_groups(np.array(counts))
    assert np.sum(groups, axis=0).tolist() == [0] + [1] * len(counts)
    total = sum(counts)
    head = np.array(counts)[groups.head[1:]].sum()
    rest = np.array(counts)[groups.tail[1:]].sum()
    assert head >= 0.5 * total
    assert rest <= 0.1 * total + 1e-9


@pytest.fixture
def slices(write_bucket, catalogue):
    users = {
        "new": ([1, 2], 0, 0),
        "old": ([4, 1, 3], 2, 2),
    }
    items = catalogue([9, 4, 0, 1])
    cases = read_cases(write_bucket(users), items, "test", exclude_seen=True)
    assert cases.targets.tolist() == [1, 2, 3]
    return case_slices(cases, items, cold_user_events=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cold_users", [True, True, False]),
        ("new_users", [True, True, False]),
        ("cold_items", [False, False, True]),
        ("head", [True, False, False]),
        ("mid", [False, True, False]),
        ("tail", [False, False, True]),
    ],
)
def test_slices_of_cases(slices, name, expected):
    assert slices[name].tolist() == expected
