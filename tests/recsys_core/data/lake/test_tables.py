"""The lake's writes happen once; readers see the version that they pinned."""

import multiprocessing
import os
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from recsys_core.data.catalogue.item_index import new_entries
from recsys_core.data.lake.commits import Change, LakeChangedError
from recsys_core.data.lake.snapshot import Snapshot
from recsys_core.data.lake.tables import Lake
from recsys_core.data.schema import INTERACTIONS, ITEM_INDEX, ITEMS, TABLES


def _rows(source: str, *users: str, day: int = 1) -> pl.DataFrame:
    moment = datetime(2026, 1, day, tzinfo=UTC)
    rows = [
        (user, "i", moment, n, "view", 1.0, source, date(2026, 1, day))
        for n, user in enumerate(users)
    ]
    return pl.DataFrame(rows, schema=INTERACTIONS.schema, orient="row")


def _add(lake: Lake, rows: pl.DataFrame, *, content: str | None = None) -> None:
    def decide(snapshot: Snapshot) -> Change:
        return Change(snapshot.write(rows, rows["date"][0]))

    lake.change(INTERACTIONS, decide, content=content)


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


def test_the_same_content_is_committed_once_and_leaves_no_file(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for _ in range(2):
        _add(lake, _rows("s", "a"), content="1" * 16)
    assert lake.version("interactions") == 1
    DeltaTable(str(tmp_path / "interactions")).create_checkpoint()
    _add(Lake(tmp_path), _rows("s", "b"), content="1" * 16)
    assert _users(lake) == [("s", "a")]
    assert len(list(tmp_path.glob("interactions/date=*/*.parquet"))) == 1


def test_readers_see_the_version_that_they_pinned(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    _add(lake, _rows("s", "a", "b"))
    pinned = lake.version("interactions")
    (path,) = lake.snapshot(INTERACTIONS).files()["path"]
    lake.change(INTERACTIONS, lambda _: Change(remove=[path]))
    _add(lake, _rows("t", "c", day=2))
    assert _users(lake) == [("t", "c")]
    assert _users(lake, pinned) == [("s", "a"), ("s", "b")]


def test_a_file_knows_its_rows_its_date_and_its_sources(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    _add(lake, pl.concat([_rows("b", "x"), _rows("a", "y")]))
    (file,) = lake.snapshot(INTERACTIONS).files().drop("path", "bytes").rows()
    assert file == (2, date(2026, 1, 1), "a", "b", 0, 0)
    log = (tmp_path / "interactions" / "_delta_log").glob("*.json")
    assert not any('\\"x\\"' in path.read_text() for path in log)  # no user in the open


def test_the_second_of_two_writers_computes_again(tmp_path: Path) -> None:
    """Both see the empty table; neither loses its rows, and both see the other's in the end."""
    lake = Lake(tmp_path)
    seen: list[int] = []

    def decide(snapshot: Snapshot) -> Change:
        seen.append(snapshot.scan().collect().height)
        if len(seen) == 1:
            _add(lake, _rows("other", "a"))
        return Change(snapshot.write(_rows("mine", "b"), date(2026, 1, 1)))

    lake.change(INTERACTIONS, decide)
    assert seen == [0, 1]
    assert _users(lake) == [("mine", "b"), ("other", "a")]
    assert len(list(tmp_path.glob("interactions/date=*/*.parquet"))) == 2


def test_a_writer_that_is_always_late_gives_up_with_a_sentence(tmp_path: Path) -> None:
    lake = Lake(tmp_path)

    def decide(snapshot: Snapshot) -> Change:
        _add(lake, _rows("other", "a"))
        return Change(snapshot.write(_rows("mine", "b"), date(2026, 1, 1)))

    with pytest.raises(LakeChangedError, match="was changed by other writers 20 times in a row"):
        lake.change(INTERACTIONS, decide)
    assert _users(lake) == [("other", "a")] * 20


def _append_item(folder: str) -> None:
    lake = Lake(Path(folder))
    for number in range(5):
        item = pl.DataFrame({"item_id": [f"{os.getpid()}-{number}"], "first_seen": [None]})
        lake.append(ITEM_INDEX, partial(new_entries, candidates=item))


def test_processes_that_append_at_once_share_one_index(tmp_path: Path) -> None:
    Lake(tmp_path)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_item, args=(str(tmp_path),)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    index = Lake(tmp_path).item_index()
    assert index["item_idx"].to_list() == list(range(1, 16))
    assert index["item_id"].n_unique() == 15


def test_rewriting_a_small_table_to_the_same_is_no_commit(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    entry = pl.DataFrame({"item_id": ["a"], "item_idx": [1]}, schema=ITEM_INDEX.schema)
    lake.append(ITEM_INDEX, lambda _: entry)
    lake.rewrite(ITEM_INDEX, lambda old: old)
    lake.append(ITEM_INDEX, lambda old: old.clear())
    assert lake.version("item_index") == 1


def test_a_table_can_get_further_columns(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    _add(lake, _rows("s", "a"))
    columns = {"price (EUR)": pl.Float64(), "tags": pl.List(pl.String()), "weight": pl.Float32()}
    for _ in range(2):
        lake.add_columns(INTERACTIONS, pl.Schema(columns))
    assert lake.version("interactions") == 2
    _add(lake, _rows("s", "b").with_columns(pl.lit(2.5).alias("price (EUR)"), tags=["x"]))
    rows = lake.scan("interactions").sort("user_id").select("user_id", *columns).collect()
    assert rows.rows() == [("a", None, None, 1.0), ("b", 2.5, ["x"], 1.0)]


def _add_column(folder: str, name: str) -> None:
    Lake(Path(folder)).add_columns(ITEMS, pl.Schema({name: pl.Int64(), "shared": pl.Int64()}))


def test_processes_that_add_columns_at_once_all_do(tmp_path: Path) -> None:
    Lake(tmp_path)
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_add_column, args=(str(tmp_path), f"column{number}"))
        for number in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    names = Lake(tmp_path).scan("items").collect_schema().names()
    assert names[: len(ITEMS.schema)] == ITEMS.schema.names()
    assert sorted(names[len(ITEMS.schema) :]) == ["column0", "column1", "column2", "shared"]


def test_a_table_can_be_replaced_with_other_columns(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    _add(lake, _rows("s", "a"))
    schema = pl.Schema({**INTERACTIONS.schema, "weight": pl.Float64()})
    rows = lake.scan("interactions").cast({"weight": pl.Float64}).collect()

    def decide(snapshot: Snapshot) -> Change:
        return Change(snapshot.write(rows, date(2026, 1, 1)), schema=schema)

    lake.change(INTERACTIONS, decide)
    assert lake.scan("interactions").collect_schema() == schema
    assert lake.scan("interactions").collect().equals(rows)
    assert lake.scan("interactions", 1).collect_schema() == INTERACTIONS.schema
