"""The denylist of forgotten users: hashes of their ids, so that no old file brings them back."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.privacy.pseudonyms import pseudonymise

_FILE = "forgotten.json"


@dataclass(frozen=True)
class Denylist:
    """The list of forgotten users.

    Attributes:
        salt: Key for hashing the ids; random, for this lake only.
        dates: Hash of each user's id, as the lake spells it, to the date of forgetting.

    Example:
        >>> denylist = Denylist(salt=bytes(32))
        >>> denylist = Denylist(denylist.salt, {denylist.hash_of("anna"): date(2026, 1, 9)})
        >>> on_denylist(pl.Series(["anna", "ben", None]), denylist).to_list()
        [True, False, False]
    """

    salt: bytes = b""
    dates: dict[str, date] = field(default_factory=dict[str, date])

    def hash_of(self, user_id: str) -> str:
        """The hash of a user's id, as stored in the list."""
        return pseudonymise(pl.Series([user_id]), self.salt).item()


def read_denylist(lake: Path) -> Denylist:
    """The denylist of a lake; empty if nobody was forgotten."""
    path = lake / _FILE
    if not path.exists():
        return Denylist()
    content = read_json(path)
    dates = {user: date.fromisoformat(day) for user, day in content["users"].items()}
    return Denylist(bytes.fromhex(content["salt"]), dates)


def add_to_denylist(
    lake: Path, user_ids: Iterable[str], *, today: date, new_salt: bytes
) -> Denylist:
    """Add users to the denylist; users already on it keep their first date.

    Args:
        lake: Folder of the tables.
        user_ids: As the lake spells them: hashed where it holds hashed ids.
        today: Date of forgetting.
        new_salt: Random bytes, used if there is no list yet.
    """
    known = read_denylist(lake)
    known = known if known.salt else Denylist(new_salt)
    added = {known.hash_of(user_id): today for user_id in user_ids}
    denylist = Denylist(known.salt, added | known.dates)
    users = {user: day.isoformat() for user, day in denylist.dates.items()}
    write_json(lake / _FILE, {"salt": denylist.salt.hex(), "users": users})
    return denylist


def on_denylist(ids: pl.Series, denylist: Denylist) -> pl.Series:
    """Whether each id is that of a forgotten user; false for null.

    Args:
        ids: User ids as the lake spells them.
        denylist: The list, from `read_denylist`.
    """
    if not denylist.dates:
        return pl.repeat(value=False, n=len(ids), eager=True).alias(ids.name)
    hashes = pseudonymise(ids, denylist.salt)
    return hashes.is_in(list(denylist.dates)).fill_null(value=False).alias(ids.name)
