"""The lock of a workspace: one run at a time, however it was started.

It covers the whole run, with the files outside of the lake. Commits to the lake check the version
as well, see `recsys_core.data.lake.commits`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WorkspaceBusyError(RuntimeError):
    """Another run holds the lock of the workspace."""


@contextmanager
def workspace_lock(workspace: Path) -> Iterator[None]:
    """Hold the lock; the operating system releases it when the process ends, even after a kill.

    Raises:
        WorkspaceBusyError: Another process holds it.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    path = workspace / "night.lock"
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            msg = (
                f"Another night is at work in {workspace.resolve()} (process {owner}). Wait for it "
                "to end, or choose another workspace."
            )
            raise WorkspaceBusyError(msg) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
