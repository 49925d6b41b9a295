"""Slices of the cases: cold and new users, cold items, head, mid and tail."""

from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_core.data.histories.cases import BoolArray, Cases

HEAD_SHARE = 0.5
MID_SHARE = 0.4

SliceName = Literal["all", "cold_users", "new_users", "cold_items", "head", "mid", "tail"]


class PopularityGroups(NamedTuple):
    """Masks `[n_items + 1]` by item_idx; each item is in one of them, the padding in none."""

    head: BoolArray
    mid: BoolArray
    tail: BoolArray


def popularity_groups(train_count: NDArray[np.int64]) -> PopularityGroups:
    """Group the items by their share of the training interactions.

    Head: the most popular items, until they make up 50 % of the interactions (the item that
    crosses the line included). Mid: the next 40 %. Tail: the rest, including all cold items, which
    have no training interaction. Items with equal counts are in the same group.

    Args:
        train_count: `[n_items]` training interactions of item_idx 1 … n_items.
    """
    counts, group_of_item, group_sizes = np.unique(
        train_count, return_inverse=True, return_counts=True
    )
    interactions = counts * group_sizes
    more_popular = interactions.sum() - np.cumsum(interactions)
    share = more_popular[group_of_item] / max(1, interactions.sum())
    is_warm = train_count > 0
    head = is_warm & (share < HEAD_SHARE)
    mid = is_warm & ~head & (share < HEAD_SHARE + MID_SHARE)
    return PopularityGroups(*(np.append(False, mask) for mask in (head, mid, ~(head | mid))))


def case_slices(
    cases: Cases, items: pl.DataFrame, *, cold_user_events: int = 10
) -> dict[SliceName, BoolArray]:
    """The slices of each case; they overlap, but each case is in one of head, mid and tail.

    Args:
        cases: The cases.
        items: The catalogue in the order of item_idx, with `train_count`.
        cold_user_events: A user is cold with a history of at most this many events.

    Returns:
        One mask per slice: cold_users, new_users (no training event), cold_items (the target has no
        training interaction), head, mid, tail (popularity of the target, see `popularity_groups`).
    """
    train_count = items["train_count"].to_numpy()
    groups = popularity_groups(train_count)
    lengths = np.fromiter((len(history) for history in cases.histories), np.int64, len(cases))
    return {
        "cold_users": lengths <= cold_user_events,
        "new_users": cases.train_lengths == 0,
        "cold_items": np.append(False, train_count == 0)[cases.targets],
        "head": groups.head[cases.targets],
        "mid": groups.mid[cases.targets],
        "tail": groups.tail[cases.targets],
    }
