"""Files into the lake over several nights."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from recsys_core.data.ingestion import (
    SourceRecord,
    extend_item_index,
    ingest_file,
    mark_validated,
    read_records,
    withdraw_missing,
)
from recsys_core.data.lake import Lake
from recsys_core.data.sources import SourceConfig, SourceError, find_sources, source_fingerprint

HEADER = "user_id,item_id,timestamp\n"


def _night(folder: Path, day: int = 10, **settings: object) -> dict[str, SourceRecord]:
    config = SourceConfig.model_validate(
        {"interactions": folder / "in", "timestamp_unit": "iso", **settings}
    )
    lake, hashes, run_date = Lake(folder / "lake"), source_fingerprint(config), date(2026, 1, day)
    records = {
        source.name: ingest_file(
            lake, source, config, sha256=hashes[source.name], run_date=run_date
        )
        for source in find_sources(config)
    }
    extend_item_index(lake, [record for record in records.values() if not record.validated])
    return records


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
    records = _night(tmp_path)
    assert _stored(tmp_path) == [
        ("a.csv", "late", "2026-01-01"),
        ("a.csv", "v", "2026-01-02"),
        ("b.csv", "w", "2026-01-01"),
    ]
    assert records["interactions/a.csv"].ordinal == 0
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
    records, lake = _night(tmp_path), Lake(tmp_path / "lake")
    good = records["interactions/good.csv"]
    mark_validated(lake, {good.source: good.sha256, "interactions/bad.csv": "of other bytes"})
    assert withdraw_missing(lake, []) == ["interactions/bad.csv"]
    assert _stored(tmp_path) == [("good.csv", "u", "2026-01-01")]
    assert list(read_records(lake)) == ["interactions/good.csv"]
    _night(tmp_path)
    assert len(_stored(tmp_path)) == 2


def test_a_file_that_changes_under_the_night_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a.csv", "u,i,2026-01-01")
    config = SourceConfig(interactions=tmp_path / "in")
    (source,) = find_sources(config)
    with pytest.raises(SourceError, match="changed while the night was running"):
        ingest_file(
            Lake(tmp_path / "lake"), source, config, sha256="before", run_date=date(2026, 1, 10)
        )


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
