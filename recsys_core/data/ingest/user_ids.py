"""Hashing of user ids, and refusal of forgotten users, before the rows are checked.

The order matters: a row that a check refuses then reaches the quarantine without the plain id.
"""

from dataclasses import dataclass, field

import polars as pl

from recsys_core.data.ingest.row_checks import identifier_of, refuse_nested, tidy
from recsys_core.data.privacy.denylist import Denylist, on_denylist
from recsys_core.data.privacy.pseudonyms import pseudonymise
from recsys_core.data.schema import FORGOTTEN_USER, WITHHELD, unreadable
from recsys_core.data.sources.reader import BROKEN, LINE


@dataclass(frozen=True)
class UserIdPolicy:
    """What ingest does with user ids.

    Attributes:
        key: Key for hashing user ids; None leaves them as they are.
        denylist: The users whose rows are refused.
    """

    key: bytes | None = None
    denylist: Denylist = field(default_factory=Denylist)


KEEP_USER_IDS = UserIdPolicy()


def apply_user_id_policy(raw: pl.DataFrame, policy: UserIdPolicy, *, source: str) -> pl.DataFrame:
    """Hash the user ids of raw rows, and mark rows of forgotten users as broken.

    The text of all broken rows is withheld, as it could name any user. Without a key and without
    forgotten users the rows stay as they are.

    Args:
        raw: A chunk from `read_chunks`.
        policy: The key and the denylist.
        source: The file's name, for messages.

    Raises:
        SourceError: `user_id` holds lists, structs or bytes.
        PseudonymError: The key is too short.
    """
    if policy.key is None and not policy.denylist.dates:
        return raw
    refuse_nested(raw, source, ("user_id",))
    rows = tidy(raw)
    ids = rows.select(identifier_of("user_id", rows.schema).alias("user_id"))["user_id"]
    broken = pl.when(pl.col(BROKEN).is_not_null()).then(pl.col(BROKEN))
    if policy.key is not None:
        mistaken = rows["user_id"].is_not_null() & ids.is_null()
        broken = broken.when(mistaken).then(pl.lit(unreadable("user_id")))
        ids = pseudonymise(ids, policy.key)
        rows = rows.with_columns(ids)
    broken = broken.when(on_denylist(ids, policy.denylist)).then(pl.lit(FORGOTTEN_USER))
    rows = rows.with_columns(broken.alias(BROKEN))
    whole = pl.col(BROKEN).is_null()
    return rows.with_columns(
        pl.when(whole).then(pl.col("user_id")),
        pl.when(~whole).then(pl.lit(WITHHELD)).alias(LINE),
    )
