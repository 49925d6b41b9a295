"""Hashes of prefixes of histories."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.soft_labels.matching import prefix_hashes

ITEMS = st.lists(st.integers(1, 2**31 - 1), max_size=8)
SMALL = st.lists(st.integers(1, 3), max_size=8)


def _hashes(*users: Sequence[int]) -> list[list[int]]:
    starts = np.cumsum([0, *(len(items) for items in users)])
    items = np.array([item for items in users for item in items], np.int32)
    hashes = prefix_hashes(items, starts)
    return [of_user.tolist() for of_user in np.split(hashes, starts[1:-1])]


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
