"""The lake's writes happen once; readers see the version that they pinned."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from recsys_core.data.lake import Lake
from recsys_core.data.schema import INTERACTIONS, ITEMS, TABLES


def _rows(source: str, *users: str, day: int = 1) -> pl.DataFrame:
    moment = datetime(2026, 1, day, tzinfo=UTC)
    rows = [
        (user, "i", moment, n, "view", 1.0, source, date(2026, 1, day))
        for n, user in enumerate(users)
    ]
    return pl.DataFrame(rows, schema=INTERACTIONS.schema, orient="row")


def _users(lake: Lake, version: int | None = None) -> list[tuple[str, str]]:
    rows = lake.scan("interactions", version).select("source", "user_id").collect()
    return sorted(rows.iter_rows())


def test_a_new_lake_has_all_tables_empty(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for table in TABLES:
        frame = lake.scan(table.name).collect()
        assert frame.is_empty()
        assert frame.schema == table.schema
        assert lake.version(table.name) == 0
    assert Lake(tmp_path / "lake").version("interactions") == 0


def test_the_same_content_is_committed_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for _ in range(2):
        lake.replace_source(INTERACTIONS, _rows("s", "a"), source="s", content="1" * 16)
    assert lake.version("interactions") == 1
    DeltaTable(str(tmp_path / "interactions")).create_checkpoint()
    Lake(tmp_path).replace_source(INTERACTIONS, _rows("s", "b"), source="s", content="1" * 16)
    assert _users(lake) == [("s", "a")]


def test_replacing_touches_only_the_rows_of_the_source(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.replace_source(INTERACTIONS, _rows("it's", "a", "b"), source="it's", content="1" * 16)
    lake.replace_source(INTERACTIONS, _rows("t", "c"), source="t", content="2" * 16)
    pinned = lake.version("interactions")
    lake.replace_source(INTERACTIONS, _rows("it's", "d", day=2), source="it's", content="3" * 16)
    assert _users(lake) == [("it's", "d"), ("t", "c")]
    assert _users(lake, pinned) == [("it's", "a"), ("it's", "b"), ("t", "c")]
    lake.replace_source(INTERACTIONS, _rows("it's"), source="it's", content="4" * 16)
    assert _users(lake) == [("t", "c")]


def test_going_back_to_earlier_content_is_a_change(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for user, content in (("a", "1" * 16), ("b", "f" * 16), ("a", "1" * 16)):
        lake.replace_source(INTERACTIONS, _rows("s", user), source="s", content=content)
        assert _users(lake) == [("s", user)]


def test_nothing_from_a_new_source_is_no_commit(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.replace_source(INTERACTIONS, _rows("s"), source="s", content="1" * 16)
    assert lake.version("interactions") == 0


def test_items_keep_their_latest_row_and_further_columns(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for title, content in (("Old", "1" * 16), ("New", "2" * 16)):
        frame = pl.DataFrame({"item_id": ["1", title], "title": [title] * 2, "price": [1, 2]})
        frame = frame.with_columns(pl.lit([], pl.List(pl.String)).alias("categories"))
        lake.upsert_items(ITEMS, frame, source="items/a", content=content)
    items = lake.scan("items").collect()
    assert items.select("item_id", "title", "price").rows() == [
        ("1", "New", 1),
        ("New", "New", 2),
        ("Old", "Old", 2),
    ]
    lake.upsert_items(ITEMS, items.head(0), source="items/a", content="2" * 16)
    assert lake.version("items") == 2
