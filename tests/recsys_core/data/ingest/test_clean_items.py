"""Raw catalogue rows to clean ones: categories, times, vectors, and what is carried along."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.ingest.clean_items import CleanedItems, clean_items, item_ids
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.reader import BROKEN, LINE, ROW

SECOND = 1_700_000_000
MOMENT = datetime.fromtimestamp(SECOND, UTC)
Vector = list[float] | None


def _raw(frame: pl.DataFrame) -> pl.LazyFrame:
    nothing = pl.lit(None, pl.String)
    return frame.lazy().select(
        pl.int_range(1, frame.height + 1).alias(ROW),
        nothing.alias(BROKEN),
        nothing.alias(LINE),
        "*",
    )


def _clean(
    frame: pl.DataFrame, widths: dict[str, int] | None = None, **settings: object
) -> CleanedItems:
    config = SourceConfig.model_validate({"interactions": Path("unused"), **settings})
    return clean_items(
        _raw(frame),
        config,
        source="items/s",
        run_date=date(2026, 1, 10),
        widths=widths or {},
    )


def _vectors(
    values: list[object] | pl.Series, widths: dict[str, int] | None = None
) -> CleanedItems:
    ids = pl.Series("item_id", [str(n) for n in range(len(values))])
    frame = pl.DataFrame([ids, pl.Series("vector", values, strict=False)])
    return _clean(frame, widths, item_columns={"embeddings": ["vector"]})


def test_categories_and_the_last_row_of_each_item() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["1", "2", None, "1"],
            "title": ["Old", None, "No id", "New"],
            "categories": ["x", None, "y", " x | y |none"],
            "price": ["1", "2", "3", "4"],
        }
    )
    cleaned = _clean(frame, item_columns={"no_category": "none"})
    assert cleaned.kept.sort("item_id").to_dicts() == [
        {"item_id": "1", "title": "New", "categories": ["x", "y"], "price": "4"},
        {"item_id": "2", "title": None, "categories": [], "price": "2"},
    ]
    assert (cleaned.n_duplicates, cleaned.reasons) == (1, {"missing item_id": 1})


def test_categories_that_are_lists_and_times_that_are_none() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["1", "2", "3"],
            "categories": [["x", ""], None, None],
            "available_from": [str(SECOND), "?", None],
            "retired_from": [None, None, "soon"],
        }
    )
    cleaned = _clean(frame)
    assert cleaned.kept["categories"].to_list() == [["x"]]
    assert cleaned.kept["available_from"].to_list() == [MOMENT]
    assert cleaned.kept["retired_from"].to_list() == [None]
    assert cleaned.reasons == {"unreadable available_from": 1, "unreadable retired_from": 1}


@pytest.mark.parametrize(
    "values",
    [
        [[1.0, 2.5], None, []],
        pl.Series([[1.0, 2.5], None, None], dtype=pl.Array(pl.Float64, 2)),
        ["[1, 2.5]", None, " [ ] "],
        ["[1.0,\n2.5]", "", "[]"],
        [["1", "2.5"], None, []],
    ],
    ids=["lists", "arrays", "text", "text in lines", "lists of text"],
)
def test_vectors_in_every_form_and_none(values: list[object] | pl.Series) -> None:
    cleaned = _vectors(values)
    assert cleaned.kept.schema["vector"] == pl.List(pl.Float32)
    assert cleaned.kept["vector"].to_list() == [[1.0, 2.5], None, None]
    assert cleaned.reasons == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([1.0], "vector of another width"),
        ([1.0, 2.0, 3.0], "vector of another width"),
        ([1.0, float("nan")], "vector not finite"),
        ([float("-inf"), 1.0], "vector not finite"),
        ([1e308, 1.0], "vector not finite"),
        ([1.0, None], "unreadable vector"),
        ("[1, x]", "unreadable vector"),
        ("1, 2", "unreadable vector"),
        ("[1, 2", "unreadable vector"),
        ("[[1, 2]]", "unreadable vector"),
        ("[1]", "vector of another width"),
        ("[1, nan]", "vector not finite"),
    ],
)
def test_a_bad_vector_is_quarantined_with_a_reason(bad: object, reason: str) -> None:
    good = "[1, 2]" if isinstance(bad, str) else [1.0, 2.0]
    cleaned = _vectors([bad, good, good])
    assert cleaned.reasons == {reason: 1}
    assert cleaned.kept["item_id"].to_list() == ["1", "2"]
    assert cleaned.quarantined["row"].to_list() == [1]


@pytest.mark.parametrize("values", [[1.5, 2.5], [[["a"]], None], [{"a": 1.0}, None]])
def test_what_is_no_list_of_numbers_is_unreadable(values: list[object]) -> None:
    cleaned = _vectors(values)
    assert set(cleaned.reasons) == {"unreadable vector"}


def test_the_width_that_the_lake_knows_holds() -> None:
    cleaned = _vectors([[1.0], [1.0], [1.0, 2.0], None], {"vector": 2})
    assert cleaned.reasons == {"vector of another width": 2}


WIDE = st.none() | st.lists(st.floats(width=32), min_size=1, max_size=4)


@given(st.lists(WIDE, min_size=1, max_size=8))
def test_kept_vectors_are_finite_and_of_one_width_and_no_row_is_lost(rows: list[Vector]) -> None:
    cleaned = _vectors(pl.Series("vector", rows, dtype=pl.List(pl.Float64)))
    kept = cleaned.kept["vector"].drop_nulls()
    assert kept.list.len().n_unique() <= 1
    assert kept.explode(empty_as_null=False).is_finite().all()
    assert cleaned.kept.height + cleaned.quarantined.height == len(rows)
    assert cleaned.kept["vector"].null_count() == rows.count(None)


def test_a_file_may_lack_the_vectors() -> None:
    frame = pl.DataFrame({"item_id": ["1"], "title": ["A"]})
    cleaned = _clean(frame, item_columns={"embeddings": ["vector"]})
    assert cleaned.kept.columns == ["item_id", "title"]


def test_further_columns_are_carried_in_types_that_the_lake_has() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["1"],
            "small": pl.Series([1], dtype=pl.UInt8),
            "huge": pl.Series([2**64 - 1], dtype=pl.UInt64),
            "brand": pl.Series(["B"], dtype=pl.Categorical),
            "on": pl.Series([date(2026, 1, 1)]),
            "at": pl.Series([MOMENT]).dt.cast_time_unit("ms"),
            "clock": pl.Series([MOMENT.replace(tzinfo=None)]),
            "sizes": pl.Series([[1, 2]], dtype=pl.List(pl.Int8)),
            "bytes": [b"\xff"],
            "nothing": [None],
            "nested": [{"a": 1}],
            "deep": [[[1]]],
            "Title": ["T"],
            "listed": ["yes"],
        }
    )
    cleaned = _clean(frame)
    assert cleaned.kept.to_dicts() == [
        {
            "item_id": "1",
            "small": 1,
            "huge": "18446744073709551615",
            "brand": "B",
            "on": date(2026, 1, 1),
            "at": MOMENT,
            "clock": "2023-11-14 22:13:20.000000",
            "sizes": [1, 2],
            "Title_given": "T",
            "listed_given": "yes",
        }
    ]
    assert _clean(frame.with_columns(item_id=pl.lit(None, pl.String))).reasons == {
        "missing item_id": 1
    }


def test_columns_that_differ_in_letter_case_only_are_refused() -> None:
    frame = pl.DataFrame({"item_id": ["1"], "Price": [1], "price": [2]})
    with pytest.raises(SourceError, match="'Price' and 'price', which differ in letter case only"):
        _clean(frame)


def test_the_ids_of_a_file_are_those_of_bad_rows_too() -> None:
    raw = _raw(pl.DataFrame({"item_id": [1.0, None, 2.5, 2.0]}))
    assert item_ids(raw.collect()).to_list() == ["1", "2"]


@pytest.mark.parametrize("names", [["v", "v"], ["title"], ["listed"], ["sku"]])
def test_a_column_of_vectors_means_nothing_else(names: list[str]) -> None:
    columns = {"item_id": "sku", "embeddings": names}
    with pytest.raises(ValueError, match="is named twice or means something else already"):
        SourceConfig.model_validate({"interactions": Path("unused"), "item_columns": columns})
