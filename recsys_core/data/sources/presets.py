"""Presets for public data sets: their files, columns and units."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Preset:
    """A known layout: only the location has to be configured.

    Attributes:
        format: Format of the files.
        columns: Settings of the interactions' columns.
        item_columns: Settings of the items' columns.
        timestamp_unit: Unit of the timestamps.
        files: Table name to its path in the folder, which may be a glob; None if the paths are
            configured as usual.
        encoding: Encoding of the text.
    """

    format: Literal["csv", "jsonl"]
    columns: dict[str, Any]
    item_columns: dict[str, Any]
    timestamp_unit: Literal["s", "ms"]
    files: dict[str, str] | None = None
    encoding: str = "utf-8"


PRESETS = {
    "movielens": Preset(
        format="csv",
        columns={
            "user_id": "userId",
            "item_id": "movieId",
            "timestamp": "timestamp",
            "weight": "rating",
        },
        item_columns={
            "item_id": "movieId",
            "title": "title",
            "categories": "genres",
            "category_separator": "|",
            "no_category": "(no genres listed)",
        },
        timestamp_unit="s",
        files={"interactions": "ratings.[cd]*", "items": "movies.[cd]*"},
    ),
    "amazon-2018": Preset(
        format="jsonl",
        columns={
            "user_id": "reviewerID",
            "item_id": "asin",
            "timestamp": "unixReviewTime",
            "weight": "overall",
        },
        item_columns={"item_id": "asin", "categories": "category"},
        timestamp_unit="s",
    ),
    "amazon-2023": Preset(
        format="jsonl",
        columns={
            "user_id": "user_id",
            "item_id": "parent_asin",
            "timestamp": "timestamp",
            "weight": "rating",
        },
        item_columns={"item_id": "parent_asin"},
        timestamp_unit="ms",
    ),
}

DAT_COLUMNS = {
    "interactions": ("userId", "movieId", "rating", "timestamp"),
    "items": ("movieId", "title", "genres"),
}
"""Columns of MovieLens .dat files, which have no header; two colons separate the fields."""
