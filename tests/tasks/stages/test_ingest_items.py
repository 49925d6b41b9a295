"""Catalogue files over many nights: versions, retirement, vectors, and the item index."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.table import TableAlterer
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.data.catalogue.item_index import index_prefix_sha256
from recsys_core.data.catalogue.versions import items_as_of
from recsys_core.data.lake.ingest_log import mark_validated
from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.discovery import source_fingerprint
from tasks.engine.stage import StageRun
from tasks.stages.ingest import ingest
from tests.killed_commits import Killed, killed_at_commit

FIRST = date(2026, 1, 10)


def _config(folder: Path, **settings: object) -> SourceConfig:
    for name in ("events", "catalogue"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    places = {"interactions": folder / "events", "items": folder / "catalogue"}
    return SourceConfig.model_validate({**places, "timestamp_unit": "iso", **settings})


def _write(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text("".join(f"{line}\n" for line in lines))


def _ingest(folder: Path, config: SourceConfig, day: int = 0) -> dict[str, Any]:
    """A night's ingestion, `day` days after the first one's."""
    run_date = FIRST + timedelta(days=day)
    out = folder / "out"
    run = StageRun.bare(folder, out)
    hashes = source_fingerprint(config)
    ingest.body(run, config=config, run_date=run_date, sources=hashes)
    return json.loads((out / "ingest.json").read_text())


def _held(folder: Path, day: int, *columns: str) -> list[tuple[Any, ...]]:
    items = Lake(folder / "lake").scan("items")
    held = items_as_of(items, FIRST + timedelta(days=day)).sort("item_id").collect()
    return held.select("item_id", *columns).rows()


COMMITS = ((DeltaTable, "create_write_transaction"), (TableAlterer, "add_columns"))
IDS = st.sampled_from(["a", "b", "c", "d", "é", "10", "9"])
NIGHT = st.fixed_dictionaries(
    {
        "days": st.integers(1, 3),
        "items": st.none() | st.dictionaries(IDS, st.sampled_from(["x", "y", ""]), max_size=5),
        "with_price": st.booleans(),
        "events": st.none() | st.lists(st.tuples(IDS, st.integers(1, 9)), min_size=1, max_size=4),
        "killed_at": st.none() | st.integers(1, 8),
        "committed": st.booleans(),
        "validated": st.booleans(),
    }
)


def _arrive(folder: Path, number: int, night: dict[str, Any]) -> None:
    if night["items"] is not None:
        price = ",price" if night["with_price"] else ""
        rows = [f"{item},{title}{price and ',1'}" for item, title in night["items"].items()]
        _write(folder / "catalogue", "items.csv", f"item_id,title{price}", *rows, "no_title,")
    if night["events"] is not None:
        rows = [f"u,{item},2026-01-0{day}" for item, day in night["events"]]
        _write(folder / "events", f"{number}.csv", "user_id,item_id,timestamp", *rows)


@settings(max_examples=15, deadline=None)
@given(nights=st.lists(NIGHT, min_size=1, max_size=5), complete=st.booleans())
def test_no_items_index_ever_changes_over_random_nights(
    tmp_path_factory: pytest.TempPathFactory, nights: list[dict[str, Any]], complete: bool
) -> None:
    folder = tmp_path_factory.mktemp("nights")
    config = _config(folder, items_are_complete=complete, max_retired_share=1.0)
    _write(folder / "events", "first.csv", "user_id,item_id,timestamp", "u,first,2026-01-01")
    _write(folder / "catalogue", "items.csv", "item_id,title", "first,F")
    _ingest(folder, config)
    lake, day = Lake(folder / "lake"), 0
    for number, night in enumerate(nights):
        day += night["days"]
        _arrive(folder, number, night)
        before = lake.item_index()
        prefix = index_prefix_sha256(before["item_id"])
        try:
            with killed_at_commit(
                night["killed_at"] or 0, committed=night["committed"], commits=COMMITS
            ):
                result = _ingest(folder, config, day)
        except Killed:
            day += 1  # the rerun may be the next night
            result = _ingest(folder, config, day)
        index = lake.item_index()
        assert index.head(before.height).equals(before)
        assert index_prefix_sha256(index["item_id"].head(before.height)) == prefix
        assert index["item_idx"].to_list() == list(range(1, index.height + 1))
        brought = {
            item
            for table in ("items", "interactions")
            for item in lake.scan(table).collect()["item_id"]
        }
        assert sorted(index["item_id"]) == sorted(brought)
        assert result["n_items"] == index.height
        assert result["item_index_sha256"] == index_prefix_sha256(index["item_id"])
        if night["validated"]:
            files = {file["source"]: file["fingerprint"] for file in result["files"]}
            mark_validated(lake, files)


def _two_nights(folder: Path) -> SourceConfig:
    """A catalogue and its vectors, of which the second night knows more and less."""
    config = _config(folder, item_columns={"embeddings": ["vector"]}, items_are_complete=True)
    _write(folder / "events", "a.csv", "user_id,item_id,timestamp", "u,only_seen,2026-01-02")
    _write(folder / "catalogue", "items.csv", "item_id,title", "a,A", "b,B", "c,C")
    _write(folder / "catalogue", "vectors.csv", "item_id,vector", 'a,"[1, 2]"')
    _ingest(folder, config)
    _write(folder / "catalogue", "items.csv", "item_id,title,price", "a,A,1", "b,New,2", "d,D,3")
    _write(folder / "catalogue", "vectors.csv", "item_id,vector", 'a,"[1, 2]"', 'd,"[3, 4]"')
    return config


def _contents(folder: Path) -> dict[str, list[Any]]:
    lake = Lake(folder / "lake")
    keys = {"items": ["item_id", "valid_from"], "item_index": ["item_idx"], "sources": ["source"]}
    return {
        name: lake.scan(name).sort(key).drop("stamp", strict=False).collect().rows()
        for name, key in keys.items()
    }


@pytest.mark.parametrize("committed", [True, False])
def test_after_a_kill_at_any_commit_a_rerun_gives_the_same_catalogue(
    tmp_path: Path, committed: bool
) -> None:
    whole = tmp_path / "whole"
    _ingest(whole, _two_nights(whole), day=1)
    kills = 0
    for number in range(1, 30):
        folder = tmp_path / str(number)
        config = _two_nights(folder)
        try:
            with killed_at_commit(number, committed=committed, commits=COMMITS):
                _ingest(folder, config, day=1)
        except Killed:
            kills += 1
        _ingest(folder, config, day=1)
        assert _contents(folder) == _contents(whole)
        if kills < number:
            break
    # What is no longer listed; a column; the versions and the record of each file; the index.
    assert kills == 7


def test_a_complete_catalogue_says_what_is_retired(tmp_path: Path) -> None:
    config = _two_nights(tmp_path)
    result = _ingest(tmp_path, config, day=1)
    assert _held(tmp_path, 0, "title", "listed") == [
        ("a", "A", True),
        ("b", "B", True),
        ("c", "C", True),
        ("d", "D", True),
    ]
    assert _held(tmp_path, 1, "title", "listed", "vector") == [
        ("a", "A", True, [1.0, 2.0]),
        ("b", "New", True, None),
        ("c", "C", False, None),
        ("d", "D", True, [3.0, 4.0]),
    ]
    index = Lake(tmp_path / "lake").item_index()["item_id"].to_list()
    assert index == ["only_seen", "a", "b", "c", "d"]
    assert result["n_items"] == 5
    # A file that is gone is no longer listed either, and the same file that is back is.
    path = tmp_path / "catalogue" / "items.csv"
    text = path.read_text()
    path.unlink()
    _ingest(tmp_path, config, day=2)
    assert _held(tmp_path, 2, "listed") == [("a", True), ("b", False), ("c", False), ("d", True)]
    path.write_text(text)
    _ingest(tmp_path, config, day=3)
    assert _held(tmp_path, 3, "listed") == [("a", True), ("b", True), ("c", False), ("d", True)]


def test_a_catalogue_that_is_cut_off_changes_nothing(tmp_path: Path) -> None:
    config = _config(tmp_path, items_are_complete=True, max_retired_share=0.25)
    _write(tmp_path / "events", "a.csv", "user_id,item_id,timestamp", "u,a,2026-01-02")
    _write(tmp_path / "catalogue", "items.csv", "item_id,title", *(f"{n},T" for n in range(4)))
    _ingest(tmp_path, config)
    before = _contents(tmp_path)
    _write(tmp_path / "catalogue", "items.csv", "item_id,title", "0,T", "1,Changed")
    with pytest.raises(SourceError, match="lack 2 of the 4 items"):
        _ingest(tmp_path, config, day=1)
    assert _contents(tmp_path) == before


def test_a_refused_row_still_says_that_its_item_is_listed(tmp_path: Path) -> None:
    config = _config(tmp_path, items_are_complete=True)
    _write(tmp_path / "events", "a.csv", "user_id,item_id,timestamp", "u,a,2026-01-02")
    _write(tmp_path / "catalogue", "items.csv", "item_id,available_from", "a,2026-01-01", "b,")
    _ingest(tmp_path, config)
    _write(tmp_path / "catalogue", "items.csv", "item_id,available_from", "a,soon", "b,")
    result = _ingest(tmp_path, config, day=1)
    assert result["reasons"] == {"unreadable available_from": 1}
    assert _held(tmp_path, 1, "listed") == [("a", True), ("b", True)]


def test_vectors_of_another_width_than_the_lakes_are_quarantined(tmp_path: Path) -> None:
    config = _config(tmp_path, item_columns={"embeddings": ["vector"]})
    _write(tmp_path / "events", "a.csv", "user_id,item_id,timestamp", "u,a,2026-01-02")
    _write(tmp_path / "catalogue", "1.csv", "item_id,vector", 'a,"[1, 2]"')
    _ingest(tmp_path, config)
    _write(tmp_path / "catalogue", "2.csv", "item_id,vector", 'b,"[1]"', 'c,"[1]"', "d,")
    result = _ingest(tmp_path, config, day=1)
    assert result["reasons"] == {"vector of another width": 2}
    assert _held(tmp_path, 1, "vector") == [("a", [1.0, 2.0]), ("d", None)]
    quarantine = Lake(tmp_path / "lake").scan("quarantine").collect()
    assert quarantine.sort("row").select("source", "row").rows() == [
        ("items/2.csv", 1),
        ("items/2.csv", 2),
    ]


def test_a_column_of_vectors_that_no_file_has_is_refused_every_night(tmp_path: Path) -> None:
    config = _config(tmp_path, item_columns={"embeddings": ["vectr"]})
    _write(tmp_path / "events", "a.csv", "user_id,item_id,timestamp", "u,a,2026-01-02")
    _write(tmp_path / "catalogue", "items.csv", "item_id,vector", 'a,"[1, 2]"')
    for day in (0, 1):
        with pytest.raises(SourceError, match="No item file has a column 'vectr'"):
            _ingest(tmp_path, config, day=day)
    settings_put_right = _config(tmp_path, item_columns={"embeddings": ["vector"]})
    _ingest(tmp_path, settings_put_right, day=2)
    assert _held(tmp_path, 2, "vector") == [("a", [1.0, 2.0])]


def test_a_night_reads_only_the_new_interactions(tmp_path: Path) -> None:
    config = _config(tmp_path)
    _write(tmp_path / "catalogue", "items.csv", "item_id,title", "a,A")
    _write(tmp_path / "events", "1.csv", "user_id,item_id,timestamp", "u,b,2026-01-02")
    first = _ingest(tmp_path, config)
    files = {file["source"]: file["fingerprint"] for file in first["files"]}
    mark_validated(Lake(tmp_path / "lake"), files)
    (old,) = (tmp_path / "lake" / "interactions").glob("*/*.parquet")
    old.write_bytes(b"Whoever reads this fails.")
    _write(tmp_path / "events", "2.csv", "user_id,item_id,timestamp", "u,c,2026-01-03")
    assert _ingest(tmp_path, config, day=1)["n_items"] == 3
