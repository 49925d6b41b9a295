"""Who was forgotten: hashes of user ids, so that an old file does not bring a user back."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.privacy.pseudonyms import pseudonymise

_FILE = "forgotten.json"


@dataclass(frozen=True)
class Forgotten:
    """The list of forgotten users.

    Attributes:
        salt: What ids are hashed with; random, of this lake only.
        dates: Hash of each user's id, as the lake spells it, and when it was forgotten.
    """

    salt: bytes = b""
    dates: dict[str, date] = field(default_factory=dict[str, date])

    def hash_of(self, user_id: str) -> str:
        """How a user stands in the list."""
        return pseudonymise(pl.Series([user_id]), self.salt).item()


def read_forgotten(lake: Path) -> Forgotten:
    """The list of a lake; empty where nobody was forgotten."""
    path = lake / _FILE
    if not path.exists():
        return Forgotten()
    content = read_json(path)
    dates = {user: date.fromisoformat(day) for user, day in content["users"].items()}
    return Forgotten(bytes.fromhex(content["salt"]), dates)


def remember(lake: Path, user_ids: Iterable[str], *, today: date, new_salt: bytes) -> Forgotten:
    """Add users to the list; who is there keeps the first date.

    Args:
        lake: Folder of the tables.
        user_ids: As the lake spells them: hashed where it holds hashed ids.
        today: The date to note.
        new_salt: Random bytes, taken where there is no list yet.
    """
    known = read_forgotten(lake)
    known = known if known.salt else Forgotten(new_salt)
    added = {known.hash_of(user_id): today for user_id in user_ids}
    forgotten = Forgotten(known.salt, added | known.dates)
    users = {user: day.isoformat() for user, day in forgotten.dates.items()}
    write_json(lake / _FILE, {"salt": forgotten.salt.hex(), "users": users})
    return forgotten


def is_forgotten(ids: pl.Series, forgotten: Forgotten) -> pl.Series:
    """Whether each id is of a forgotten user; null is not.

    Args:
        ids: As the lake spells them.
        forgotten: From `read_forgotten`, once for many calls.
    """
    if not forgotten.dates:
        return pl.repeat(value=False, n=len(ids), eager=True).alias(ids.name)
    hashes = pseudonymise(ids, forgotten.salt)
    return hashes.is_in(list(forgotten.dates)).fill_null(value=False).alias(ids.name)
