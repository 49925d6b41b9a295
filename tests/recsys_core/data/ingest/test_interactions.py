"""Files into the lake over several nights."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from recsys_core.data.ingest.batch import ToRead
from recsys_core.data.ingest.interactions import (
    extend_event_types,
    ingest_interactions,
    withdraw_missing,
)
from recsys_core.data.ingest.items import extend_item_index, ingest_catalogue
from recsys_core.data.lake.ingest_log import (
    IngestedFile,
    mark_validated,
    read_ingest_log,
    register_files,
)
from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.discovery import find_sources, source_fingerprint

HEADER = "user_id,item_id,timestamp\n"


def _night(
    folder: Path, day: int = 10, *, rows_in_batch: int = 100, **settings: object
) -> dict[str, IngestedFile]:
    config = SourceConfig.model_validate(
        {"interactions": folder / "in", "timestamp_unit": "iso", **settings}
    )
    lake, hashes, run_date = Lake(folder / "lake"), source_fingerprint(config), date(2026, 1, day)
    found = find_sources(config)
    known = register_files(lake, found, run_date=run_date)
    files = [ToRead(source, known[source.name], hashes[source.name]) for source in found]
    due = [
        file
        for file in files
        if not file.entry.is_current(file.fingerprint, config.mapping(file.source.table), run_date)
    ]
    scratch = folder / "scratch"
    catalogue = [file for file in files if file.source.table == "items"]
    list(
        ingest_catalogue(
            lake,
            [file for file in catalogue if file in due],
            config,
            others=[file for file in catalogue if file not in due],
            run_date=run_date,
            scratch=scratch,
        )
    )
    events = [file for file in files if file.source.table == "interactions"]
    list(
        ingest_interactions(
            lake,
            [file for file in events if file in due],
            config,
            others=[file for file in events if file not in due],
            run_date=run_date,
            scratch=scratch,
            rows_in_batch=rows_in_batch,
        )
    )
    entries = read_ingest_log(lake)
    new = [entry for entry in entries.values() if not entry.validated]
    extend_event_types(lake, new)
    extend_item_index(lake, new)
    assert not any(scratch.glob("*/*"))
    return entries


def _write(folder: Path, name: str, *rows: str) -> None:
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))


def _stored(folder: Path) -> list[tuple[str, str, str]]:
    rows = Lake(folder / "lake").scan("interactions").collect()
    names = rows.select("source", "user_id", pl.col("date").cast(pl.String))
    return sorted((source.removeprefix("interactions/"), *rest) for source, *rest in names.rows())


def _versions(folder: Path) -> dict[str, int]:
    lake = Lake(folder / "lake")
    return {name: lake.version(name) for name in ("interactions", "quarantine", "item_index")}


def test_what_is_known_changes_nothing(tmp_path: Path) -> None:
    _write(tmp_path, "a.csv", "u,i,2026-01-01", ",i,2026-01-01")
    first = _night(tmp_path)
    versions = _versions(tmp_path)
    assert _night(tmp_path, day=11) == first
    assert _versions(tmp_path) == versions


def test_a_changed_file_replaces_its_own_rows_and_late_events_find_their_date(
    tmp_path: Path,
) -> None:
    _write(tmp_path, "a.csv", "u,i,2026-01-01", "v,i,2026-01-02")
    _write(tmp_path, "b.csv", "w,i,2026-01-01", ",i,2026-01-01")
    _night(tmp_path)
    _write(tmp_path, "a.csv", "v,i,2026-01-02", "late,j,2026-01-01")
    entries = _night(tmp_path)
    assert _stored(tmp_path) == [
        ("a.csv", "late", "2026-01-01"),
        ("a.csv", "v", "2026-01-02"),
        ("b.csv", "w", "2026-01-01"),
    ]
    assert entries["interactions/a.csv"].ordinal == 0
    assert Lake(tmp_path / "lake").scan("quarantine").collect().height == 1


def test_another_mapping_reads_a_file_again(tmp_path: Path) -> None:
    _write(tmp_path, "a.csv", "u,i,2026-01-01")
    _night(tmp_path)
    _night(tmp_path, default_event_type="view")
    kinds = Lake(tmp_path / "lake").scan("interactions").collect()["event_type"]
    assert kinds.to_list() == ["view"]


def test_rows_that_were_early_are_taken_once_their_time_has_come(tmp_path: Path) -> None:
    _write(tmp_path, "a.csv", "u,i,2026-01-09", "v,i,2026-01-10")
    assert _night(tmp_path, day=10)["interactions/a.csv"].rows_quarantined == 1
    assert _night(tmp_path, day=11)["interactions/a.csv"].rows_kept == 2
    assert Lake(tmp_path / "lake").scan("quarantine").collect().is_empty()


def test_a_copy_under_another_name_is_all_duplicates(tmp_path: Path) -> None:
    _write(tmp_path, "a.csv", "u,i,2026-01-01", "v,i,2026-01-02")
    _write(tmp_path, "b.csv", "u,i,2026-01-01", "v,i,2026-01-02", "w,i,2026-01-02")
    copy = _night(tmp_path)["interactions/b.csv"]
    assert (copy.rows_in, copy.rows_kept, copy.rows_duplicate) == (3, 1, 2)


def test_a_bad_file_that_is_removed_leaves_the_lake_and_a_validated_one_stays(
    tmp_path: Path,
) -> None:
    _write(tmp_path, "good.csv", "u,i,2026-01-01")
    _write(tmp_path, "bad.csv", "x,j,2026-01-01")
    entries, lake = _night(tmp_path), Lake(tmp_path / "lake")
    good = entries["interactions/good.csv"]
    mark_validated(lake, {good.source: good.fingerprint, "interactions/bad.csv": "of other bytes"})
    gone = withdraw_missing(lake, [], run_date=date(2026, 1, 10), scratch=tmp_path / "scratch")
    assert gone == (["interactions/bad.csv"], {date(2026, 1, 1)})
    assert _stored(tmp_path) == [("good.csv", "u", "2026-01-01")]
    assert list(read_ingest_log(lake)) == ["interactions/good.csv"]
    _night(tmp_path)
    assert len(_stored(tmp_path)) == 2


def test_a_file_that_changes_under_the_night_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a.csv", "u,i,2026-01-01")
    config, lake = SourceConfig(interactions=tmp_path / "in"), Lake(tmp_path / "lake")
    (source,) = find_sources(config)
    day = date(2026, 1, 10)
    entry = register_files(lake, [source], run_date=day)[source.name]
    files = [ToRead(source, entry, "before")]
    with pytest.raises(SourceError, match="changed while the night was running"):
        list(
            ingest_interactions(
                lake, files, config, others=[], run_date=day, scratch=tmp_path / "scratch"
            )
        )
    assert lake.version("interactions") == 0


def test_rows_that_were_duplicates_come_back_when_the_first_file_takes_them_back(
    tmp_path: Path,
) -> None:
    _write(tmp_path, "a.csv", "u,i,2026-01-01", "v,i,2026-01-02")
    _write(tmp_path, "b.csv", "u,i,2026-01-01", "w,i,2026-01-03")
    assert _night(tmp_path)["interactions/b.csv"].rows_duplicate == 1
    _write(tmp_path, "a.csv", "v,i,2026-01-02")
    assert _night(tmp_path)["interactions/b.csv"].rows_duplicate == 0
    assert _stored(tmp_path) == [
        ("a.csv", "v", "2026-01-02"),
        ("b.csv", "u", "2026-01-01"),
        ("b.csv", "w", "2026-01-03"),
    ]


def test_batches_of_any_size_give_the_same_lake(tmp_path: Path) -> None:
    lakes = []
    for rows_in_batch in (1, 3, 100):
        folder = tmp_path / str(rows_in_batch)
        folder.mkdir()
        _write(folder, "a.csv", "u,i,2026-01-01", "v,i,2026-01-02", ",i,2026-01-02")
        _write(folder, "b.csv", "u,i,2026-01-01", "w,i,2026-01-01")
        _write(folder, "c.csv", "w,i,2026-01-01", "x,i,2026-01-02")
        entries = _night(folder, rows_in_batch=rows_in_batch)
        rows = Lake(folder / "lake").scan("interactions").sort("arrival").collect()
        counts = [replace(entry, stamp="") for entry in entries.values()]
        lakes.append((counts, rows.rows()))
    assert lakes[0] == lakes[1] == lakes[2]


def test_a_user_with_an_impossible_number_of_events_is_a_bot(tmp_path: Path) -> None:
    many = [f"bot,i{n},2026-01-01T00:00:{n:02d}" for n in range(5)]
    _write(tmp_path, "a.csv", *many[:4], "u,i,2026-01-01", "bot,i,2026-01-02")
    _night(tmp_path, max_events_per_day=4)
    _write(tmp_path, "b.csv", many[4], many[0], "u,j,2026-01-01")
    entry = _night(tmp_path, max_events_per_day=4)["interactions/b.csv"]
    assert (entry.rows_kept, entry.rows_quarantined, entry.rows_duplicate) == (1, 1, 1)
    assert entry.refused == {"too many events of the user in a day": 1}
    refused = Lake(tmp_path / "lake").scan("quarantine").collect()
    assert refused.select("source", "row", "user_id").rows() == [("interactions/b.csv", 1, "bot")]


def test_kinds_of_events_that_are_not_listed_are_quarantined_and_weights_are_scaled(
    tmp_path: Path,
) -> None:
    path = tmp_path / "in" / "a.csv"
    path.parent.mkdir()
    path.write_text(
        "user_id,item_id,timestamp,event_type,weight\n"
        "u,i,2026-01-02,buy,2\nu,j,2026-01-01,view,\nu,k,2026-01-01,scroll,1\n"
    )
    entry = _night(tmp_path, event_types={"view": 0.5, "buy": 3.0})["interactions/a.csv"]
    assert entry.refused == {"unknown event_type": 1}
    lake = Lake(tmp_path / "lake")
    rows = lake.scan("interactions").sort("item_id").collect()
    assert rows["weight"].to_list() == [6.0, 0.5]
    assert lake.scan("event_types").collect().rows() == [("view", 0), ("buy", 1)]


def test_more_kinds_of_events_than_histories_can_tell_apart_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.csv"
    path.parent.mkdir()
    rows = [f"u,i,2026-01-01,kind{n}" for n in range(128)]
    path.write_text("user_id,item_id,timestamp,event_type\n" + "\n".join(rows))
    with pytest.raises(SourceError, match="have 128 kinds of events; at most 127"):
        _night(tmp_path)


def test_the_index_holds_catalogue_and_interactions_in_order_of_appearance(
    tmp_path: Path,
) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title,available_from\nc,C,2026-01-03\nz,Z,\n")
    _write(tmp_path, "a.csv", "u,b,2026-01-02", "u,a,2026-01-04")
    _night(tmp_path, items=items)
    _write(tmp_path, "b.csv", "u,older,2026-01-01")
    _night(tmp_path, items=items)
    index = Lake(tmp_path / "lake").item_index()
    assert index["item_id"].to_list() == ["b", "c", "a", "z", "older"]
    assert index["item_idx"].to_list() == [1, 2, 3, 4, 5]
