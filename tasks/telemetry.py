"""Telemetry of libraries: off, unless the environment says otherwise."""

import os

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def switch_off_telemetry() -> None:
    """Set the variables that the user has not set; call it before the libraries are imported."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)
