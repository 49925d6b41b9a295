"""Full, warm or reuse: by age, drift and budget, each with its reason."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_core.training.retraining import (
    Parent,
    RetrainingPolicy,
    TrainingMode,
    decide,
    popularity_drift,
)

YOUNG = Parent("key", age_days=1.0, full_age_days=3.0)
OLD = Parent("key", age_days=1.0, full_age_days=7.0)
DAY = 86_400_000_000


@pytest.mark.parametrize(
    ("changes", "parent", "drift", "mode", "reason"),
    [
        ({}, None, 0.0, "full", "no earlier teacher"),
        ({"mode": "full"}, YOUNG, 0.0, "full", "every night"),
        ({}, YOUNG, 0.1, "warm", "within full_every_days and max_drift"),
        ({}, OLD, 0.1, "full", "7.0 days old, full_every_days is 7"),
        ({}, YOUNG, 0.3, "full", "drifted by 0.300"),
        ({"reuse_days": 2}, OLD, 0.9, "reuse", "reuse_days is 2"),
        ({"budget_events": 999}, OLD, 0.1, "warm", "1,000 events, the budget is 999"),
        ({"budget_events": 1000}, OLD, 0.1, "full", "7.0 days old"),
        ({"budget_events": 99}, OLD, 0.1, "reuse", "warm start takes 100 events"),
        ({"budget_events": 99}, YOUNG, 0.0, "reuse", "warm start takes 100 events"),
        ({"budget_events": 99}, None, 0.0, "full", "no earlier teacher"),
    ],
)
def test_the_mode_and_its_reason(
    changes: dict[str, object], parent: Parent | None, drift: float, mode: TrainingMode, reason: str
) -> None:
    policy = RetrainingPolicy.model_validate(changes)
    decision = decide(policy, parent, drift=drift, full_events=1000, warm_events=100)
    assert decision.mode == mode
    assert decision.parent == (None if mode == "full" else "key")
    assert reason in " ".join(decision.reasons)


def _bucket(folder: Path, items: list[int], days: list[float], train_end: int) -> Path:
    path = folder / "bucket-000.parquet"
    pl.DataFrame(
        {
            "item_idx": pl.Series([items], dtype=pl.List(pl.Int32)),
            "timestamp": pl.Series([[int(day * DAY) for day in days]], dtype=pl.List(pl.Int64)),
            "train_end": pl.Series([train_end], dtype=pl.Int32),
        }
    ).write_parquet(path)
    return path


def test_drift_is_what_chance_does_not_explain(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    days = np.sort(random.uniform(0, 14, 4000)).tolist()
    since = 10 * DAY
    same = random.integers(1, 11, 4000).tolist()
    calm = popularity_drift([_bucket(tmp_path, same, days, 4000)], n_items=20, since=since)
    moved = [item + 10 * (day >= 10) for item, day in zip(same, days, strict=True)]
    changed = popularity_drift([_bucket(tmp_path, moved, days, 4000)], n_items=20, since=since)
    assert calm < 0.03
    assert changed > 0.9


def test_held_out_events_and_old_ones_do_not_drift(tmp_path: Path) -> None:
    items, days = [1, 2, 1, 2, 1, 2, 3], [0.0, 9, 9.1, 9.2, 10, 10.1, 10.2]
    bucket = _bucket(tmp_path, items, days, 6)
    assert popularity_drift([bucket], n_items=3, since=10 * DAY) < 0.3
    assert popularity_drift([bucket], n_items=3, since=12 * DAY) == 0
