"""Set-up of the Prefect server: work pool, automation, deployments; marks dead runs as crashed."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Crashed

from flows.config import NightlyConfig
from flows.services.lock import WorkspaceBusyError, workspace_lock
from flows.services.process import ServiceError

POOL = "recdistill"
MISSED_HEARTBEATS = 3
_AUTOMATION = "recdistill: a night without heartbeats has crashed"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
_AT_WORK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


def create_work_pool(client: SyncPrefectClient) -> None:
    """Create the work pool that the worker serves, unless it exists."""
    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    except ObjectAlreadyExists:
        return


def worker_online(client: SyncPrefectClient, name: str) -> bool:
    """Whether the worker of this name is polling for runs."""
    online = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    workers = client.read_workers_for_work_pool(POOL, worker_filter=online)
    return name in {worker.name for worker in workers}


def create_automation(client: SyncPrefectClient, *, heartbeat_seconds: int) -> None:
    """Create the automation that marks runs without heartbeats as crashed.

    Without it, a run that was killed together with its worker stays Running and holds the
    concurrency slot, so that every later night is cancelled.

    Args:
        client: Of the server.
        heartbeat_seconds: Time between two heartbeats.
    """
    within = timedelta(seconds=MISSED_HEARTBEATS * heartbeat_seconds)
    for existing in client.read_automations_by_name(_AUTOMATION):
        if getattr(existing.trigger, "within", None) == within:
            return
        client.delete_automation(existing.id)
    client.create_automation(
        AutomationCore(
            name=_AUTOMATION,
            description=f"Marks runs as crashed that missed {MISSED_HEARTBEATS} heartbeats.",
            trigger=EventTrigger(
                after={_HEARTBEAT},
                expect={_HEARTBEAT, *(f"prefect.flow-run.{end}" for end in _ENDS)},
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=within,
            ),
            actions=[
                ChangeFlowRunState(
                    name="Crashed",
                    state=StateType.CRASHED,
                    message=f"No sign of life for {within.seconds} seconds.",
                    force=False,
                )
            ],
        )
    )


def crash_orphans(client: SyncPrefectClient, workspace: Path) -> list[str]:
    """Mark runs as crashed whose process is gone. Call it while no worker of the workspace runs.

    Args:
        client: Of the server.
        workspace: Folder of everything that nights write.

    Returns:
        The runs' names.
    """
    at_work = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_AT_WORK)))
    )
    busy = _busy(workspace)
    orphans = [
        run for run in client.read_flow_runs(flow_run_filter=at_work) if not _alive(run, busy=busy)
    ]
    for run in orphans:
        ended = Crashed(message="The run's process is gone.")
        client.set_flow_run_state(run.id, ended, force=True)
    return [run.name for run in orphans]


def deploy(
    config: NightlyConfig,
    *,
    cron: str | None,
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
) -> None:
    """Create or update the deployments of `prefect.yaml`; runs work in the current directory.

    Args:
        config: The default configuration of nights.
        cron: When nights start; None for the time in `prefect.yaml`.
        folder: Folder for the completed prefect.yaml.
        log: The file that takes what `prefect deploy` prints.
        environment: All of its environment; names the server.

    Raises:
        ServiceError: `prefect deploy` failed.
    """
    completed = folder / "prefect.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    completed.write_text(
        yaml.safe_dump(deployments(config, cron=cron), sort_keys=False), encoding="utf-8"
    )
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    answer = subprocess.run(  # noqa: S603 - the command is our own
        [*command, "--prefect-file", str(completed)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        text=True,
        check=False,
    )
    log.write_text(answer.stdout, encoding="utf-8")
    if answer.returncode:
        msg = f"The deployments could not be created; {log} ends with:\n{answer.stdout[-2000:]}"
        raise ServiceError(msg)


def deployments(config: NightlyConfig, *, cron: str | None = None) -> dict[str, Any]:
    """The content of `prefect.yaml` with parameters and schedule filled in.

    Args:
        config: The parameters of every deployment; its source gives the schedule's time zone.
        cron: When nights start; None for the time in the file.
    """
    template = files("flows.services") / "prefect.yaml"
    content = yaml.safe_load(template.read_text(encoding="utf-8"))
    # Without the anchors: YAML would write them once more as aliases of our shared objects.
    content.pop("definitions")
    for deployment in content["deployments"]:
        deployment["parameters"] = {"config": config.model_dump(mode="json")}
        for schedule in deployment.get("schedules", []):
            schedule["timezone"] = config.events.timezone
            schedule["cron"] = cron or schedule["cron"]
    return content


def next_night(client: SyncPrefectClient) -> datetime | None:
    """When the scheduler will start the next night; None where it has planned none."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        ),
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=["nightly"])),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=1,
    )
    return runs[0].expected_start_time if runs else None


def _busy(workspace: Path) -> bool:
    try:
        with workspace_lock(workspace):
            return False
    except WorkspaceBusyError:
        return True


def _alive(run: FlowRun, *, busy: bool) -> bool:
    """Whether a run's process lives; `busy` decides for runs that no worker started."""
    if run.infrastructure_pid is None:
        return busy and run.work_pool_name is None
    try:
        return "prefect" in " ".join(psutil.Process(int(run.infrastructure_pid)).cmdline())
    except (ValueError, psutil.Error):
        return False
