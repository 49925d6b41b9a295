"""Malformed JSON lines."""

from pathlib import Path

import pytest

from tests.bad_input import (
    JSON_ROW,
    QuarantineCase,
    RefusalCase,
    Settings,
    assert_quarantined,
    assert_refused,
    json_lines,
)

JSONL: Settings = {"format": "jsonl"}

QUARANTINED = {
    "no JSON": QuarantineCase(
        json_lines(JSON_ROW, "{broken", "[1, 2]", "7", '{"user_id": "u"'),
        {"not a JSON object": 4},
        1,
        "a.jsonl",
        JSONL,
    ),
    "nested JSON values": QuarantineCase(
        json_lines(JSON_ROW, JSON_ROW | {"timestamp": {"at": 1}}, JSON_ROW | {"weight": [1]}),
        {"unreadable timestamp": 1, "unreadable weight": 1},
        1,
        "a.jsonl",
        JSONL,
    ),
    "mixed types in JSON": QuarantineCase(
        json_lines(JSON_ROW, JSON_ROW | {"user_id": 7}, JSON_ROW | {"user_id": None}, {}),
        {"missing user_id": 2},
        2,
        "a.jsonl",
        JSONL,
    ),
}


@pytest.mark.parametrize("case", QUARANTINED.values(), ids=QUARANTINED.keys())
def test_bad_rows_are_quarantined_and_good_ones_kept(tmp_path: Path, case: QuarantineCase) -> None:
    assert_quarantined(tmp_path, case)


REFUSED = {
    "a JSON object over many lines": RefusalCase(
        lambda at: (at / "a.json").write_text('{\n "user_id": 1\n}\n'),
        r"a\.json is no file of JSON lines: it begins with '\{'",
        JSONL,
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_can_not_be_read_is_refused_with_a_sentence(
    tmp_path: Path, case: RefusalCase
) -> None:
    assert_refused(tmp_path, case)
