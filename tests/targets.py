"""Histories in which every event is of one kind and a target, as they are by default."""

import polars as pl

PLAIN_EVENTS = (
    pl.col("item_idx").list.eval(pl.lit(1.0, pl.Float32)).alias("target_weight"),
    pl.col("item_idx").list.eval(pl.lit(0, pl.Int8)).alias("event_type"),
    pl.int_ranges(pl.col("item_idx").list.len()).alias("timestamp"),
)
"""The columns of such histories beside the items: an event a microsecond."""
