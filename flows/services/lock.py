"""One night at a time in a workspace, whoever starts it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WorkspaceBusyError(RuntimeError):
    """Another night is at work in the same workspace."""


@contextmanager
def workspace_lock(workspace: Path) -> Iterator[None]:
    """Hold the workspace; the operating system frees it when the process ends, however it ends.

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
