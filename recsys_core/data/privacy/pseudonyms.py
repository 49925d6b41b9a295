"""Keyed hashing of user ids: who lacks the key can't tell whose rows the lake holds.

A lake holds either plain ids or those of one key, never both: a user would become two. What it
holds is recorded beside its tables when the first file comes, and checked ever after.
"""

import hashlib
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
_BLOCK_BYTES = 64
_INNER_PAD, _OUTER_PAD = 0x36, 0x5C


class PseudonymError(ValueError):
    """The key can't be used, or is not the one that the lake's user ids were hashed with."""


def pseudonymise(ids: pl.Series, key: bytes) -> pl.Series:
    """Ids as the first 128 bits of their HMAC-SHA256, in hexadecimal; null stays null.

    Args:
        ids: Strings.
        key: At least `MIN_KEY_BYTES` bytes.

    Raises:
        PseudonymError: The key is too short.

    Source: RFC 2104.
    """
    sign = _hmac_sha256(key)
    distinct = ids.drop_nulls().unique()
    hashes = pl.Series([sign(text.encode()) for text in distinct], dtype=pl.Binary)
    table = pl.DataFrame({"id": distinct, "pseudonym": hashes.bin.encode("hex")})
    rows = ids.alias("id").to_frame()
    return rows.join(table, on="id", how="left", maintain_order="left")["pseudonym"].alias(ids.name)


def check_key(lake: Path, key: bytes | None) -> None:
    """Refuse a key that is not the lake's, or none where it has one; an empty lake takes any.

    Args:
        lake: Folder of the tables.
        key: What user ids are to be hashed with; None leaves them as they are.

    Raises:
        PseudonymError: It would split every user in two, or the key is too short.
    """
    wanted = _PLAIN if key is None else _hmac_sha256(key)(_CHECKED_TEXT).hex()
    found = _recorded(lake)
    if found in (None, wanted):
        return
    if found == _PLAIN:
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
    """Check the key, and record it for a lake that holds nothing yet; before the first file.

    What is recorded tells whether a key is the same, not the key itself.

    Raises:
        PseudonymError: As in `check_key`.
    """
    check_key(lake, key)
    if _recorded(lake) is None:
        check = _PLAIN if key is None else _hmac_sha256(key)(_CHECKED_TEXT).hex()
        write_json(lake / _RECORD, {"check": check})


def _recorded(lake: Path) -> str | None:
    """What the lake's ids are; None while it holds nothing."""
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
    """The first bytes of HMAC-SHA256. The keyed states are copied, which `hmac.digest` can't do."""
    if len(key) < MIN_KEY_BYTES:
        msg = (
            f"The key for user ids has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed, or "
            "it could be guessed. Take a random one, for example from `openssl rand -hex 32`."
        )
        raise PseudonymError(msg)
    short = key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()
    padded = short.ljust(_BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(bytes(byte ^ _INNER_PAD for byte in padded))
    outer = hashlib.sha256(bytes(byte ^ _OUTER_PAD for byte in padded))

    def sign(message: bytes) -> bytes:
        within, around = inner.copy(), outer.copy()
        within.update(message)
        around.update(within.digest())
        return around.digest()[:PSEUDONYM_BYTES]

    return sign
