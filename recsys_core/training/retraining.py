"""How a night trains its teacher: in full, by a warm start, or not at all (reuse)."""

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
    """When the teacher is trained in full, and when training starts from an earlier night's."""

    mode: Literal["auto", "full"] = Field(
        default="auto",
        description="auto: full training, a warm start or reuse, by age, drift and budget; full: "
        "full training every night",
    )
    full_every_days: int = Field(
        default=7,
        ge=1,
        le=3650,
        description="Oldest full training that a warm start may build on, in days",
    )
    max_drift: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Largest Jensen-Shannon distance, beyond chance, between item popularity after "
        "and before the end of the last teacher's training; above it training is full",
    )
    reuse_days: int = Field(
        default=0,
        ge=0,
        le=3650,
        description="A teacher younger than this many days is reused without training; 0: never",
    )
    budget_events: int | None = Field(
        default=None,
        ge=1,
        description="Most training events a night, summed over epochs. If full training needs "
        "more, a warm start is tried; if that needs more, the teacher is reused. Empty: no limit",
    )
    warm_epochs: int = Field(default=2, ge=1, le=1000, description="Epochs of a warm start")
    warm_learning_rate_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Peak learning rate of a warm start, as a share of that of full training",
    )
    replay_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of the users without new events that each epoch of a warm start replays",
    )


class Parent(NamedTuple):
    """An earlier teacher that a warm start could build on.

    Attributes:
        key: Key of its stage output.
        age_days: Days between its last training event and tonight's.
        full_age_days: The same for the full training that it descends from.
    """

    key: str
    age_days: float
    full_age_days: float


class Decision(NamedTuple):
    """The mode, the key of the parent and the reasons, one sentence each."""

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
    """Choose the training mode by age, drift and budget, in this order.

    Args:
        policy: The settings.
        parent: The newest compatible teacher that saw no event after tonight's training events.
        drift: See `popularity_drift`; ignored without a parent.
        full_events: Training events of a full training, summed over epochs.
        warm_events: The same for a warm start.

    Example:
        >>> parent = Parent("a1b2", age_days=1, full_age_days=3)
        >>> policy = RetrainingPolicy()
        >>> decision = decide(policy, parent, drift=0.3, full_events=900, warm_events=100)
        >>> decision.mode, decision.reasons
        ('full', ('Popularity drifted by 0.300, max_drift is 0.2.',))
    """
    if parent is None:
        return Decision("full", None, ("There is no earlier teacher that fits.",))
    if policy.mode == "full":
        return Decision("full", None, ("The settings ask for full training every night.",))
    if parent.age_days < policy.reuse_days:
        reason = (
            f"The last teacher is {parent.age_days:.1f} days old, reuse_days is "
            f"{policy.reuse_days}."
        )
        return Decision("reuse", parent.key, (reason,))
    causes: list[str] = []
    if parent.full_age_days >= policy.full_every_days:
        causes.append(
            f"The last full training is {parent.full_age_days:.1f} days old, full_every_days is "
            f"{policy.full_every_days}."
        )
    if drift > policy.max_drift:
        causes.append(f"Popularity drifted by {drift:.3f}, max_drift is {policy.max_drift}.")
    budget = policy.budget_events
    if causes and (budget is None or full_events <= budget):
        return Decision("full", None, tuple(causes))
    if causes:
        causes.append(f"Full training takes {full_events:,} events, the budget is {budget:,}.")
    if budget is not None and warm_events > budget:
        causes.append(f"A warm start takes {warm_events:,} events, the budget is {budget:,}.")
        return Decision("reuse", parent.key, tuple(causes))
    if not causes:
        causes.append(
            f"The last full training is {parent.full_age_days:.1f} days old and popularity "
            f"drifted by {drift:.3f}: within full_every_days and max_drift."
        )
    return Decision("warm", parent.key, tuple(causes))


def popularity_drift(buckets: Sequence[Path], *, n_items: int, since: int, days: int = 7) -> float:
    """Distance between the popularity of items since a moment and in the days before it.

    Args:
        buckets: History files; training events count.
        n_items: Length of the item index.
        since: Microseconds since 1970.
        days: Length of the window before it.

    Returns:
        Jensen-Shannon distance minus its expectation under chance, at least 0; 0 without events.
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
