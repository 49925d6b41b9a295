"""The installed program `recdistill`, called as its users call it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


def recdistill(folder: Path, *arguments: str, program: Path | None = None) -> str:
    """Run the program in a folder, with none of this process's own settings.

    Args:
        folder: Where the command is called.
        arguments: As on the command line.
        program: None for that of the environment that runs the tests.

    Returns:
        What it printed; the test fails if the command does.
    """
    done = subprocess.run(
        [program or Path(sys.executable).with_name("recdistill"), *arguments],
        cwd=folder,
        env=outside_environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outside_environment() -> Mapping[str, str]:
    """The environment of a terminal: nothing that this process set for Prefect and MLflow."""
    private = ("PREFECT_", "MLFLOW_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    return {
        **inherited,
        # The worker asks for due runs this often, and the scheduler looks for schedules to plan.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
    }


def wait_until(condition: Callable[[], T | None], *, seconds: float, what: str) -> T:
    """What the condition returns once that is true; the test fails when time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.5)
    pytest.fail(f"After {seconds} s there is no {what}")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
