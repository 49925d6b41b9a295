"""The catalogue by date: which version held when, and what a night writes."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.data.catalogue.versions import items_as_of, store_items, store_listing
from recsys_core.data.lake.commits import Change
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import ITEMS, VECTOR, Table
from recsys_core.data.sources.config import SourceError


def _day(day: int) -> date:
    return date(2026, 1, day)


def _titles(**titles: str | None) -> pl.DataFrame:
    return pl.DataFrame(
        {"item_id": list(titles), "title": list(titles.values())},
        schema={"item_id": pl.String, "title": pl.String},
    )


def _versions(lake: Lake, *columns: str) -> list[tuple[Any, ...]]:
    rows = lake.scan("items").sort("item_id", "valid_from").collect()
    days = pl.col("valid_from").dt.day()
    return rows.select("item_id", days, *columns).rows()


def _as_of(lake: Lake, day: int, *columns: str) -> list[tuple[Any, ...]]:
    rows = items_as_of(lake.scan("items"), _day(day)).sort("item_id").collect()
    return rows.select("item_id", *columns).rows()


def _list(lake: Lake, *ids: str, day: int, share: float = 1.0) -> None:
    listed = pl.Series(list(ids), dtype=pl.String)
    store_listing(lake, listed, run_date=_day(day), max_retired_share=share)


def test_only_what_is_new_or_changed_gets_a_version(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store_items(lake, _titles(a="A", b="B", c=None), run_date=_day(1))
    store_items(lake, _titles(a="A", b="B2", c=None, d="D"), run_date=_day(2))
    assert _versions(lake, "title") == [
        ("a", 1, "A"),
        ("b", 1, "B"),
        ("b", 2, "B2"),
        ("c", 1, None),
        ("d", 2, "D"),
    ]
    assert _as_of(lake, 1, "title") == [("a", "A"), ("b", "B"), ("c", None), ("d", "D")]
    assert _as_of(lake, 3, "title") == [("a", "A"), ("b", "B2"), ("c", None), ("d", "D")]
    versions = lake.scan("items").collect()
    assert versions["categories"].to_list() == [[]] * 5
    assert versions["listed"].all()


def test_before_its_first_version_that_one_holds(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for day, title in ((5, "First"), (7, "Second")):
        store_items(lake, _titles(a=title), run_date=_day(day))
    assert [_as_of(lake, day, "title") for day in (1, 5, 6, 7)] == [
        [("a", "First")],
        [("a", "First")],
        [("a", "First")],
        [("a", "Second")],
    ]


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = _titles(a="A", b="B").with_columns(
        vector=pl.Series([[1.0, 2.0], None], dtype=VECTOR), size=pl.Series([float("nan"), None])
    )
    store_items(lake, rows, run_date=_day(1))
    before = lake.version("items"), sorted(tmp_path.glob("items/*/*.parquet"))
    for day in (1, 2, 3):
        store_items(lake, rows, run_date=_day(day))
        _list(lake, "a", "b", day=day)
    assert (lake.version("items"), sorted(tmp_path.glob("items/*/*.parquet"))) == before


def test_of_two_versions_of_a_date_the_later_wins(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store_items(lake, _titles(a="A", b="B"), run_date=_day(1))
    store_items(lake, _titles(a="A1", c="C"), run_date=_day(2))
    store_items(lake, _titles(a="A2"), run_date=_day(2))
    assert _versions(lake, "title") == [("a", 1, "A"), ("a", 2, "A2"), ("b", 1, "B"), ("c", 2, "C")]


def test_an_earlier_night_does_not_touch_later_versions(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store_items(lake, _titles(a="Tenth"), run_date=_day(10))
    store_items(lake, _titles(a="Fifth"), run_date=_day(5))
    assert _as_of(lake, 9, "title") == [("a", "Fifth")]
    assert _as_of(lake, 10, "title") == [("a", "Tenth")]


def test_columns_that_a_file_lacks_keep_their_values_and_new_ones_are_added(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store_items(lake, _titles(a="A", b="B"), run_date=_day(1))
    vectors = pl.DataFrame(
        {"item_id": ["a"], "vector": [[1.0, 2.0]]}, schema_overrides={"vector": VECTOR}
    )
    store_items(lake, vectors, run_date=_day(2))
    store_items(lake, _titles(a=None), run_date=_day(3))
    assert _versions(lake, "title", "vector") == [
        ("a", 1, "A", None),
        ("a", 2, "A", [1.0, 2.0]),
        ("a", 3, None, [1.0, 2.0]),
        ("b", 1, "B", None),
    ]


def _priced(price: object, dtype: pl.DataType) -> pl.DataFrame:
    price_column = pl.Series("price", [price], dtype=dtype)
    return pl.DataFrame([pl.Series("item_id", ["a"]), price_column])


def test_a_column_grows_to_the_type_that_holds_both(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store_items(lake, _priced(1, pl.Int64()), run_date=_day(1))
    store_items(lake, _priced(1.0, pl.Float64()).rename({"price": "Price"}), run_date=_day(2))
    assert _versions(lake, "price") == [("a", 1, 1.0)]
    store_items(lake, _priced(1.5, pl.Float64()), run_date=_day(2))
    store_items(lake, _priced(2, pl.Int64()), run_date=_day(3))
    assert _versions(lake, "price") == [("a", 1, 1.0), ("a", 2, 1.5), ("a", 3, 2.0)]
    with pytest.raises(SourceError, match=r"'price' has held Float64 so far, and now List"):
        store_items(lake, _priced([1], pl.List(pl.Int64())), run_date=_day(4))


def test_a_carried_column_can_become_one_of_vectors(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store_items(lake, _priced("[1, 2]", pl.String()), run_date=_day(1))
    store_items(lake, _priced([1.0, 2.0], VECTOR), run_date=_day(2))
    assert _versions(lake, "price") == [("a", 1, None), ("a", 2, [1.0, 2.0])]


def test_what_is_no_longer_listed_is_retired_until_it_is_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store_items(lake, _titles(a="A", b="B"), run_date=_day(1))
    _list(lake, "a", "unknown", day=2)
    _list(lake, "a", "b", day=4)
    assert _versions(lake, "title", "listed") == [
        ("a", 1, "A", True),
        ("b", 1, "B", True),
        ("b", 2, "B", False),
        ("b", 4, "B", True),
    ]
    _list(lake, "a", day=5)
    store_items(lake, _titles(b="B"), run_date=_day(6))
    assert _as_of(lake, 5, "listed") == [("a", True), ("b", False)]
    assert _as_of(lake, 6, "listed") == [("a", True), ("b", True)]


def test_a_catalogue_that_would_retire_too_much_is_broken(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    _list(lake, day=1, share=0.0)
    store_items(lake, _titles(a="A", b="B", c="C", d="D"), run_date=_day(1))
    _list(lake, "a", "b", day=2, share=0.5)
    version = lake.version("items")
    sentence = r"lack 2 of the 2 items that are offered \(100%\).*max_retired_share allows 50%"
    with pytest.raises(SourceError, match=sentence):
        _list(lake, day=3, share=0.5)
    assert lake.version("items") == version
    _list(lake, day=3, share=1.0)
    assert not any(listed for _, listed in _as_of(lake, 3, "listed"))


class _Overtaken(Lake):
    """Another writer commits while this one's first rows are on their way."""

    meanwhile: Callable[[], None] | None = None

    def change(
        self, table: Table, decide: Callable[[Snapshot], Change], **about: str | None
    ) -> None:
        def decide_late(snapshot: Snapshot) -> Change:
            change = decide(snapshot)
            if change.add and self.meanwhile:
                other, self.meanwhile = self.meanwhile, None
                other()
            return change

        super().change(table, decide_late, **about)


def test_two_writers_keep_each_others_items(tmp_path: Path) -> None:
    lake, theirs = _Overtaken(tmp_path), _titles(a="Theirs", b="B")
    store_items(lake, _titles(a="A"), run_date=_day(1))
    lake.meanwhile = lambda: store_items(Lake(tmp_path), theirs, run_date=_day(2))
    store_items(lake, _titles(c="C"), run_date=_day(2))
    assert lake.meanwhile is None
    assert _versions(lake, "title") == [
        ("a", 1, "A"),
        ("a", 2, "Theirs"),
        ("b", 2, "B"),
        ("c", 2, "C"),
    ]


NIGHTS = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["x", "y", None]), max_size=4),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=20, deadline=None)
@given(NIGHTS)
def test_what_was_stored_last_for_a_date_holds_on_it(
    tmp_path_factory: pytest.TempPathFactory, nights: list[tuple[int, dict[str, str | None]]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for day, titles in nights:
        store_items(lake, _titles(**titles), run_date=_day(day))
        held = dict(_as_of(lake, day, "title"))
        assert {item: held[item] for item in titles} == titles
        keys = lake.scan("items").select(ITEMS.key).collect()
        assert keys.is_unique().all()
