"""The schedule with real servers: what `recdistill up` promises, killed runs included.

The tests build on one another, in this order, since starting everything takes longest.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Pending, Scheduled

from tests.e2e.command_line import free_port, recdistill, wait_until

pytestmark = pytest.mark.slow

# One epoch over 60 users: too little to beat popularity.
CONFIG = """
[teacher_check]
enabled = false
[synthetic]
days = 8
[synthetic.world]
n_users = 60
n_items = 40
n_categories = 4
[prepare]
n_buckets = 1
[teacher.model]
embedding_dim = 16
n_layers = 1
ffn_dim = 16
max_length = 16
[teacher.training]
epochs = 1
[student.model]
embedding_dim = 16
n_layers = 1
ffn_dim = 16
max_length = 16
[student.training]
epochs = 1
[compression.recovery]
epochs = 1
"""
NIGHT_SECONDS = 120
MISSED_HEARTBEATS_SECONDS = 90


@dataclass(frozen=True)
class Stack:
    """All services of a workspace, and how to talk to them."""

    folder: Path
    ports: tuple[int, int]
    client: SyncPrefectClient

    def up(self) -> str:
        prefect, mlflow = map(str, self.ports)
        ports = ("--prefect-port", prefect, "--mlflow-port", mlflow)
        return recdistill(self.folder, "up", "--config", "tiny.toml", *ports)

    def processes(self, service: str) -> list[psutil.Process]:
        """A service's process and all that it began."""
        record = json.loads((self.folder / f"workspace/services/{service}.json").read_text())
        leader = psutil.Process(record["pid"])
        return [leader, *leader.children(recursive=True)]

    def deployment(self, name: str) -> DeploymentResponse:
        return self.client.read_deployment_by_name(f"nightly/{name}")

    def run(self, deployment: str, *, start: datetime | None = None, **changes: Any) -> FlowRun:
        """Start a run with the form as it is filled in, apart from some settings of training."""
        target = self.deployment(deployment)
        config = json.loads(json.dumps(target.parameters["config"]))
        for network, training in changes.items():
            config[network]["training"] |= training
        return self.client.create_flow_run_from_deployment(
            target.id, parameters={"config": config}, state=Scheduled(scheduled_time=start)
        )

    def wait_for(self, run_id: UUID, *states: StateType, seconds: float = NIGHT_SECONDS) -> FlowRun:
        def arrived() -> FlowRun | None:
            run = self.client.read_flow_run(run_id)
            assert run.state is not None
            if run.state.is_final() and run.state.type not in states:
                pytest.fail(f"The run ended as {run.state!r}; {self.log('worker')}")
            return run if run.state.type in states else None

        return wait_until(arrived, seconds=seconds, what=f"run in {states}; {self.log('worker')}")

    def log(self, service: str) -> str:
        return (self.folder / f"workspace/logs/{service}.log").read_text()[-4000:]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("schedule")
    (folder / "tiny.toml").write_text(CONFIG)
    ports = free_port(), free_port()
    with SyncPrefectClient(f"http://127.0.0.1:{ports[0]}/api") as client:
        stack = Stack(folder, ports, client)
        try:
            yield stack
        finally:
            if (folder / "workspace/services/prefect.json").exists():
                recdistill(folder, "down")


def test_up_starts_and_deploys_everything(stack: Stack) -> None:
    printed = stack.up()
    prefect, mlflow = (f"http://127.0.0.1:{port}" for port in stack.ports)
    assert f"Prefect server: started at {prefect}" in printed
    assert f"MLflow server: started at {mlflow}" in printed
    assert "worker: started" in printed
    for page in (prefect, mlflow):
        with urlopen(page) as answer:
            assert answer.status == 200
    for address in listening(stack):
        assert address == "127.0.0.1"
    nightly, on_demand = stack.deployment("nightly"), stack.deployment("on-demand")
    assert nightly.parameters == on_demand.parameters
    assert nightly.parameters["config"]["synthetic"]["world"]["n_users"] == 60
    assert not on_demand.schedules


def test_the_scheduler_plans_the_next_night(stack: Stack) -> None:
    (planned, *_) = runs_of(stack, "nightly")
    assert planned.state_type == StateType.SCHEDULED
    assert planned.auto_scheduled
    start = planned_start(planned)
    assert (start.hour, start.minute) == (2, 30)
    assert timedelta(0) < start - datetime.now(UTC) <= timedelta(days=1)


def test_a_scheduled_night_runs_when_it_is_due(stack: Stack) -> None:
    nightly = stack.deployment("nightly")
    due = datetime.now(UTC) + timedelta(seconds=30)
    schedule = IntervalSchedule(interval=timedelta(days=2), anchor_date=due)
    (created,) = stack.client.create_deployment_schedules(nightly.id, [(schedule, True)])

    def planned() -> FlowRun | None:
        return {planned_start(run): run for run in runs_of(stack, "nightly")}.get(due)

    run = wait_until(planned, seconds=60, what="run planned by the scheduler")
    assert run.auto_scheduled
    done = stack.wait_for(run.id, StateType.COMPLETED)
    stack.client.delete_deployment_schedule(nightly.id, created.id)
    assert done.start_time is not None
    assert done.start_time >= due - timedelta(seconds=1)
    # It worked where `up` was called, as a night of the day that it was planned for.
    assert nights(stack) == [due.date().isoformat()]
    assert (stack.folder / "data/synthetic/items.parquet").exists()


def test_a_run_by_hand_takes_other_settings_and_another_day(stack: Stack) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    by_hand = stack.run("on-demand", start=yesterday, student={"epochs": 2})
    stack.wait_for(by_hand.id, StateType.COMPLETED)
    # Late as it is, it is the night that it was planned for, whatever the clock says.
    assert nights(stack)[0] == yesterday.date().isoformat()
    (manifest,) = (stack.folder / "workspace/nights").glob(f"{yesterday.date()}-*/night.json")
    config = json.loads(manifest.read_text())["config"]
    assert config["student"]["training"]["epochs"] == 2
    assert config["teacher"]["training"]["epochs"] == 1


def test_a_bad_setting_is_refused_before_anything_runs(stack: Stack) -> None:
    before = len(runs_of(stack, "on-demand"))
    with pytest.raises(PrefectHTTPStatusError) as refusal:
        stack.run("on-demand", teacher={"epochs": 0})
    message = refusal.value.response.json()["detail"]
    assert "config.teacher.training.epochs" in message
    assert "less than the minimum of 1" in message
    assert len(runs_of(stack, "on-demand")) == before


def test_a_killed_run_does_not_block_the_next_night(stack: Stack) -> None:
    killed = stack.run("nightly", teacher={"epochs": 1000, "patience": 1000})
    stack.wait_for(killed.id, StateType.RUNNING)
    wait_until(lambda: heartbeats(stack, killed), seconds=30, what="first heartbeat")
    # A worker that lives reports its runs' ends itself: the power fails for both.
    for process in stack.processes("worker"):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    # What a worker leaves behind that dies between taking a run and starting it.
    taken = stack.run("on-demand")
    assert propose_pending(stack, taken) == StateType.PENDING
    # The killed run holds its slot: nights that come now are cancelled.
    assert propose_pending(stack, stack.run("nightly")) == StateType.CANCELLED

    crashed = stack.wait_for(killed.id, StateType.CRASHED, seconds=MISSED_HEARTBEATS_SECONDS + 60)
    assert crashed.state is not None
    assert "No sign of life" in (crashed.state.message or "")

    printed = stack.up()
    assert "Prefect server: runs already" in printed
    assert "MLflow server: runs already" in printed
    assert "worker: started" in printed
    assert f"Run {taken.name} was found without a process" in printed
    assert stack.wait_for(taken.id, StateType.CRASHED)
    stack.wait_for(stack.run("nightly").id, StateType.COMPLETED)
    later = stack.run("on-demand", start=datetime.now(UTC) + timedelta(days=1))
    assert propose_pending(stack, later) == StateType.PENDING
    # No other run has been taken for dead, those included that ended a while ago.
    assert states(stack).count(StateType.CRASHED) == 2


def test_down_stops_everything_and_nothing_else(stack: Stack) -> None:
    ours = [p for service in ("prefect", "mlflow", "worker") for p in stack.processes(service)]
    assert len(ours) >= 3
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        printed = recdistill(stack.folder, "down")
        assert stranger.poll() is None
    assert printed.strip() == "Stopped: worker, MLflow server, Prefect server."
    assert [process for process in ours if process.is_running()] == []
    assert marked(stack.folder) == []
    assert recdistill(stack.folder, "down").strip() == "Nothing was running."


def runs_of(stack: Stack, deployment: str) -> list[FlowRun]:
    """A deployment's runs, the next planned first."""
    only = FlowRunFilterDeploymentId(any_=[stack.deployment(deployment).id])
    runs = stack.client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id=only))
    return sorted(runs, key=planned_start)


def planned_start(run: FlowRun) -> datetime:
    """When a run was planned to start, to the microsecond."""
    assert run.expected_start_time is not None
    return datetime.fromtimestamp(run.expected_start_time.timestamp(), UTC)


def propose_pending(stack: Stack, run: FlowRun) -> StateType:
    """What the server makes of a worker's wish to start a run."""
    state = stack.client.set_flow_run_state(run.id, Pending()).state
    assert state is not None
    return state.type


def states(stack: Stack) -> list[StateType | None]:
    """How all runs ended, or stand."""
    return [run.state_type for name in ("nightly", "on-demand") for run in runs_of(stack, name)]


def heartbeats(stack: Stack, run: FlowRun) -> bool:
    """Whether the server has heard that a run lives."""
    events = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
    )
    answer = stack.client.request(
        "POST", "/events/filter", json={"filter": events.model_dump(mode="json")}
    )
    return bool(answer.json()["events"])


def nights(stack: Stack) -> list[str]:
    """Dates of the finished nights."""
    done = (stack.folder / "workspace/nights").glob("*/summary.json")
    return sorted({json.loads(path.read_text())["run_date"] for path in done})


def listening(stack: Stack) -> set[str]:
    """Addresses that the services listen on."""
    return {
        connection.laddr.ip
        for service in ("prefect", "mlflow", "worker")
        for process in stack.processes(service)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def marked(folder: Path) -> list[int]:
    """Processes that were started for this workspace, or by one that was."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("RECDISTILL_SERVICE", ""):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
