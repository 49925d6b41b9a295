"""Keyed hashing of user ids: without the key the lake's rows name no user.

A lake holds either plain ids or ids that were hashed with one key, never both: otherwise each user
would become two. The first ingest records which it is, beside the tables; later ones check it.
"""

import hmac
from collections.abc import Callable
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from recsys_core.artifacts import read_json, write_json
from recsys_core.data.schema import SOURCES

MIN_KEY_BYTES = 16
PSEUDONYM_BYTES = 16

_RECORD = "user_ids.json"
_PLAIN = "plain"
_CHECKED_TEXT = b"recdistill: is this the key of this lake?"


class PseudonymError(ValueError):
    """The key is missing, too short, or not the one that the lake's user ids were hashed with."""


def pseudonymise(ids: pl.Series, key: bytes) -> pl.Series:
    """Ids as the first 128 bits of their HMAC-SHA256, in hexadecimal; null stays null.

    Args:
        ids: Strings.
        key: At least `MIN_KEY_BYTES` bytes.

    Raises:
        PseudonymError: The key is too short.

    Example:
        >>> pseudonymise(pl.Series(["anna", None]), b"0123456789abcdef").to_list()
        ['b7a04172e11eaea238a11b25b8cf06e7', None]

    Source: RFC 2104.
    """
    sign = _hmac_sha256(key)
    distinct = ids.drop_nulls().unique()
    hashes = pl.Series([sign(text.encode()) for text in distinct], dtype=pl.Binary)
    table = pl.DataFrame({"id": distinct, "pseudonym": hashes.bin.encode("hex")})
    rows = ids.alias("id").to_frame()
    return rows.join(table, on="id", how="left", maintain_order="left")["pseudonym"].alias(ids.name)


def check_key(lake: Path, key: bytes | None) -> None:
    """Refuse a key other than the lake's, or a missing key; an empty lake accepts any.

    Args:
        lake: Folder of the tables.
        key: The key for user ids; None leaves them as they are.

    Raises:
        PseudonymError: Every user would be in the lake under two ids, or the key is too short.
    """
    recorded = _recorded(lake)
    if recorded in (None, _check_value(key)):
        return
    if recorded == _PLAIN:
        problem = "holds user ids as they are, and source.hash_user_ids asks to hash them"
        remedy = "Leave the setting out"
    elif key is None:
        problem = "holds hashed user ids, and source.hash_user_ids is not set"
        remedy = "Set it to the environment variable that holds the key"
    else:
        problem = "holds user ids that were hashed with another key"
        remedy = "Give the key of the first night"
    msg = (
        f"The lake {lake} {problem}: every user would be there twice. {remedy}, or set another "
        "workspace to begin anew."
    )
    raise PseudonymError(msg)


def claim_key(lake: Path, key: bytes | None) -> None:
    """Check the key, and record a check value where the lake is still empty.

    The check value tells whether a key is the same one; the key can't be computed from it.

    Raises:
        PseudonymError: As in `check_key`.
    """
    check_key(lake, key)
    if _recorded(lake) is None:
        write_json(lake / _RECORD, {"check": _check_value(key)})


def _check_value(key: bytes | None) -> str:
    return _PLAIN if key is None else _hmac_sha256(key)(_CHECKED_TEXT).hex()


def _recorded(lake: Path) -> str | None:
    """The check value of the lake's key, `_PLAIN` for plain ids; None while the lake is empty."""
    if not _has_sources(lake):
        return None
    path = lake / _RECORD
    return read_json(path)["check"] if path.exists() else _PLAIN


def _has_sources(lake: Path) -> bool:
    path = str(lake / SOURCES.name)
    return DeltaTable.is_deltatable(path) and bool(
        pl.scan_delta(path).select(pl.len()).collect().item()
    )


def _hmac_sha256(key: bytes) -> Callable[[bytes], bytes]:
    """A function that gives the first bytes of a message's HMAC-SHA256."""
    if len(key) < MIN_KEY_BYTES:
        msg = (
            f"The key for user ids has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed, or "
            "it could be guessed. Use a random one, for example from `openssl rand -hex 32`."
        )
        raise PseudonymError(msg)
    keyed = hmac.new(key, digestmod="sha256")

    def sign(message: bytes) -> bytes:
        code = keyed.copy()
        code.update(message)
        return code.digest()[:PSEUDONYM_BYTES]

    return sign
