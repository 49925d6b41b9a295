"""Defaults of the environment: telemetry is off, and a value that the user has set wins."""

import os
from pathlib import Path

import pytest

from flows.services.environment import default_environment, set_default_environment

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
TELEMETRY_ON = {
    "DO_NOT_TRACK": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "true",
    "MLFLOW_DISABLE_TELEMETRY": "false",
    "GX_ANALYTICS_ENABLED": "true",
    "HF_HUB_DISABLE_TELEMETRY": "0",
}


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A workspace, in an environment without any of the variables; it is restored afterwards."""
    for name in default_environment(tmp_path):
        monkeypatch.setenv(name, "restored")  # also where it is not set: what a test sets goes
        monkeypatch.delenv(name)
    return tmp_path / "workspace"


def test_telemetry_is_off_by_default(workspace: Path) -> None:
    set_default_environment(workspace)
    assert {name: os.environ.get(name) for name in TELEMETRY_OFF} == TELEMETRY_OFF


@pytest.mark.parametrize("name", sorted(TELEMETRY_ON))
def test_a_users_own_value_wins(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, TELEMETRY_ON[name])
    set_default_environment(workspace)
    expected = TELEMETRY_OFF | {name: TELEMETRY_ON[name]}
    assert {name: os.environ.get(name) for name in expected} == expected


def test_prefect_keeps_its_files_in_the_workspace(workspace: Path) -> None:
    set_default_environment(workspace)
    assert os.environ["PREFECT_HOME"] == str(workspace.resolve() / "prefect")
    assert (workspace / "prefect").is_dir()


def test_prefect_keeps_its_files_where_the_user_wants_them(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "own" / "prefect"))
    set_default_environment(workspace)
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "own" / "prefect")
    assert (tmp_path / "own" / "prefect").is_dir()
    assert not workspace.exists()
