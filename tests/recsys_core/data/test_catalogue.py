"""Which items compete when, and how often they were trained on."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys_core.data.catalogue import (
    Catalogue,
    build_catalogue,
    count_training_interactions,
)
from recsys_core.data.splits import SplitKind, TimeWindows

WINDOWS = TimeWindows.before(date(2026, 3, 10), timezone="UTC", validation_days=1, test_days=1)
INDEX = pl.DataFrame(
    {"item_id": ["old", "new", "late", "unlisted", "idle"], "item_idx": [1, 2, 3, 4, 5]},
    schema_overrides={"item_idx": pl.Int32},
)


def _day(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


def _build(
    kind: SplitKind = "global_time",
    catalogue: Catalogue = "all",
    items: pl.DataFrame | None = None,
) -> pl.DataFrame:
    moment = pl.Datetime("us", "UTC")
    if items is None:
        items = pl.DataFrame(
            {
                "item_id": ["late", "new", "old", "idle"],
                "title": ["Late", None, "Old", "Idle"],
                "categories": [["x"], [], ["x", "y"], []],
                "available_from": [_day(9, 12), _day(8), None, None],
            },
            schema_overrides={"available_from": moment},
        )
    first = pl.DataFrame(
        {"item_id": ["old", "unlisted"], "first_interaction": [_day(1), _day(8)]},
        schema_overrides={"first_interaction": moment},
    )
    return build_catalogue(INDEX, items, first, kind=kind, windows=WINDOWS, catalogue=catalogue)


def _flags(frame: pl.DataFrame) -> dict[str, str]:
    """For each item, v, t and a where it is a candidate at that moment."""
    return {
        item: "".join(letter for letter, flag in zip("vta", flags, strict=True) if flag)
        for item, *flags in frame.select(
            "item_id", "candidate_validation", "candidate_test", "active"
        ).rows()
    }


def test_an_item_competes_from_when_it_is_listed_or_touched() -> None:
    # Validation begins on the 8th, test on the 9th, the night ends with the 10th.
    frame = _build()
    assert _flags(frame) == {
        "old": "vta",
        "new": "vta",
        "late": "a",
        "unlisted": "ta",
        "idle": "vta",
    }
    assert frame["item_idx"].to_list() == [1, 2, 3, 4, 5]
    assert frame["categories"].to_list() == [["x", "y"], [], ["x"], [], []]
    assert frame["title"].to_list() == ["Old", None, "Late", None, "Idle"]


def test_interacted_leaves_untouched_items_out() -> None:
    flags = _flags(_build(catalogue="interacted"))
    assert flags == {"old": "vta", "new": "", "late": "", "unlisted": "ta", "idle": ""}


def test_leave_one_out_knows_the_last_moment_only() -> None:
    flags = _flags(_build("leave_one_out"))
    assert set(flags.values()) == {"vta"}


def test_a_catalogue_without_dates_or_without_rows() -> None:
    items = pl.DataFrame({"item_id": ["idle"], "title": ["Idle"], "categories": [["x"]]})
    assert _flags(_build(items=items)) == {
        "old": "vta",
        "new": "",
        "late": "",
        "unlisted": "ta",
        "idle": "vta",
    }
    assert _flags(_build(items=items.clear()))["idle"] == ""


@pytest.mark.parametrize(
    ("since", "recent"), [(_day(4), [1, 1, 0, 0]), (None, [3, 1, 0, 0])], ids=["since", "all"]
)
def test_training_interactions_are_counted(
    tmp_path: Path, since: datetime | None, recent: list[int]
) -> None:
    micro = [int(_day(day).timestamp()) * 1_000_000 for day in (1, 4, 5, 7)]
    paths: list[Path] = []
    for items, train_end in (([1, 1, 2, 3], 3), ([1, 4, 3, 4], 1), ([3, 4], 0)):
        frame = pl.DataFrame(
            {"item_idx": [items], "timestamp": [micro[: len(items)]], "train_end": [train_end]},
            schema_overrides={"item_idx": pl.List(pl.Int32), "train_end": pl.Int32},
        )
        paths.append(tmp_path / f"{len(paths)}.parquet")
        frame.write_parquet(paths[-1])
    counts = count_training_interactions(paths, n_items=4, since=since)
    assert counts["item_idx"].to_list() == [1, 2, 3, 4]
    assert counts["train_count"].to_list() == [3, 1, 0, 0]
    assert counts["recent_count"].to_list() == recent
