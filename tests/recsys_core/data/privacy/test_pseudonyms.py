"""Hashed user ids are HMAC-SHA256, and a lake holds those of one key only."""

import hashlib
import hmac
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.lake.ingest_log import register_files
from recsys_core.data.lake.tables import Lake
from recsys_core.data.privacy.pseudonyms import PseudonymError, check_key, claim_key, pseudonymise
from recsys_core.data.sources.config import SourceFile

KEY = b"0123456789abcdef"
OTHER = b"fedcba9876543210"


@given(
    ids=st.lists(st.none() | st.text()),
    key=st.binary(min_size=16, max_size=200),
)
def test_a_pseudonym_is_the_truncated_hmac(ids: list[str | None], key: bytes) -> None:
    expected = [
        None if text is None else hmac.digest(key, text.encode(), hashlib.sha256)[:16].hex()
        for text in ids
    ]

    found = pseudonymise(pl.Series("user_id", ids, dtype=pl.String), key)

    assert found.name == "user_id"
    assert found.dtype == pl.String
    assert found.to_list() == expected


def test_pseudonyms_are_the_same_in_every_version() -> None:
    """The value that `openssl dgst -sha256 -hmac` gives."""
    found = pseudonymise(pl.Series(["what do ya want for nothing?"]), b"0123456789abcdef")
    assert found.to_list() == ["e9265dc1bf18d4ec36915d9e82226c7e"]


def test_a_short_key_is_refused() -> None:
    with pytest.raises(PseudonymError, match=r"has 15 bytes; at least 16 .*`openssl rand"):
        pseudonymise(pl.Series(["a"]), KEY[:15])


def _ingest_something(lake: Path) -> None:
    source = SourceFile("interactions", "interactions/a.csv", "in/a.csv", "stamp")
    register_files(Lake(lake), [source], run_date=date(2026, 1, 10))


@pytest.mark.parametrize("key", [None, KEY])
def test_a_claimed_lake_takes_the_same_again(tmp_path: Path, key: bytes | None) -> None:
    claim_key(tmp_path, key)
    _ingest_something(tmp_path)
    claim_key(tmp_path, key)
    check_key(tmp_path, key)


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (None, KEY, "holds user ids as they are.*Leave the setting out"),
        (KEY, None, "holds hashed user ids.*Set it"),
        (KEY, OTHER, "hashed with another key.*key of the first night"),
    ],
)
def test_a_lake_never_holds_a_user_twice(
    tmp_path: Path, first: bytes | None, second: bytes | None, problem: str
) -> None:
    claim_key(tmp_path, first)
    _ingest_something(tmp_path)
    for function in (check_key, claim_key):
        with pytest.raises(PseudonymError, match=problem):
            function(tmp_path, second)
    check_key(tmp_path, first)


def test_a_lake_from_before_holds_plain_ids(tmp_path: Path) -> None:
    _ingest_something(tmp_path)
    with pytest.raises(PseudonymError, match="as they are"):
        claim_key(tmp_path, KEY)


def test_a_key_that_brought_nothing_can_be_replaced(tmp_path: Path) -> None:
    claim_key(tmp_path, KEY)
    claim_key(tmp_path, OTHER)
    _ingest_something(tmp_path)
    check_key(tmp_path, OTHER)


def test_the_record_does_not_hold_the_key(tmp_path: Path) -> None:
    claim_key(tmp_path, KEY)
    for path in tmp_path.rglob("*"):
        content = path.read_bytes()
        assert KEY not in content
        assert KEY.hex().encode() not in content
