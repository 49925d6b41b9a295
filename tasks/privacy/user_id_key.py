"""The key for hashing user ids, which is read from the environment only."""

import os

from recsys_core.data.privacy.pseudonyms import PseudonymError


def user_id_key(variable: str | None) -> bytes | None:
    """The key, or None if ids stay as they are.

    Args:
        variable: The setting `source.hash_user_ids`.

    Raises:
        PseudonymError: The variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        msg = (
            f"source.hash_user_ids names the environment variable {variable}, which is not set: "
            "without the key no user can be told from another. Set it wherever nights run, at "
            "first to a random text, for example of `openssl rand -hex 32`; and keep that text, "
            "the lake is useless without it."
        )
        raise PseudonymError(msg)
    return key.encode()
