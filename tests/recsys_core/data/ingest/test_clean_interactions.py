"""Raw rows to clean ones: reasons, units, ids, and that nothing gets lost."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.ingest.clean_interactions import (
    ARRIVAL_BITS,
    available_until,
    clean_interactions,
)
from recsys_core.data.ingest.clean_items import CleanedItems
from recsys_core.data.ingest.deduplicate import deduplicate
from recsys_core.data.schema import AFTER_RUN_DATE, INTERACTIONS, QUARANTINE
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.reader import BROKEN, LINE, ROW

RUN_DATE = date(2026, 1, 10)
SECOND = 1_700_000_000
MOMENT = datetime.fromtimestamp(SECOND, UTC)


def _raw(**columns: list[object]) -> pl.LazyFrame:
    return _raw_frame(pl.DataFrame(columns, strict=False))


def _raw_frame(frame: pl.DataFrame) -> pl.LazyFrame:
    nothing = pl.lit(None, pl.String)
    return frame.lazy().select(
        pl.int_range(1, frame.height + 1).alias(ROW),
        nothing.alias(BROKEN),
        nothing.alias(LINE),
        "*",
    )


def _clean(raw: pl.LazyFrame, *, ordinal: int = 0, **settings: object) -> CleanedItems:
    config = SourceConfig.model_validate({"interactions": Path("unused"), **settings})
    rows = raw.collect()
    checked = clean_interactions(rows, config, source="s", ordinal=ordinal, run_date=RUN_DATE)
    deduplicated = deduplicate(
        checked.valid, checked.valid.clear(), max_events_per_day=None, run_date=RUN_DATE
    )
    repeated = deduplicated.duplicates.total()
    return CleanedItems(deduplicated.kept, checked.quarantined, rows.height, repeated)


def _times(values: list[object], **settings: object) -> list[datetime | None]:
    n = len(values)
    raw = _raw(user_id=["u"] * n, item_id=[str(i) for i in range(n)], timestamp=values)
    by_item = dict(
        _clean(raw, ordinal=0, **settings).kept.select("item_id", "timestamp").iter_rows()
    )
    return [by_item.get(str(i)) for i in range(n)]


@pytest.mark.parametrize(
    ("user", "item", "timestamp", "weight", "reason"),
    [
        (None, "i", "1", "1", "missing user_id"),
        ("  ", "i", str(SECOND), "1", "missing user_id"),
        ("u", "", str(SECOND), "1", "missing item_id"),
        ("u", "i", None, "1", "missing timestamp"),
        ("u", "i", "yesterday", "1", "unreadable timestamp"),
        ("u", "i", "nan", "1", "unreadable timestamp"),
        ("u", "i", "0", "1", "timestamp out of range"),
        ("u", "i", str(SECOND * 1000), "1", "timestamp out of range"),
        ("u", "i", "9" * 18, "1", "timestamp out of range"),
        ("u", "i", "inf", "1", "timestamp out of range"),
        ("u", "i", "1768003200", "1", AFTER_RUN_DATE),
        ("u", "i", str(SECOND), "nan", "weight not finite"),
        ("u", "i", str(SECOND), "1e300", "weight not finite"),
        ("u", "i", str(SECOND), "five", "unreadable weight"),
        ("u", "i", str(SECOND), "-1.5", None),
        ("u", "i", "1768003199.999", None, None),
    ],
)
def test_each_row_is_kept_or_quarantined_with_its_reason(
    user: str | None, item: str, timestamp: str | None, weight: str | None, reason: str | None
) -> None:
    raw = _raw(user_id=[user, "a"], item_id=[item, "b"], timestamp=[timestamp, str(SECOND)])
    raw = raw.with_columns(weight=pl.Series([weight, "1"], dtype=pl.String))
    cleaned = _clean(raw)
    assert cleaned.quarantined["reason"].to_list() == ([] if reason is None else [reason])
    assert cleaned.kept.height == (2 if reason is None else 1)
    assert cleaned.kept.schema == INTERACTIONS.schema
    assert cleaned.quarantined.schema == QUARANTINE.schema


def test_the_quarantine_says_where_and_what() -> None:
    raw = _raw(user_id=["a", None], item_id=["b", "c"], timestamp=[str(SECOND), "7"])
    (row,) = _clean(raw).quarantined.to_dicts()
    assert (row["source"], row["row"], row["date"]) == ("s", 2, RUN_DATE)
    assert json.loads(row["raw"]) == {"user_id": None, "item_id": "c", "timestamp": "7"}


_cell = st.one_of(
    st.none(),
    st.text(max_size=4),
    st.sampled_from(["a", "b", " a ", str(SECOND), "nan", "1e400", "-5", "2026-01-01"]),
)


@given(rows=st.lists(st.tuples(_cell, _cell, _cell, _cell, _cell), min_size=1, max_size=20))
def test_no_row_is_lost_and_none_kept_breaks_the_schema(
    rows: list[tuple[str | None, ...]],
) -> None:
    names = ["user_id", "item_id", "timestamp", "event_type", "weight"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    cleaned = _clean(_raw_frame(frame))
    parts = cleaned.kept.height + cleaned.quarantined.height + cleaned.n_duplicates
    assert cleaned.n_rows == len(rows) == parts
    assert sum(cleaned.reasons.values()) == cleaned.quarantined.height
    assert sum(cleaned.kept.null_count().row(0)) == 0
    assert cleaned.kept["weight"].is_finite().all()
    assert (cleaned.kept["timestamp"] < available_until(RUN_DATE, "UTC")).all()
    assert not cleaned.kept.select(INTERACTIONS.key).is_duplicated().any()


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("s", str(SECOND)),
        ("s", f"{SECOND}.0"),
        ("ms", str(SECOND * 1000)),
        ("us", str(SECOND * 1_000_000)),
        ("s", SECOND),
        ("s", float(SECOND)),
        ("iso", "2023-11-14T22:13:20Z"),
        ("iso", "2023-11-14 22:13:20"),
        ("iso", "2023-11-14T23:13:20.000+01:00"),
        ("s", MOMENT),
        ("iso", MOMENT.replace(tzinfo=None)),
    ],
)
def test_one_moment_in_all_its_spellings(unit: str, value: object) -> None:
    assert _times([value], timestamp_unit=unit) == [MOMENT]


def test_short_iso_forms() -> None:
    values: list[object] = [
        "2023-11-14",
        "2023-11-14T22:13",
        "2023-11-14T22:13-02:00",
        "14.11.2023",
    ]
    assert _times(values, timestamp_unit="iso") == [
        datetime(2023, 11, 14, tzinfo=UTC),
        datetime(2023, 11, 14, 22, 13, tzinfo=UTC),
        datetime(2023, 11, 15, 0, 13, tzinfo=UTC),
        None,
    ]


def test_the_run_date_begins_in_its_time_zone() -> None:
    assert available_until(RUN_DATE, "Europe/Berlin") == datetime(2026, 1, 9, 23, tzinfo=UTC)
    values: list[object] = ["2026-01-09T22:59:59Z", "2026-01-09T23:00:00Z"]
    kept = _times(values, timestamp_unit="iso", timezone="Europe/Berlin")
    assert [moment is not None for moment in kept] == [True, False]


def test_nanoseconds_written_times_and_zones() -> None:
    second = datetime.fromtimestamp(SECOND, UTC)
    assert _times([SECOND * 10**9 + 1999], timestamp_unit="ns") == [
        second + timedelta(microseconds=1)
    ]
    german: Any = {"timestamp_format": "%d.%m.%Y %H:%M", "timestamp_zone": "Europe/Berlin"}
    assert _times(["31.07.2025 02:00", "31.12.2025 1:0", "2025-07-31"], **german) == [
        datetime(2025, 7, 31, 0, tzinfo=UTC),
        datetime(2025, 12, 31, 0, tzinfo=UTC),
        None,
    ]
    # 02:30 comes twice on one day and never on another.
    assert _times(["26.10.2025 02:30", "30.03.2025 02:30"], **german) == [
        datetime(2025, 10, 26, 0, 30, tzinfo=UTC),
        None,
    ]
    offset = {"timestamp_format": "%Y/%m/%d %H:%M %z"}
    assert _times(["2025/07/31 02:00 +0200"], **offset) == [datetime(2025, 7, 31, tzinfo=UTC)]
    iso: Any = {"timestamp_unit": "iso", "timestamp_zone": "Europe/Berlin"}
    assert _times(["2025-07-31 02:00", "2025-07-31T02:00Z"], **iso) == [
        datetime(2025, 7, 31, 0, tzinfo=UTC),
        datetime(2025, 7, 31, 2, tzinfo=UTC),
    ]


def test_an_order_is_stored_under_the_day_before_the_run_date() -> None:
    raw = _raw(user_id=["u"] * 4, item_id=list("abcd"), timestamp=[0, 1, -1, 86_400_000_000])
    cleaned = _clean(raw, timestamp_kind="order")
    assert cleaned.kept["timestamp"].to_list() == [
        datetime(2026, 1, 9, tzinfo=UTC),
        datetime(2026, 1, 9, microsecond=1, tzinfo=UTC),
    ]
    assert cleaned.kept["date"].unique().to_list() == [date(2026, 1, 9)]
    assert cleaned.reasons == {"timestamp out of range": 2}


def test_arrival_is_the_order_of_the_sources_and_within_them() -> None:
    raw = _raw(user_id=["u", "v"], item_id=["a", "a"], timestamp=[SECOND, SECOND])
    first, second = (_clean(raw, ordinal=ordinal).kept["arrival"].to_list() for ordinal in (0, 1))
    assert first == [1, 2]
    assert second == [(1 << ARRIVAL_BITS) + 1, (1 << ARRIVAL_BITS) + 2]


def test_ids_are_text_and_whole_floats_are_whole_numbers() -> None:
    raw = _raw(user_id=[1193.0, None, 2.5], item_id=[1, 2, 3], timestamp=[SECOND] * 3)
    cleaned = _clean(raw)
    assert cleaned.kept.select("user_id", "item_id").rows() == [("1193", "1")]
    assert cleaned.reasons == {"missing user_id": 1, "unreadable user_id": 1}


def test_defaults_for_kind_and_weight() -> None:
    raw = _raw(
        user_id=["u", "u"],
        item_id=["a", "b"],
        timestamp=[SECOND, SECOND],
        event_type=["buy", None],
        weight=[None, "2"],
    )
    kept = _clean(raw, default_event_type="view").kept
    assert kept.select("event_type", "weight").rows() == [("buy", 1.0), ("view", 2.0)]


def test_repetitions_are_dropped_and_the_first_is_kept() -> None:
    raw = _raw(
        user_id=["u", " u", "u"],
        item_id=["a", "a", "a"],
        timestamp=[SECOND, SECOND, SECOND + 1],
        weight=[3, 4, 5],
    )
    cleaned = _clean(raw)
    assert cleaned.kept["weight"].to_list() == [3, 5]
    assert cleaned.n_duplicates == 1


def test_known_rows_are_not_stored_again() -> None:
    raw = _raw(user_id=["u", "v"], item_id=["a", "a"], timestamp=[SECOND, SECOND])
    rows = _clean(raw).kept
    deduplicated = deduplicate(rows, rows.head(1), max_events_per_day=None, run_date=RUN_DATE)
    assert deduplicated.kept["user_id"].to_list() == ["v"]
    assert deduplicated.duplicates == {"s": 1}


ROWS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("ab"), st.integers(0, 1)), max_size=12
)


@given(ROWS, ROWS, st.none() | st.integers(1, 4))
def test_settling_is_what_one_would_do_by_hand(
    new: list[tuple[str, str, int]], old: list[tuple[str, str, int]], limit: int | None
) -> None:
    rows, known = (_settled_rows(events) for events in (new, sorted(set(old))))
    deduplicated = deduplicate(rows, known, max_events_per_day=limit, run_date=RUN_DATE)
    fresh = [event for event in dict.fromkeys(new) if event not in old]
    users = Counter(user for user, *_ in [*fresh, *set(old)])
    bots = {user for user, count in users.items() if limit is not None and count > limit}
    places = {event: at for at, event in reversed(list(enumerate(new)))}
    assert deduplicated.kept["arrival"].to_list() == [
        places[event] for event in fresh if event[0] not in bots
    ]
    assert deduplicated.refused["user_id"].to_list() == [user for user, *_ in fresh if user in bots]
    assert deduplicated.duplicates.total() == len(new) - len(fresh)


def _settled_rows(events: list[tuple[str, str, int]]) -> pl.DataFrame:
    rows = [
        (user, item, MOMENT + timedelta(seconds=second), at, "view", 1.0, "s", MOMENT.date())
        for at, (user, item, second) in enumerate(events)
    ]
    return pl.DataFrame(rows, schema=INTERACTIONS.schema, orient="row")


def test_a_column_of_lists_is_refused() -> None:
    raw = _raw(user_id=[["u"]], item_id=["a"], timestamp=[SECOND])
    with pytest.raises(SourceError, match=r"s: column user_id holds List\(String\) values"):
        _clean(raw)
