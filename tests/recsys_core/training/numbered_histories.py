"""Histories whose items say whose they are and where they stand."""

from pathlib import Path

import polars as pl

from recsys_core.training.batch import Batch
from recsys_core.training.batching import TrainingSet

MAX_LENGTH = 6
LENGTHS = [[2, 3, 30, 1, 7], [], [0, 8, 5, 2], [6, 9, 1, 4, 7, 7]]
"""Training events of each user, bucket by bucket. User u's item at position p is 100 u + p + 1."""


def trainable() -> dict[int, int]:
    """Users with something to predict, and their training events."""
    lengths = [length for bucket in LENGTHS for length in bucket]
    return {user: length for user, length in enumerate(lengths) if length >= 2}


def epochs(training_set: TrainingSet, n: int, seed: int = 1) -> list[list[Batch]]:
    """The batches of the first epochs."""
    return [list(training_set.epoch(epoch, seed)) for epoch in range(n)]


def only_even_items_are_targets(paths: list[Path]) -> None:
    """Give odd items no weight as targets."""
    even = pl.col("item_idx").list.eval((pl.element() % 2 == 0).cast(pl.Float32))
    for path in paths:
        pl.read_parquet(path).with_columns(target_weight=even).write_parquet(path)
