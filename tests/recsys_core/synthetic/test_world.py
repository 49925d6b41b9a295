"""World files: columns, bytes, growth, kills, refusals."""

import shutil
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from recsys_core.synthetic.world import World, write_world
from tests.small_world import (
    FIRST,
    LAST,
    SMALL,
    read_events,
)


def read_bytes(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_files_have_the_promised_columns(folder: Path) -> None:
    assert read_events(folder).schema == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Datetime("us", "UTC"),
        "event_type": pl.String,
    }
    assert pl.read_parquet_schema(folder / "items.parquet") == {
        "item_id": pl.String,
        "title": pl.String,
        "categories": pl.List(pl.String),
        "available_from": pl.Datetime("us", "UTC"),
    }
    assert not [path for path in folder.rglob(".*")]


def test_each_file_holds_its_own_day_in_order_of_time(folder: Path) -> None:
    files = sorted((folder / "interactions").glob("*.parquet"))
    assert [path.stem for path in files] == [str(FIRST + timedelta(days=n)) for n in range(10)]
    for path in files:
        timestamps = pl.read_parquet(path)["timestamp"]
        assert set(timestamps.dt.date()) == {date.fromisoformat(path.stem)}
        assert timestamps.is_sorted()


def test_same_seed_same_bytes_other_seed_other_bytes(folder: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "same", SMALL, first_day=FIRST, through=LAST)
    assert read_bytes(tmp_path / "same") == read_bytes(folder)
    other = SMALL.model_copy(update={"seed": 1})
    write_world(tmp_path / "other", other, first_day=FIRST, through=LAST)
    ours, theirs = read_bytes(folder), read_bytes(tmp_path / "other")
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] == theirs[name]]


@pytest.mark.parametrize("allow_repeats", [False, True])
def test_an_extended_world_equals_one_written_at_once(tmp_path: Path, allow_repeats: bool) -> None:
    config = SMALL.model_copy(update={"allow_repeats": allow_repeats})
    write_world(tmp_path / "grown", config, first_day=FIRST, through=date(2026, 1, 3))
    early = read_bytes(tmp_path / "grown")
    days = [name for name in early if name.startswith("interactions")]
    stamps = {name: (tmp_path / "grown" / name).stat().st_mtime_ns for name in days}
    write_world(tmp_path / "grown", config, first_day=FIRST, through=date(2026, 1, 4))
    write_world(tmp_path / "grown", config, first_day=date(2026, 1, 6), through=LAST)
    grown = read_bytes(tmp_path / "grown")
    assert len(days) == 3
    assert {name: grown[name] for name in days} == {name: early[name] for name in days}
    assert {name: (tmp_path / "grown" / name).stat().st_mtime_ns for name in days} == stamps
    write_world(tmp_path / "whole", config, first_day=FIRST, through=LAST)
    assert grown == read_bytes(tmp_path / "whole")


def test_an_earlier_end_leaves_the_world_as_it_is(folder: Path) -> None:
    before = read_bytes(folder)
    write_world(folder, SMALL, first_day=FIRST, through=date(2026, 1, 2))
    assert read_bytes(folder) == before


def test_a_killed_write_is_completed(folder: Path, tmp_path: Path) -> None:
    def die(fraction: float, message: str) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path, SMALL, first_day=FIRST, through=LAST, progress=die)
    with pytest.raises(FileNotFoundError, match="no finished synthetic world"):
        World.open(tmp_path)
    (tmp_path / "interactions" / ".2026-01-07.parquet.draft").write_bytes(b"half")
    write_world(tmp_path, SMALL, first_day=FIRST, through=LAST)
    assert read_bytes(tmp_path) == read_bytes(folder)


def test_a_lost_day_is_written_again(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "interactions" / "2026-01-05.parquet").unlink()
    write_world(tmp_path / "copy", SMALL, first_day=FIRST, through=LAST)
    assert read_bytes(tmp_path / "copy") == read_bytes(folder)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    fractions: list[float] = []
    write_world(
        tmp_path,
        SMALL,
        first_day=FIRST,
        through=date(2026, 1, 4),
        progress=lambda fraction, message: fractions.append(fraction),
    )
    assert fractions == [0.25, 0.5, 0.75, 1.0]


def test_another_world_in_the_folder_is_refused(folder: Path) -> None:
    other = SMALL.model_copy(update={"n_items": 151})
    with pytest.raises(ValueError, match=r"n_items = 150, not 151.*delete this one"):
        write_world(folder, other, first_day=FIRST, through=LAST)


def test_a_world_cannot_end_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"begins on 2026-01-10.*later `through`"):
        write_world(tmp_path, SMALL, first_day=LAST, through=FIRST)
    assert not list(tmp_path.iterdir())
