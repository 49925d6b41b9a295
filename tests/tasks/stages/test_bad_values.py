"""Values that the lake can't hold: weights, times, ids and kinds of events."""

from pathlib import Path

import pytest

from tests.bad_input import HEADER, QuarantineCase, Settings, assert_quarantined, with_line

SECONDS: Settings = {"timestamp_unit": "s"}


def _row(**values: str) -> str:
    row = {"user": "u", "item": "i", "timestamp": "2026-01-01", "weight": "1"} | values
    return ",".join(row.values())


QUARANTINED = {
    "1e308 as weight": QuarantineCase(with_line(_row(weight="1e308")), {"weight not finite": 1}),
    "NaN as weight": QuarantineCase(with_line(_row(weight="NaN")), {"weight not finite": 1}),
    "infinity as weight": QuarantineCase(with_line(_row(weight="-inf")), {"weight not finite": 1}),
    "text as weight": QuarantineCase(with_line(_row(weight="many")), {"unreadable weight": 1}),
    "1e308 as timestamp": QuarantineCase(
        HEADER + "u,i,1e308,1\n", {"timestamp out of range": 1}, 0, settings=SECONDS
    ),
    "NaN as timestamp": QuarantineCase(
        HEADER + "u,i,NaN,1\n", {"unreadable timestamp": 1}, 0, settings=SECONDS
    ),
    "negative timestamp": QuarantineCase(
        HEADER + "u,i,-5,1\n", {"timestamp out of range": 1}, 0, settings=SECONDS
    ),
    "13 digits where seconds belong": QuarantineCase(
        HEADER + "u,i,1767225600000,1\n", {"timestamp out of range": 1}, 0, settings=SECONDS
    ),
    "seconds where 13 digits belong": QuarantineCase(
        HEADER + "u,i,1767225600,1\n",
        {"timestamp out of range": 1},
        0,
        settings={"timestamp_unit": "ms"},
    ),
    "more digits than an integer has": QuarantineCase(
        HEADER + f"u,i,{'9' * 40},1\n", {"timestamp out of range": 1}, 0, settings=SECONDS
    ),
    "a day that does not exist": QuarantineCase(
        with_line(_row(timestamp="2026-02-30")), {"unreadable timestamp": 1}
    ),
    "another way to write dates": QuarantineCase(
        with_line(_row(timestamp="01/02/2026")), {"unreadable timestamp": 1}
    ),
    "an hour that clocks skip": QuarantineCase(
        HEADER + "u,i,2025-03-30 02:30,1\nu,j,2025-03-30 03:30,1\n",
        {"unreadable timestamp": 1},
        1,
        settings={"timestamp_zone": "Europe/Berlin"},
    ),
    "a time to come": QuarantineCase(
        with_line(_row(timestamp="2026-01-10")), {"timestamp on or after the run date": 1}
    ),
    "blanks for an id": QuarantineCase(with_line(_row(user="   ")), {"missing user_id": 1}),
    "nothing for an item": QuarantineCase(with_line(_row(item="")), {"missing item_id": 1}),
    "nothing for a time": QuarantineCase(with_line(_row(timestamp="")), {"missing timestamp": 1}),
    "a kind that is not listed": QuarantineCase(
        "user_id,item_id,timestamp,event_type\nu,i,2026-01-01,view\nu,i,2026-01-01,hack\n",
        {"unknown event_type": 1},
        1,
        settings={"event_types": {"view": 1.0}},
    ),
}


@pytest.mark.parametrize("case", QUARANTINED.values(), ids=QUARANTINED.keys())
def test_bad_rows_are_quarantined_and_good_ones_kept(tmp_path: Path, case: QuarantineCase) -> None:
    assert_quarantined(tmp_path, case)
