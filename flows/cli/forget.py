"""Forgetting a user of a configured workspace.

No Prefect flow: the id would be kept among the parameters of the run.
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
    """What the workspace holds of a user.

    Args:
        config: Names the workspace, the registry and the key for user ids.
        user_id: As the source spells it.

    Raises:
        NoLakeError: Nothing was ingested yet.
        PseudonymError: The key for user ids is missing, or not the lake's.
    """
    known_as = _known_as(config, user_id)
    return find_user(config.workspace, known_as, name=config.name, registry=config.registry)


def forget(config: NightlyConfig, user_id: str, *, progress: Progress = silent) -> Path:
    """Erase a user; see `tasks.privacy.forget.forget_user`. Raises as `look` does.

    Returns:
        The record of what was found.

    Raises:
        WorkspaceBusyError: A night is at work.
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
    """The user as the lake spells it."""
    lake = config.workspace / "lake"
    require_lake(lake)
    key = user_id_key(config.events.hash_user_ids)
    check_key(lake, key)
    return user_id if key is None else pseudonymise(pl.Series([user_id]), key).item()
