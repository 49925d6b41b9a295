"""What a night spends on its teacher: full retraining, a warm start, or last night's as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from recsys_core.data.drift.day_profile import (
    chance_distance,
    jensen_shannon_distance,
    popularity_bins,
)
from recsys_core.data.histories.read import training_events
from recsys_core.data.schema import MICROSECONDS_PER_DAY
from recsys_core.settings import Settings

TrainingMode = Literal["full", "warm", "reuse"]


class RetrainingPolicy(Settings):
    """When a teacher is trained anew, and when it goes on from an earlier night's."""

    mode: Literal["auto", "full"] = Field(
        default="auto",
        description="auto: full retraining, a warm start or no training, by age, drift and budget; "
        "full: always full",
    )
    full_every_days: int = Field(
        default=7,
        ge=1,
        le=3650,
        description="A warm start never builds on a full training older than this",
    )
    max_drift: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Jensen-Shannon distance, beyond chance, of the popularity of items since the "
        "last teacher from that before; above it training is full",
    )
    reuse_days: int = Field(
        default=0,
        ge=0,
        le=3650,
        description="A teacher younger than this is used again without training; 0: never",
    )
    budget_events: int | None = Field(
        default=None,
        ge=1,
        description="Most training events a night, counted in every epoch; full training that "
        "needs more gives way to a warm start, and this to reuse. Empty: no limit",
    )
    warm_epochs: int = Field(default=2, ge=1, le=1000, description="Epochs of a warm start")
    warm_learning_rate_share: float = Field(
        default=0.5, gt=0, le=1, description="Its peak learning rate, as a share of the full one"
    )
    replay_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Users without new events that an epoch of a warm start sees too, as a share "
        "of them",
    )


class Parent(NamedTuple):
    """An earlier teacher that a warm start could go on from.

    Attributes:
        key: Its stage output's.
        age_days: Days between its last training event and tonight's.
        full_age_days: The same for the full training that it goes back to.
    """

    key: str
    age_days: float
    full_age_days: float


class Decision(NamedTuple):
    """What to do, from which teacher, and why: a sentence a reason."""

    mode: TrainingMode
    parent: str | None
    reasons: tuple[str, ...]


def decide(
    policy: RetrainingPolicy,
    parent: Parent | None,
    *,
    drift: float,
    full_events: int,
    warm_events: int,
) -> Decision:
    """Choose the mode by age, drift and budget, in this order.

    Args:
        policy: The settings.
        parent: The newest teacher that fits and knows nothing after tonight's training events.
        drift: See `popularity_drift`; only looked at where there is a parent.
        full_events: Training events of a full training, over all its epochs.
        warm_events: The same of a warm start.
    """
    if parent is None:
        return Decision("full", None, ("There is no earlier teacher that fits.",))
    if policy.mode == "full":
        return Decision("full", None, ("The settings ask for full training every night.",))
    if parent.age_days < policy.reuse_days:
        reason = f"The last teacher is {parent.age_days:.1f} days old, reuse_days says enough."
        return Decision("reuse", parent.key, (reason,))
    causes: list[str] = []
    if parent.full_age_days >= policy.full_every_days:
        causes.append(
            f"The last full training is {parent.full_age_days:.1f} days back, full_every_days is "
            f"{policy.full_every_days}."
        )
    if drift > policy.max_drift:
        causes.append(f"Popularity drifted by {drift:.3f}, max_drift is {policy.max_drift}.")
    budget = policy.budget_events
    if causes and (budget is None or full_events <= budget):
        return Decision("full", None, tuple(causes))
    if causes:
        causes.append(f"But full training takes {full_events:,} events, the budget is {budget:,}.")
    if budget is not None and warm_events > budget:
        causes.append(f"A warm start takes {warm_events:,} events, the budget is {budget:,}.")
        return Decision("reuse", parent.key, tuple(causes))
    if not causes:
        causes.append(
            f"The last full training is {parent.full_age_days:.1f} days back and popularity "
            f"drifted by {drift:.3f}: within full_every_days and max_drift."
        )
    return Decision("warm", parent.key, tuple(causes))


def popularity_drift(buckets: Sequence[Path], *, n_items: int, since: int, days: int = 7) -> float:
    """How far the popularity of items since a moment is from that of the days before it.

    Args:
        buckets: History files; training events count.
        n_items: Length of the item index.
        since: Microseconds since 1970.
        days: How many days before count.

    Returns:
        Jensen-Shannon distance less what chance alone makes, at least 0; 0 without events.
    """
    before, after = np.zeros(n_items + 1, np.int64), np.zeros(n_items + 1, np.int64)
    earliest = since - days * MICROSECONDS_PER_DAY
    for path in buckets:
        events = (
            training_events(path, "item_idx", "timestamp")
            .filter(pl.col("timestamp") >= earliest)
            .collect()
        )
        items, is_new = events["item_idx"].to_numpy(), (events["timestamp"] >= since).to_numpy()
        after += np.bincount(items[is_new], minlength=n_items + 1)
        before += np.bincount(items[~is_new], minlength=n_items + 1)
    if not before.any() or not after.any():
        return 0.0
    new, old = popularity_bins(after, before)
    return max(0.0, jensen_shannon_distance(new, old) - chance_distance(new, old))
