"""The list of forgotten users knows them without naming them."""

from datetime import date
from pathlib import Path

import polars as pl

from recsys_core.data.privacy.denylist import Denylist, add_to_denylist, on_denylist, read_denylist

SALT = bytes(range(32))
TODAY = date(2026, 3, 10)


def test_forgotten_users_are_recognised_and_not_named(tmp_path: Path) -> None:
    add_to_denylist(tmp_path, ["user-one", "user-two"], today=TODAY, new_salt=SALT)
    ids = pl.Series("user_id", ["user-two", None, "user-three", "user-one", "user-two"])

    found = on_denylist(ids, read_denylist(tmp_path))

    assert found.to_list() == [True, False, False, True, True]
    assert found.name == "user_id"
    assert "user-one" not in (tmp_path / "forgotten.json").read_text()


def test_nobody_is_forgotten_at_first(tmp_path: Path) -> None:
    denylist = read_denylist(tmp_path)
    assert denylist == Denylist()
    assert on_denylist(pl.Series(["a", None]), denylist).to_list() == [False, False]


def test_the_list_grows_and_keeps_salt_and_first_dates(tmp_path: Path) -> None:
    first = add_to_denylist(tmp_path, ["a"], today=TODAY, new_salt=SALT)
    later = date(2026, 4, 1)

    second = add_to_denylist(tmp_path, ["a", "b"], today=later, new_salt=bytes(32))

    assert second == read_denylist(tmp_path)
    assert second.salt == SALT
    assert second.dates == {first.hash_of("a"): TODAY, first.hash_of("b"): later}


def test_the_same_user_stands_differently_in_another_lake(tmp_path: Path) -> None:
    one = add_to_denylist(tmp_path / "one", ["a"], today=TODAY, new_salt=SALT)
    two = add_to_denylist(tmp_path / "two", ["a"], today=TODAY, new_salt=bytes(32))
    assert set(one.dates).isdisjoint(two.dates)
