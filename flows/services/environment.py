"""Defaults of environment variables that Prefect, MLflow and other libraries read."""

import os
from collections.abc import Mapping
from pathlib import Path

from tasks.telemetry import TELEMETRY_OFF


def default_environment(workspace: Path) -> Mapping[str, str]:
    """Variables that switch telemetry off, keep files in the workspace and detect crashed runs.

    Args:
        workspace: Folder of everything that nights write.
    """
    return {
        **TELEMETRY_OFF,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PREFECT_HOME": str(workspace.resolve() / "prefect"),
        # A busy machine may take longer to start a server than the 20 s that Prefect waits.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # Between two operations a thread spins for some microseconds before it sleeps. Without
        # that, waking it costs half of a small network's step; spinning for longer (the default)
        # makes training several times slower beside another job. A passive thread would not spin
        # where there are more threads than processors.
        "OMP_WAIT_POLICY": "ACTIVE",
        "GOMP_SPINCOUNT": "1000",  # GNU's library
        "KMP_BLOCKTIME": "1",  # LLVM's and Intel's, in milliseconds
        # A run whose heartbeat stops is marked as crashed and frees its slot for the next night.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }


def set_default_environment(workspace: Path) -> None:
    """Set the variables that the user has not set.

    Call it before Prefect, MLflow or Great Expectations is imported, which read it then.
    """
    for name, value in default_environment(workspace).items():
        os.environ.setdefault(name, value)
    # Prefect makes its own folder, but not the one around it.
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
