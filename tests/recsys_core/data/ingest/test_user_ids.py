"""Before a row is checked its user is hashed or withheld, and no row is lost by that."""

import json
from collections.abc import Sequence
from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_core.data.ingest.clean_interactions import CleanedInteractions, clean_interactions
from recsys_core.data.ingest.user_ids import KEEP_USER_IDS, UserIdPolicy, apply_user_id_policy
from recsys_core.data.privacy.denylist import Denylist
from recsys_core.data.privacy.pseudonyms import pseudonymise
from recsys_core.data.sources.config import SourceConfig, SourceError

KEY = b"0123456789abcdef"
TODAY = date(2026, 1, 10)
CONFIG = SourceConfig(interactions="in", timestamp_unit="iso")


def _raw(users: pl.Series, *, lines: Sequence[str | None] = ()) -> pl.DataFrame:
    """Rows that are well but for their users; those with a line are broken."""
    lines = lines or (None,) * len(users)
    return pl.DataFrame(
        {
            "__row": pl.int_range(1, len(users) + 1, dtype=pl.Int64, eager=True),
            "__broken": pl.Series(
                ["not UTF-8" if line else None for line in lines], dtype=pl.String
            ),
            "__line": pl.Series(lines, dtype=pl.String),
            "user_id": users,
            "item_id": ["a"] * len(users),
            "timestamp": ["2026-01-01"] * len(users),
        }
    )


def _cleaned(raw: pl.DataFrame, user_id_policy: UserIdPolicy) -> CleanedInteractions:
    shielded = apply_user_id_policy(raw, user_id_policy, source="s")
    return clean_interactions(shielded, CONFIG, source="s", ordinal=0, run_date=TODAY)


def _forgetting(*users: str) -> Denylist:
    salted = Denylist(bytes(32))
    return Denylist(salted.salt, {salted.hash_of(user): TODAY for user in users})


def test_without_key_and_forgotten_users_nothing_changes() -> None:
    raw = _raw(pl.Series([" u ", None, "x"]), lines=[None, None, "u,x"])
    assert apply_user_id_policy(raw, KEEP_USER_IDS, source="s") is raw


def test_hashed_ids_are_those_of_the_tidy_text() -> None:
    expected = pseudonymise(pl.Series(["7", "7", "8"]), KEY).to_list()

    of_text = _cleaned(_raw(pl.Series([" 7", "7 ", "8"])), UserIdPolicy(KEY))
    of_floats = _cleaned(_raw(pl.Series([7.0, 7.0, 8.0])), UserIdPolicy(KEY))

    assert of_text.valid["user_id"].to_list() == expected
    assert of_floats.valid["user_id"].to_list() == expected


def test_refused_rows_name_their_user_by_the_hash_only() -> None:
    raw = _raw(pl.Series(["plain-id"])).with_columns(timestamp=pl.lit("nonsense"))

    refused = _cleaned(raw, UserIdPolicy(KEY)).quarantined.row(0, named=True)

    assert refused["reason"] == "unreadable timestamp"
    assert refused["user_id"] == pseudonymise(pl.Series(["plain-id"]), KEY).item()
    assert "plain-id" not in refused["raw"]


@pytest.mark.parametrize(
    "user_id_policy", [UserIdPolicy(KEY), UserIdPolicy(denylist=_forgetting("x"))]
)
def test_broken_lines_are_withheld_where_anybody_is_shielded(user_id_policy: UserIdPolicy) -> None:
    raw = _raw(pl.Series([None], dtype=pl.String), lines=["plain-id,a"])

    refused = _cleaned(raw, user_id_policy).quarantined.row(0, named=True)

    assert (refused["reason"], refused["row"]) == ("not UTF-8", 1)
    assert json.loads(refused["raw"]) == {"line": "withheld"}


def test_an_unreadable_id_is_withheld() -> None:
    refused = _cleaned(_raw(pl.Series([1193.5])), UserIdPolicy(KEY)).quarantined.row(0, named=True)
    assert refused["reason"] == "unreadable user_id"
    assert "1193" not in refused["raw"]


@pytest.mark.parametrize("key", [None, KEY])
def test_rows_of_forgotten_users_are_refused_without_their_content(key: bytes | None) -> None:
    stored = "gone" if key is None else pseudonymise(pl.Series(["gone"]), key).item()
    checked = _cleaned(
        _raw(pl.Series(["gone", "here", " gone"])), UserIdPolicy(key, _forgetting(stored))
    )

    assert checked.valid.height == 1
    assert checked.quarantined["reason"].to_list() == ["forgotten user"] * 2
    assert checked.quarantined["row"].to_list() == [1, 3]
    assert checked.quarantined["user_id"].to_list() == [None, None]
    assert {json.loads(raw)["line"] for raw in checked.quarantined["raw"]} == {"withheld"}


def test_a_forgotten_number_is_known_as_text() -> None:
    checked = _cleaned(_raw(pl.Series([7, 8])), UserIdPolicy(denylist=_forgetting("7")))
    assert checked.valid["user_id"].to_list() == ["8"]


def test_nested_ids_are_named() -> None:
    with pytest.raises(SourceError, match="s: column user_id holds List"):
        apply_user_id_policy(_raw(pl.Series([["u"]])), UserIdPolicy(KEY), source="s")


@given(
    users=st.lists(
        st.none() | st.sampled_from(["gone", " gone ", "here", ""]) | st.text(max_size=3),
        min_size=1,
    ),
    hashed=st.booleans(),
)
def test_no_row_is_lost(users: list[str | None], hashed: bool) -> None:
    key = KEY if hashed else None
    stored = pseudonymise(pl.Series(["gone"]), KEY).item() if hashed else "gone"
    raw = _raw(pl.Series(users, dtype=pl.String))

    checked = _cleaned(raw, UserIdPolicy(key, _forgetting(stored)))
    before = _cleaned(raw, KEEP_USER_IDS)

    assert checked.valid.height + checked.quarantined.height == len(users)
    refused = checked.quarantined.filter(pl.col("reason") == "forgotten user").height
    assert checked.valid.height + refused == before.valid.height
    assert stored not in checked.valid["user_id"].to_list()
