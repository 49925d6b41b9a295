"""Histories: order, buckets, splits."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_core.data.histories.build import EVENTS as EVENT_SCHEMA
from recsys_core.data.histories.build import stable_hash, write_histories
from recsys_core.data.histories.splits import SplitKind, TimeWindows

WINDOWS = TimeWindows.before(date(2026, 3, 10), timezone="UTC", validation_days=1, test_days=1)
EVENT_TYPES = ("buy", "view")

Event = tuple[str, int, int, int, str]
"""user_id, item_idx, seconds before the night's end, arrival, event_type."""


def _frame(events: list[Event]) -> pl.DataFrame:
    rows = [
        (user, item, WINDOWS.end - timedelta(seconds=ago), arrival, EVENT_TYPES.index(kind), 1.0)
        for user, item, ago, arrival, kind in events
    ]
    return pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row")


def _write(
    folder: Path,
    events: list[Event],
    *,
    n_buckets: int = 3,
    kind: SplitKind = "global_time",
    base: list[Path] | None = None,
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return write_histories(
        _frame(events).iter_slices(7),
        folder / "histories",
        folder / "scratch",
        kind=kind,
        windows=WINDOWS,
        n_buckets=n_buckets,
        base=base,
    )


def _fnv1a(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def test_the_hash_is_fnv1a_folded() -> None:
    # Published test vectors of FNV-1a, 64 bits.
    assert _fnv1a("a") == 0xAF63DC4C8601EC8C
    assert _fnv1a("foobar") == 0x85944171F73967E8
    ids = ["", "a", "foobar", "ä", "用户", "a\0", "b" * 1000]
    expected = [value ^ value >> 32 for value in map(_fnv1a, ids)]
    assert stable_hash(pl.Series(ids)).tolist() == expected
    assert stable_hash(pl.Series([], dtype=pl.String)).tolist() == []


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8))
def test_a_user_hashes_the_same_in_any_company(ids: list[str]) -> None:
    together = stable_hash(pl.Series(ids, dtype=pl.String)).tolist()
    assert together == [stable_hash(pl.Series([user])).item() for user in ids]


def test_a_long_id_costs_its_own_length_only() -> None:
    """A table as wide as the longest id would take 40 GB here."""
    ids = pl.Series(["x" * 200_000, *map(str, range(200_000))])
    assert len(np.unique(stable_hash(ids))) == len(ids)


def test_events_are_in_order_and_ties_in_order_of_arrival(tmp_path: Path) -> None:
    day = 86_400
    events = [
        ("u", 1, 3 * day, 5, "view"),
        ("u", 2, 3 * day, 4, "buy"),
        ("u", 3, 4 * day, 9, "view"),
        ("u", 4, day + 1, 1, "view"),
        ("u", 5, day, 0, "view"),
        ("v", 6, 5 * day, 0, "buy"),
    ]
    (path,) = _write(tmp_path, events, n_buckets=1)
    frame = pl.read_parquet(path)
    assert frame["user_id"].to_list() == ["u", "v"]
    assert frame["item_idx"].to_list() == [[3, 2, 1, 4, 5], [6]]
    assert frame["event_type"].to_list() == [[1, 0, 1, 1, 1], [0]]
    assert frame.select("train_end", "validation_end").rows() == [(3, 4), (1, 1)]
    start = datetime(2026, 3, 6, tzinfo=UTC)
    assert frame["timestamp"][0][0] == int(start.timestamp()) * 1_000_000
    assert frame.schema == {
        "user_id": pl.String,
        "item_idx": pl.List(pl.Int32),
        "timestamp": pl.List(pl.Int64),
        "event_type": pl.List(pl.Int8),
        "target_weight": pl.List(pl.Float32),
        "train_end": pl.Int32,
        "validation_end": pl.Int32,
    }
    assert not any(tmp_path.glob("scratch/*"))


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "ü"]),
        st.integers(1, 9),
        st.integers(1, 4).map(lambda half_days: half_days * 43_200),
    ),
    min_size=1,
    max_size=25,
).map(lambda rows: [(*row, arrival, "view") for arrival, row in enumerate(rows)])


@settings(max_examples=20, deadline=None)
@given(EVENTS, st.integers(1, 5), st.randoms())
def test_every_event_is_kept_whatever_the_order_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], n_buckets: int, random: object
) -> None:
    folder = tmp_path_factory.mktemp("property")
    paths = _write(folder, events, n_buckets=n_buckets)
    assert [path.name for path in paths] == [f"bucket-{i:03d}.parquet" for i in range(n_buckets)]
    before = [path.read_bytes() for path in paths]
    frame = pl.concat([pl.read_parquet(path) for path in paths])
    expected = sorted(events, key=lambda event: (event[0], -event[2], event[3]))
    rows = frame.sort("user_id").select("user_id", "item_idx").explode("item_idx").rows()
    assert rows == [(user, item) for user, item, *_ in expected]
    for bucket, path in enumerate(paths):
        ids = pl.read_parquet(path)["user_id"]
        assert (stable_hash(ids) % np.uint64(n_buckets) == bucket).all()
        assert ids.to_list() == sorted(ids)

    shuffled = list(events)
    random.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    again = _write(folder, shuffled, n_buckets=n_buckets)
    assert [path.read_bytes() for path in again] == before


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.integers(0, 25), st.sampled_from(["global_time", "leave_one_out"]))
def test_a_base_and_what_came_since_give_the_same_bytes_as_all_at_once(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], n_old: int, kind: SplitKind
) -> None:
    """Late events, equal times and users without anything new included."""
    folder = tmp_path_factory.mktemp("base")
    whole = _write(folder / "whole", events, kind=kind)
    base = _write(folder / "base", events[:n_old])
    updated = _write(folder / "updated", events[n_old:], kind=kind, base=base)
    assert [path.read_bytes() for path in updated] == [path.read_bytes() for path in whole]


def test_nothing_gives_empty_buckets(tmp_path: Path) -> None:
    paths = _write(tmp_path, [], n_buckets=2)
    assert [pl.read_parquet(path).height for path in paths] == [0, 0]


def test_leftovers_of_a_killed_run_are_not_read(tmp_path: Path) -> None:
    events: list[Event] = [("u", 1, 10 * 86_400, 0, "view")]
    leftover = tmp_path / "scratch" / "unsorted"
    leftover.mkdir(parents=True)
    _frame([("ghost", 2, 1, 0, "view")]).write_ipc(leftover / "0-00000.arrow")
    paths = _write(tmp_path, events)
    assert pl.concat([pl.read_parquet(path) for path in paths])["user_id"].to_list() == ["u"]
