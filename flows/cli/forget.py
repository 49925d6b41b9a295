"""Erasing a user from a configured workspace.

This is no Prefect flow, because Prefect would store the id among the parameters of the run.
"""

from pathlib import Path

import polars as pl

from flows.cli.output import today
from flows.config import NightlyConfig
from flows.services.lock import workspace_lock
from recsys_core.data.lake.tables import require_lake
from recsys_core.data.privacy.pseudonyms import check_key, pseudonymise
from recsys_core.settings import Progress, silent
from tasks.privacy.forget import UserTraces, find_user, forget_user
from tasks.privacy.user_id_key import user_id_key


def look(config: NightlyConfig, user_id: str) -> UserTraces:
    """The rows and models that the workspace has of a user.

    Args:
        config: Gives the workspace, the registry and the key for user ids.
        user_id: As the source spells it.

    Raises:
        NoLakeError: Nothing has been ingested yet.
        PseudonymError: The key for user ids is missing, or it is not the lake's key.
    """
    known_as = _known_as(config, user_id)
    return find_user(config.workspace, known_as, name=config.name, registry=config.registry)


def forget(config: NightlyConfig, user_id: str, *, progress: Progress = silent) -> Path:
    """Erase a user, see `tasks.privacy.forget.forget_user`; also raises the errors of `look`.

    Returns:
        Path of the record of the user's traces.

    Raises:
        WorkspaceBusyError: A night is running.
    """
    known_as = _known_as(config, user_id)
    with workspace_lock(config.workspace):
        return forget_user(
            config.workspace,
            known_as,
            name=config.name,
            registry=config.registry,
            today=today(config.events.timezone),
            progress=progress,
        )


def _known_as(config: NightlyConfig, user_id: str) -> str:
    """The user's id as the lake stores it: hashed if the lake holds hashed ids."""
    lake = config.workspace / "lake"
    require_lake(lake)
    key = user_id_key(config.events.hash_user_ids)
    check_key(lake, key)
    return user_id if key is None else pseudonymise(pl.Series([user_id]), key).item()
