"""Histories in which every event is a target, as they are by default."""

import polars as pl

ALL_TARGETS = pl.col("item_idx").list.eval(pl.element().is_not_null()).alias("is_target")
"""The column `is_target` of such histories."""
