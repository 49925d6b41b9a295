"""The item index: item_id to item_idx, 1 … n_items; append-only.

Known items keep their item_idx, so last night's weights still fit them. An output that depends on
the index records its length and the hash of that prefix; it fits any longer index with the same
prefix.
"""

import hashlib
import json
from collections.abc import Iterable

import polars as pl

from recsys_core.data.schema import ITEM_INDEX


def new_entries(index: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """The rows to append to the index, numbered on from its last.

    Args:
        index: The index so far: `item_id`, `item_idx`.
        candidates: `item_id` and `first_seen` (nullable time), any number of rows per item; known
            items may be among them.

    Returns:
        `item_id`, `item_idx` of the unknown items, ordered by their earliest `first_seen` (null
        last), then by `item_id`. The order of the candidates does not matter.
    """
    unknown = (
        candidates.join(index, on="item_id", how="anti")
        .group_by("item_id")
        .agg(pl.col("first_seen").min())
        .sort("first_seen", "item_id", nulls_last=True)
    )
    return unknown.select(
        "item_id",
        item_idx=pl.int_range(index.height + 1, index.height + 1 + pl.len(), dtype=pl.Int32),
    ).cast(ITEM_INDEX.schema)


def index_prefix_sha256(item_ids: Iterable[str]) -> str:
    """Hash of the item ids in the order of their item_idx, from 1.

    Args:
        item_ids: All ids, or the first n of them for the hash of a prefix.
    """
    text = json.dumps(list(item_ids), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
