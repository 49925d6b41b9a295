"""A small synthetic world, its events as cases, and statistics of them."""

from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys_core.synthetic.world import WorldConfig

FIRST = date(2026, 1, 1)
LAST = date(2026, 1, 10)
SMALL = WorldConfig(
    n_users=250,
    n_items=150,
    n_categories=8,
    new_user_share=0.02,
    new_item_share=0.02,
    events_per_user_day=4.0,
)


Truth = tuple[np.ndarray, np.ndarray]
"""True probabilities of every event `[events, n_items]`, and the column of the item it had."""


class Cases(NamedTuple):
    """Every event as a case: who, what before, when, and what it was."""

    users: list[str]
    histories: list[list[str]]
    days: list[date]
    targets: list[str]


def read_events(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(sorted((folder / "interactions").glob("*.parquet")))


def read_cases(folder: Path) -> Cases:
    cases = Cases([], [], [], [])
    by_user = read_events(folder).sort("user_id", "timestamp").group_by("user_id")
    for (user,), events in sorted(by_user, key=lambda group: group[0]):
        items = events["item_id"].to_list()
        cases.users.extend([str(user)] * len(items))
        cases.histories.extend(items[:place] for place in range(len(items)))
        cases.days.extend(events["timestamp"].dt.date())
        cases.targets.extend(items)
    return cases


def ndcg_at_10(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    target_scores = np.take_along_axis(scores, targets[:, None], axis=1)
    ranks = 1 + (scores > target_scores).sum(axis=1)
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0)


def z_score(difference: np.ndarray) -> float:
    return float(difference.mean() / (difference.std() / np.sqrt(len(difference))))
