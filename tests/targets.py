"""Histories in which every event is a target, as they are by default."""

import polars as pl

ALL_TARGETS = pl.col("item_idx").list.eval(pl.element().is_not_null()).alias("is_target")
"""The column `is_target` of such histories."""

TIMESTAMPS = pl.int_ranges(pl.col("item_idx").list.len()).alias("timestamp")
"""The column `timestamp`: an event a microsecond."""
