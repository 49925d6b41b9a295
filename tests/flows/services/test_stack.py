"""Background processes, and what the Prefect server is told; the servers themselves are e2e."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import is_valid_schema, validate

from flows.backfill import backfill
from flows.config import NightlyConfig, SyntheticSource
from flows.nightly import nightly
from flows.services.prefect_admin import deployments
from flows.services.process import Service, ServiceError, require_free_port
from recsys_core.artifacts import write_json
from recsys_core.data.sources.config import SourceConfig

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
    " start_new_session=True);"
    "print('ready', flush=True); time.sleep(60)",
]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, "sleeper", "sleeping service")
    yield service
    service.stop()


@pytest.fixture
def start(service: Service) -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    children: list[subprocess.Popen[bytes]] = []

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        children.append(service.start(command, os.environ, url="http://127.0.0.1:1"))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()


def test_another_command_finds_a_service_and_stops_it(service, start) -> None:
    child = start(SLEEPER)
    again = Service(service.workspace, "sleeper", "sleeping service")
    assert again.running is not None
    assert again.running.pid == child.pid
    assert again.url == "http://127.0.0.1:1"
    assert again.stop()
    assert not psutil.pid_exists(child.pid) or psutil.Process(child.pid).status() == "zombie"
    assert service.running is None
    assert not again.stop()


def test_stopping_reaches_children_in_other_sessions(service, start) -> None:
    child = start(PARENT)
    service.wait(lambda: "ready" in service.log.read_text())
    (grandchild,) = psutil.Process(child.pid).children()
    service.stop()
    assert not grandchild.is_running()


def test_stopping_reaches_children_of_a_parent_that_was_killed(service, start) -> None:
    child = start(PARENT)
    service.wait(lambda: "ready" in service.log.read_text())
    (grandchild,) = psutil.Process(child.pid).children()
    child.kill()
    child.wait()
    assert service.running is None
    assert grandchild.is_running()
    assert service.stop()
    assert not grandchild.is_running()


def test_a_process_that_got_the_same_id_is_left_alone(service, tmp_path: Path) -> None:
    with subprocess.Popen(SLEEPER) as stranger:
        try:
            created = psutil.Process(stranger.pid).create_time() - 100
            record = {"pid": stranger.pid, "created": created, "url": None}
            write_json(tmp_path / "services" / "sleeper.json", record)
            assert service.running is None
            assert not service.stop()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_the_same_service_of_another_workspace_is_left_alone(service, start, tmp_path) -> None:
    child = start(SLEEPER)
    other = Service(tmp_path / "other", "sleeper", "sleeping service")
    assert not other.stop()
    assert child.poll() is None


def test_a_service_that_dies_shows_its_last_words(service, start) -> None:
    start([sys.executable, "-c", "raise SystemExit('the database is newer than the program')"])
    with pytest.raises(ServiceError, match="sleeping service ended") as failure:
        service.wait(lambda: False)
    assert "the database is newer than the program" in str(failure.value)
    assert str(service.log) in str(failure.value)


def test_a_service_that_never_gets_healthy_is_given_up(service, start) -> None:
    start(SLEEPER)
    began = time.monotonic()
    with pytest.raises(ServiceError, match="not healthy after 1 s"):
        service.wait(lambda: False, timeout_seconds=1)
    assert time.monotonic() - began < 30


def test_the_log_of_the_start_before_is_kept(service, start) -> None:
    for word in ("first", "second"):
        start([sys.executable, "-c", f"print('{word}', flush=True); import time; time.sleep(60)"])
        service.wait(lambda word=word: word in service.log.read_text())
        service.stop()
    assert service.log.with_suffix(".previous.log").read_text().strip() == "first"


def test_a_taken_port_is_named_together_with_the_option() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"{port}.*MLflow server.*--mlflow-port"):
            require_free_port(port, title="MLflow server", option="--mlflow-port")
    require_free_port(port, title="MLflow server", option="--mlflow-port")


def test_deployments_carry_configuration_and_time_zone() -> None:
    config = NightlyConfig(
        name="shop", source=SourceConfig(interactions=Path("x.csv"), timezone="Europe/Berlin")
    )
    scheduled, on_demand, again = deployments(config)["deployments"]
    assert scheduled["schedules"] == [
        {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "active": True}
    ]
    assert "schedules" not in on_demand | again
    (early, *_) = deployments(config, cron="0 1 * * *")["deployments"]
    assert early["schedules"][0]["cron"] == "0 1 * * *"
    flows = ((scheduled, nightly), (on_demand, nightly), (again, backfill))
    for deployment, flow in flows:
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        assert NightlyConfig.model_validate(deployment["parameters"]["config"]) == config
        assert load_flow_from_entrypoint(deployment["entrypoint"]) is flow


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    """What the Prefect UI makes its form of, and the server checks parameters with."""
    return parameter_schema(nightly).model_dump_for_openapi()


def test_the_form_is_a_valid_schema_that_accepts_the_defaults(form) -> None:
    is_valid_schema(form)
    defaults = NightlyConfig(synthetic=SyntheticSource()).model_dump(mode="json")
    assert validate({"config": defaults, "run_date": "2026-01-02"}, form) == []
    assert validate({"config": {"teacher": {"training": {"epochs": 1}}}}, form) == []


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"teacher": {"training": {"epochs": 0}}}, "minimum"),
        ({"device": "tpu"}, "not one of"),
        ({"teachr": {}}, "teachr"),
    ],
)
def test_the_form_refuses_bad_values(form, config, complaint) -> None:
    (error,) = validate({"config": config}, form)
    assert complaint in error.message


def test_every_setting_in_the_form_is_described(form) -> None:
    silent = [
        f"{title}.{name}"
        for title, definition in form["definitions"].items()
        for name, setting in definition.get("properties", {}).items()
        if not setting.get("description")
    ]
    assert silent == []
