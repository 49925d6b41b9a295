"""User ids before a row is checked: hashed where that is set, withheld where somebody is forgotten.

Judging comes after, so what is refused reaches the quarantine without the plain id.
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
    """How users are shielded.

    Attributes:
        key: What user ids are hashed with; None leaves them as they are.
        denylist: Whose rows are refused.
    """

    key: bytes | None = None
    denylist: Denylist = field(default_factory=Denylist)


KEEP_USER_IDS = UserIdPolicy()


def apply_user_id_policy(raw: pl.DataFrame, policy: UserIdPolicy, *, source: str) -> pl.DataFrame:
    """Raw rows with user ids as the lake may hold them.

    Rows of forgotten users become broken, and the text of broken rows is withheld: whose it is
    can't be told. Without a key and a forgotten user all stays as it is.

    Args:
        raw: A chunk from `read_chunks`.
        policy: What to do.
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
