"""The catalogue of a night: every indexed item, what is known of it and where it competes."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recsys_core.data.splits import SplitKind, TimeWindows

Catalogue = Literal["all", "interacted"]


def build_catalogue(
    item_index: pl.DataFrame,
    items: pl.DataFrame,
    first_interaction: pl.DataFrame,
    *,
    kind: SplitKind,
    windows: TimeWindows,
    catalogue: Catalogue,
) -> pl.DataFrame:
    """One row per indexed item, in the order of item_idx.

    Args:
        item_index: `item_id`, `item_idx`.
        items: `item_id`, `title`, `categories`, optionally `available_from`.
        first_interaction: `item_id`, `first_interaction`: when it was first interacted with.
        kind: How the histories are split.
        windows: Their windows.
        catalogue: "all" lets items compete that are listed but untouched; "interacted" does not.

    Returns:
        `item_idx`, `item_id`, `title`, `categories`, and whether it is a candidate at the start
        of the validation window, at the start of the test window, and at the night's end
        (`active`: the items that ship). Leave-one-out has no moments: all three are the last.
    """
    if "available_from" not in items.columns:
        items = items.with_columns(available_from=pl.lit(None, pl.Datetime("us", "UTC")))
    listed = items.select(
        "item_id", "title", "categories", "available_from", listed=pl.lit(value=True)
    )
    joined = (
        item_index.join(listed, on="item_id", how="left", maintain_order="left")
        .join(first_interaction, on="item_id", how="left", maintain_order="left")
        .sort("item_idx")
    )
    moments = (
        (windows.validation_start, windows.test_start, windows.end)
        if kind == "global_time"
        else (windows.end, windows.end, windows.end)
    )
    names = ("candidate_validation", "candidate_test", "active")
    return joined.select(
        "item_idx",
        "item_id",
        "title",
        pl.col("categories").fill_null([]),
        *(
            _is_candidate(moment, catalogue).alias(name)
            for name, moment in zip(names, moments, strict=True)
        ),
    )


def _is_candidate(moment: datetime, catalogue: Catalogue) -> pl.Expr:
    now = pl.lit(moment).cast(pl.Datetime("us", "UTC"))
    touched = (pl.col("first_interaction") < now).fill_null(value=False)
    if catalogue == "interacted":
        return touched
    listed = pl.col("listed").fill_null(value=False)
    available = (pl.col("available_from") <= now).fill_null(value=True)
    return touched | (listed & available)


def count_training_interactions(
    buckets: Sequence[Path], *, n_items: int, since: datetime | None
) -> pl.DataFrame:
    """Training interactions of each item, in all and recent ones.

    Args:
        buckets: History files.
        n_items: Length of the item index.
        since: Recent ones are at or after it; None counts all of them as recent.

    Returns:
        `item_idx`, `train_count`, `recent_count`, for every item_idx from 1, in order.
    """
    start = -(2**63) if since is None else int(since.timestamp() * 1_000_000)
    train = np.zeros(n_items + 1, np.int64)
    recent = np.zeros(n_items + 1, np.int64)
    for path in buckets:
        events = (
            pl.scan_parquet(path)
            .select(
                pl.col(name).list.head(pl.col("train_end")) for name in ("item_idx", "timestamp")
            )
            .explode("item_idx", "timestamp", empty_as_null=False)
            .collect()
        )
        items = events["item_idx"].to_numpy()
        train += np.bincount(items, minlength=n_items + 1)
        newer = (events["timestamp"] >= start).to_numpy()
        recent += np.bincount(items[newer], minlength=n_items + 1)
    return pl.DataFrame(
        {
            "item_idx": pl.Series(range(1, n_items + 1), dtype=pl.Int32),
            "train_count": train[1:],
            "recent_count": recent[1:],
        }
    )
