"""Histories in memory, from lists of items."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from recsys_core.data.histories.read import ResidentHistories


def resident_histories(users: Mapping[str, Sequence[int]]) -> ResidentHistories:
    """Users and the item_idx of their events, oldest first; every event is a target."""
    lengths = [len(items) for items in users.values()]
    return ResidentHistories(
        user_ids=pl.Series("user_id", list(users), dtype=pl.String),
        items=np.array([item for items in users.values() for item in items], np.int32),
        target_weights=np.ones(sum(lengths), np.float32),
        kinds=np.zeros(sum(lengths), np.int8),
        times=np.zeros(sum(lengths), np.int64),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
