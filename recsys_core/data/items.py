"""Raw rows of a catalogue to rows of the lake."""

from datetime import date

import polars as pl

from recsys_core.data.judging import (
    CLEAN,
    REASON,
    Cleaned,
    identifier_of,
    judge,
    quarantine,
    refuse_nested,
    text_of,
    tidy,
    time_of,
)
from recsys_core.data.readers import POSITION_COLUMNS
from recsys_core.data.schema import ITEMS
from recsys_core.data.sources import SourceConfig


def clean_items(raw: pl.LazyFrame, config: SourceConfig, *, source: str, run_date: date) -> Cleaned:
    """Judge the raw rows of one catalogue file; of several rows of an item the last one counts.

    Raises:
        SourceError: A column has a type that can't be read as what it should be.
    """
    config = config.resolved()
    rows = tidy(raw.collect())
    refuse_nested(rows, source, ("item_id", "title", "available_from"))
    types = rows.schema
    values = {
        "item_id": identifier_of("item_id", types),
        "title": text_of("title", types),
        "categories": _categories(types, config),
        "available_from": time_of("available_from", types, config),
    }
    judged = judge(rows, ITEMS, values, {})
    carried = [name for name in types if name not in values and name not in POSITION_COLUMNS]
    valid = judged.filter(pl.col(REASON).is_null()).select(
        *(pl.col(f"{CLEAN}{name}").cast(ITEMS.schema[name]).alias(name) for name in values),
        *carried,
    )
    kept = valid.unique(subset=ITEMS.key, keep="last", maintain_order=True)
    bad = quarantine(judged, source, run_date)
    return Cleaned(kept, bad, rows.height, valid.height - kept.height)


def _categories(types: pl.Schema, config: SourceConfig) -> pl.Expr:
    """Categories as a list of text, never null."""
    if "categories" not in types:
        return pl.lit([], pl.List(pl.String))
    column = pl.col("categories")
    if not isinstance(types["categories"], pl.List):
        column = column.cast(pl.String).str.split(config.item_columns.category_separator)
    names = pl.element().cast(pl.String).str.strip_chars()
    wanted = (names != "") & (names != config.item_columns.no_category)
    return column.list.eval(names.filter(wanted)).fill_null(pl.lit([], pl.List(pl.String)))
