"""Which events are targets of training and evaluation, and their weights in the loss."""

from typing import Annotated

import polars as pl
from pydantic import Field

from recsys_core.settings import Settings

LossWeight = Annotated[float, Field(gt=0, le=1000)]


class TargetConfig(Settings):
    """Which events are targets; all other events are history only."""

    event_types: dict[str, LossWeight] = Field(
        default={},
        description="Kinds of events that models learn to predict and are evaluated on, with their "
        "weights in the loss. Empty: all kinds, with weight 1",
    )
    min_weight: float | None = Field(
        default=None,
        description="Events of a lower weight are no targets; with ratings as weights, this is the "
        "lowest rating that counts as liked. Empty: no bound",
    )


def target_weights(config: TargetConfig, kinds: pl.DataFrame) -> pl.DataFrame:
    """The kinds of events with their weight in the loss; 0: events of the kind are no targets.

    Args:
        config: Which kinds are targets.
        kinds: `event_type`, `code`.

    Returns:
        `event_type`, `code`, `target_weight`.

    Raises:
        ValueError: A kind never occurred.
    """
    names = kinds["event_type"].to_list()
    if unknown := sorted(config.event_types.keys() - set(names)):
        msg = (
            f"prepare.targets.event_types names {unknown[0]!r}, which never occurred; there are: "
            f"{', '.join(sorted(names))}."
        )
        raise ValueError(msg)
    weights = [config.event_types.get(name, 0.0 if config.event_types else 1.0) for name in names]
    return kinds.with_columns(target_weight=pl.Series(weights, dtype=pl.Float32))
