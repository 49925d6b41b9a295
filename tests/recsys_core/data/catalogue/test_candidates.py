"""Which items compete when, and how often they were trained on."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recsys_core.data.catalogue.candidates import (
    CandidatePolicy,
    build_catalogue,
    count_training_interactions,
)
from recsys_core.data.histories.splits import SplitKind, TimeWindows
from recsys_core.data.schema import ITEMS, TIMESTAMP

WINDOWS = TimeWindows.before(date(2026, 3, 10), timezone="UTC", validation_days=1, test_days=1)
INDEX = pl.DataFrame(
    {"item_id": ["old", "new", "late", "unlisted", "idle"], "item_idx": [1, 2, 3, 4, 5]},
    schema_overrides={"item_idx": pl.Int32},
)


def _day(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


def _build(
    kind: SplitKind = "global_time",
    catalogue: CandidatePolicy = "all",
    items: pl.DataFrame | None = None,
) -> pl.DataFrame:
    if items is None:
        items = _items(
            ("late", "Late", ["x"], _day(9, 12), None, True, date(2026, 3, 10)),
            ("new", None, [], _day(8), None, True, date(2026, 3, 10)),
            ("old", "Old", ["x", "y"], None, None, True, date(2026, 3, 10)),
            ("idle", "Idle", [], None, None, True, date(2026, 3, 10)),
        )
    first = pl.DataFrame(
        {"item_id": ["old", "unlisted"], "first_interaction": [_day(1), _day(8)]},
        schema_overrides={"first_interaction": TIMESTAMP},
    )
    return build_catalogue(
        INDEX,
        items.lazy(),
        first,
        kind=kind,
        windows=WINDOWS,
        timezone="UTC",
        catalogue=catalogue,
    )


def _items(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=ITEMS.schema, orient="row")


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


def test_a_catalogue_without_rows() -> None:
    assert _flags(_build(items=_items())) == {
        "old": "vta",
        "new": "",
        "late": "",
        "unlisted": "ta",
        "idle": "",
    }


@pytest.mark.parametrize("catalogue", ["all", "interacted"])
def test_a_retired_item_competes_until_then_and_keeps_its_row(catalogue: CandidatePolicy) -> None:
    tick = timedelta(microseconds=1)
    for retired_from, flags in (
        (_day(8), ""),
        (_day(8) + tick, "v"),
        (_day(9), "v"),
        (_day(10), "vt"),
        (_day(10) + tick, "vta"),
    ):
        items = _items(("old", "Old", [], None, retired_from, True, date(2026, 3, 1)))
        frame = _build(items=items, catalogue=catalogue)
        assert _flags(frame)["old"] == flags
        assert frame.select("item_id", "item_idx").equals(INDEX)


def test_an_item_that_is_no_longer_listed_is_retired_from_that_date_until_it_is_again() -> None:
    def flags(*versions: tuple[int, bool]) -> str:
        rows = [("old", "O", [], None, None, listed, date(2026, 3, d)) for d, listed in versions]
        return _flags(_build(items=_items(*rows)))["old"]

    assert flags((1, True), (10, False)) == "vt"
    assert flags((1, True), (9, False)) == "v"
    assert flags((1, True), (8, False)) == ""
    assert flags((1, True), (8, False), (9, True)) == "ta"
    assert flags((1, True), (11, False)) == "vta"


def test_every_moment_sees_the_version_of_its_date_and_the_night_the_latest() -> None:
    items = _items(
        ("idle", "Before", ["x"], _day(20), None, True, date(2026, 3, 1)),
        ("idle", "Then", ["y"], _day(9), None, True, date(2026, 3, 9)),
        ("idle", "Later", ["z"], _day(20), None, True, date(2026, 3, 11)),
    )
    frame = _build(items=items)
    assert _flags(frame)["idle"] == "ta"
    assert frame.filter(item_id="idle").select("title", "categories").row(0) == ("Then", ["y"])


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
            {
                "item_idx": [items],
                "timestamp": [micro[: len(items)]],
                "target_weight": [[1.0] * len(items)],
                "train_end": [train_end],
            },
            schema_overrides={"item_idx": pl.List(pl.Int32), "train_end": pl.Int32},
        )
        paths.append(tmp_path / f"{len(paths)}.parquet")
        frame.write_parquet(paths[-1])
    counts = count_training_interactions(paths, n_items=4, since=since)
    assert counts["item_idx"].to_list() == [1, 2, 3, 4]
    assert counts["train_count"].to_list() == [3, 1, 0, 0]
    assert counts["recent_count"].to_list() == recent
