"""What the tools we build on are told by environment variables, unless the user said otherwise."""

import os
from collections.abc import Mapping
from pathlib import Path


def default_environment(workspace: Path) -> Mapping[str, str]:
    """Telemetry off, everything inside the workspace, crashed runs noticed.

    Args:
        workspace: Folder of everything that nights write.
    """
    return {
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PREFECT_HOME": str(workspace.resolve() / "prefect"),
        # A busy machine may take longer to start a server than the 20 s that Prefect waits.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # Threads that wait by spinning make training several times slower beside another job.
        "OMP_WAIT_POLICY": "PASSIVE",
        # A run whose heartbeat stops is marked as crashed and frees its slot for the next night.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }


def set_default_environment(workspace: Path) -> None:
    """Apply the defaults; must come before Prefect, MLflow or Great Expectations is imported."""
    for name, value in default_environment(workspace).items():
        os.environ.setdefault(name, value)
    # Prefect makes its own folder, but not the one around it.
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
