"""The catalogue by date: one row per version of an item, and the version that holds on a date.

A night writes versions of new and changed items, dated by its run date; a later change on the same
run date replaces them. Versions that are in the table are not written again, so a killed step can
be repeated.
"""

from datetime import date
from functools import partial

import polars as pl
from polars.exceptions import SchemaError

from recsys_core.data.lake.commits import Change
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import ITEMS, VECTOR
from recsys_core.data.sources.config import SourceError

_STORED = "__stored"


def items_as_of(items: pl.LazyFrame, run_date: date) -> pl.LazyFrame:
    """The version of each item that holds on a date: the latest until then.

    Before an item's first version, that first version holds: `available_from` says when the item
    came, not the date of the night that first read it.

    Args:
        items: Rows of the table `items`: at least `item_id`, `valid_from`.
        run_date: The date.
    """
    days = pl.col("valid_from").to_physical()
    rank = pl.when(pl.col("valid_from") <= run_date).then(days).otherwise(-days)
    return items.filter(rank == rank.max().over("item_id"))


def store_items(lake: Lake, items: pl.DataFrame, *, run_date: date) -> None:
    """Write a version of each item that is new or differs from its version on the run date.

    Args:
        lake: The lake.
        items: One row per item, from `clean_items`. Columns that the table lacks are added to the
            table; in columns that `items` lacks, an item keeps its values.
        run_date: The date of the versions.

    Raises:
        SourceError: The type of a column does not fit the type that the table has.
    """
    table = lake.scan(ITEMS.name).collect_schema()
    spelled = {name.casefold(): name for name in table}
    items = items.rename({name: spelled.get(name.casefold(), name) for name in items.columns})
    items = items.with_columns(listed=pl.lit(value=True))
    lake.change(ITEMS, partial(_widened, new=items.schema))
    lake.add_columns(ITEMS, items.schema)

    def decide(snapshot: Snapshot) -> Change:
        return _change(snapshot, _changed(snapshot, items, run_date), run_date)

    lake.change(ITEMS, decide)


def store_listing(
    lake: Lake, listed: pl.Series, *, run_date: date, max_retired_share: float
) -> None:
    """Mark these items, and no others, as listed; items whose mark changes get a version.

    Args:
        lake: The lake.
        listed: Ids of the items.
        run_date: The date of the versions.
        max_retired_share: Largest share of the listed items that may be retired.

    Raises:
        SourceError: More would be retired; nothing is changed.
    """
    ids = listed.unique().alias("item_id").to_frame()

    def decide(snapshot: Snapshot) -> Change:
        current = items_as_of(snapshot.scan(), run_date)
        was = current.select("item_id", "listed").collect()
        gone = was.filter("listed").join(ids, on="item_id", how="anti")
        _refuse_mass_retirement(gone.height, int(was["listed"].sum()), max_retired_share)
        back = was.filter(~pl.col("listed")).join(ids, on="item_id", how="semi")
        if gone.is_empty() and back.is_empty():
            return Change()
        flipped = pl.concat([gone, back]).lazy().select("item_id", listed=~pl.col("listed"))
        versions = current.drop("listed").join(flipped, on="item_id").collect()
        return _change(snapshot, versions, run_date)

    lake.change(ITEMS, decide)


def _changed(snapshot: Snapshot, items: pl.DataFrame, run_date: date) -> pl.DataFrame:
    """The items that are new or differ from the stored version, with all columns of the table."""
    stored = items_as_of(snapshot.scan(), run_date).collect()
    both = items.cast({name: stored.schema[name] for name in items.columns}).join(
        stored, on="item_id", how="left", suffix=_STORED, maintain_order="left"
    )
    differs = [
        pl.col(name).ne_missing(pl.col(name + _STORED))
        for name in items.columns
        if name != "item_id"
    ]
    unknown = pl.col("valid_from").is_null()
    return (
        both.filter(pl.any_horizontal(unknown, *differs))
        .select(stored.columns)
        .with_columns(pl.col("categories").fill_null([]))
    )


def _change(snapshot: Snapshot, versions: pl.DataFrame, run_date: date) -> Change:
    """Add versions of a date; they replace versions of the same items on that date."""
    if versions.is_empty():
        return Change()
    rows, stale = [versions.drop("valid_from")], list[str]()
    for path in snapshot.files().filter(pl.col("date") == run_date)["path"]:
        before = snapshot.read_file(path).collect()
        others = before.join(versions, on="item_id", how="anti")
        if others.height < before.height:
            rows.append(others)
            stale.append(path)
    added = pl.concat(rows, how="diagonal").sort("item_id")
    return Change(snapshot.write(added, run_date), stale)


def _widened(snapshot: Snapshot, new: pl.Schema) -> Change:
    """Rewrite the table if columns need a wider type."""
    stored = snapshot.scan().collect_schema()
    wider = {
        name: _wider(name, stored[name], dtype) for name, dtype in new.items() if name in stored
    }
    wanted = pl.Schema({**stored, **wider})
    if wanted == stored:
        return Change()
    rows = snapshot.scan().with_columns(
        # A column that was no vector so far has not been checked: its files are read again.
        pl.lit(None, VECTOR).alias(name)
        if dtype == VECTOR != stored[name]
        else pl.col(name).cast(dtype)
        for name, dtype in wider.items()
    )
    parts = rows.collect().partition_by("valid_from", as_dict=True)
    added = [file for (day,), part in parts.items() for file in snapshot.write(part, day)]
    return Change(added, schema=wanted)


def _wider(name: str, stored: pl.DataType, new: pl.DataType) -> pl.DataType:
    if new == VECTOR:
        return new
    pair = [pl.DataFrame(schema={name: dtype}) for dtype in (stored, new)]
    try:
        together = pl.concat(pair, how="vertical_relaxed").schema[name]
    except SchemaError:
        together = None
    if together is None or together.is_nested() != stored.is_nested():
        msg = (
            f"The catalogue's column {name!r} has held {stored} so far, and now {new}; the lake "
            "can't hold both. Export it as before, or give it another name."
        )
        raise SourceError(msg)
    return together


def _refuse_mass_retirement(n_gone: int, n_listed: int, max_share: float) -> None:
    if n_gone <= max_share * n_listed:
        return
    msg = (
        f"The item files lack {n_gone} of the {n_listed} items that are offered "
        f"({n_gone / n_listed:.0%}); with source.items_are_complete they would all be retired, "
        f"but source.max_retired_share allows {max_share:.0%}. Export the whole catalogue, or "
        "raise the share if they are really gone."
    )
    raise SourceError(msg)
