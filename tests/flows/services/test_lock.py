"""One night at a time in a workspace."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.services.lock import WorkspaceBusyError, workspace_lock

HOLD = """
import sys, time
from pathlib import Path
from flows.services.lock import workspace_lock
with workspace_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    workspace = tmp_path / "new" / "workspace"
    with workspace_lock(workspace):
        with (
            pytest.raises(
                WorkspaceBusyError, match=rf"at work in .* \(process {os.getpid()}\)\. Wait"
            ),
            workspace_lock(workspace),
        ):
            pytest.fail("two nights in one workspace")
        with workspace_lock(tmp_path / "other"):
            pass
    with workspace_lock(workspace):
        pass


def test_an_error_inside_frees_the_workspace(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), workspace_lock(tmp_path):
        raise ZeroDivisionError
    with workspace_lock(tmp_path):
        assert (tmp_path / "night.lock").read_text() == str(os.getpid())


def test_a_killed_holder_frees_the_workspace(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(WorkspaceBusyError, match=rf"\(process {holder.pid}\)"),
            workspace_lock(tmp_path),
        ):
            pytest.fail("two nights in one workspace")
        holder.send_signal(signal.SIGKILL)
    with workspace_lock(tmp_path):
        pass
