"""The services around the nights: Prefect server with its UI, MLflow server, a worker."""

import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from prefect.client.orchestration import SyncPrefectClient

from flows.config import NightlyConfig
from flows.services import prefect_admin
from flows.services.environment import default_environment
from flows.services.process import LOOPBACK, Service, require_free_port

_ANSWER_SECONDS = 5
_PREFECT = "Prefect server"
_MLFLOW = "MLflow server"
_WORKER = "worker"


@dataclass(frozen=True)
class Status:
    """State of a service after `up`.

    Attributes:
        title: Name in messages.
        url: Its address; None for the worker.
        log: The file that takes what it prints.
        started: Whether this command started it.
    """

    title: str
    url: str | None
    log: Path
    started: bool


@dataclass(frozen=True)
class Services:
    """The result of `up`.

    Attributes:
        services: One status per service.
        crashed: Names of runs whose process is gone, now marked as crashed.
        next_night: When the scheduler will start the next one.
    """

    services: list[Status]
    crashed: list[str]
    next_night: datetime


def up(
    config: NightlyConfig, *, prefect_port: int, mlflow_port: int, cron: str | None = None
) -> Services:
    """Start the missing services, create the deployments and wait until everything is healthy.

    Nights run in the current directory.

    Args:
        config: The default configuration of nights.
        prefect_port: Port for a new Prefect server.
        mlflow_port: Port for a new MLflow server.
        cron: When nights start; None for 02:30.

    Raises:
        ServiceError: A port is taken, or a service died or did not answer. The services that this
            call started are stopped again.
    """
    workspace = config.workspace.resolve()
    prefect, mlflow, worker = all_services(workspace)
    already_running = [service for service in (prefect, mlflow, worker) if service.running]
    if prefect not in already_running:
        require_free_port(prefect_port, title=_PREFECT, option="--prefect-port")
    if mlflow not in already_running:
        require_free_port(mlflow_port, title=_MLFLOW, option="--mlflow-port")
    try:
        if prefect not in already_running:
            _start_prefect(prefect, prefect_port)
        if mlflow not in already_running:
            _start_mlflow(mlflow, mlflow_port)
        prefect.wait(lambda: _answers(f"{prefect.url}/api/health"))
        crashed, night = _prepare_nights(config, cron, prefect, worker)
        mlflow.wait(lambda: _answers(f"{mlflow.url}/health"))
    except BaseException:
        for service in (worker, mlflow, prefect):
            if service not in already_running:
                service.stop()
        raise
    statuses = [
        Status(service.title, service.url, service.log, service not in already_running)
        for service in (prefect, mlflow, worker)
    ]
    return Services(statuses, crashed, night)


def down(workspace: Path) -> list[str]:
    """Stop the services that `up` started in this workspace, and runs of its worker.

    Returns:
        The titles of the services that were running.
    """
    prefect, mlflow, worker = all_services(workspace.resolve())
    stopped = [worker.title] if worker.stop() else []
    if prefect.running and _answers(f"{prefect.url}/api/health"):
        with SyncPrefectClient(f"{prefect.url}/api") as client:
            prefect_admin.crash_orphans(client, workspace)
    stopped += [service.title for service in (mlflow, prefect) if service.stop()]
    return stopped


def all_services(workspace: Path) -> tuple[Service, Service, Service]:
    """Prefect server, MLflow server and worker of a workspace, running or not.

    Args:
        workspace: Absolute.
    """
    return (
        Service(workspace, "prefect", _PREFECT),
        Service(workspace, "mlflow", _MLFLOW),
        Service(workspace, "worker", _WORKER),
    )


def _prepare_nights(
    config: NightlyConfig, cron: str | None, prefect: Service, worker: Service
) -> tuple[list[str], datetime]:
    """Worker, deployments and the automation; returns crashed runs and the next night's time."""
    workspace = prefect.workspace
    api = f"{prefect.url}/api"
    environment = _environment(workspace) | {"PREFECT_API_URL": api}
    crashed: list[str] = []
    with SyncPrefectClient(api) as client:
        prefect_admin.create_work_pool(client)
        prefect_admin.create_automation(
            client, heartbeat_seconds=int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
        )
        starts = not worker.running
        # The name is new each time: that of a worker that was killed seems online for a while.
        name = f"worker-{uuid4().hex[:8]}"
        if starts:
            crashed = prefect_admin.crash_orphans(client, workspace)
            _start_worker(worker, name, environment)
        prefect_admin.deploy(
            config,
            cron=cron,
            folder=workspace / "services",
            log=workspace / "logs" / "deploy.log",
            environment=environment,
        )
        if starts:
            worker.wait(lambda: prefect_admin.worker_online(client, name))
        # A server can look healthy and yet never plan a run: only a planned one is proof.
        prefect.wait(lambda: prefect_admin.next_night(client) is not None)
        night = prefect_admin.next_night(client)
        assert night is not None
        return crashed, night


def _start_worker(service: Service, name: str, environment: dict[str, str]) -> None:
    command = ["prefect", "--no-prompt", "worker", "start", "--pool", prefect_admin.POOL]
    options = ["--type", "process", "--name", name]
    service.start([sys.executable, "-m", *command, *options], environment)


def _start_prefect(service: Service, port: int) -> None:
    url = f"http://{LOOPBACK}:{port}"
    command = ["prefect", "--no-prompt", "server", "start", "--host", LOOPBACK, "--port", str(port)]
    environment = _environment(service.workspace) | {"PREFECT_API_URL": f"{url}/api"}
    service.start([sys.executable, "-m", *command], environment, url=url)


def _start_mlflow(service: Service, port: int) -> None:
    artifacts = str(service.workspace / "mlartifacts")
    command = ["mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    stores = {
        "--backend-store-uri": f"sqlite:///{service.workspace / 'mlflow.db'}",
        "--default-artifact-root": artifacts,
        "--artifacts-destination": artifacts,
    }
    service.start(
        [sys.executable, "-m", *command, *(part for option in stores.items() for part in option)],
        _environment(service.workspace) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        url=f"http://{LOOPBACK}:{port}",
    )


def _environment(workspace: Path) -> dict[str, str]:
    return {**default_environment(workspace), **os.environ}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - http
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
