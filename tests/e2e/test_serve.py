"""A registered student answers over HTTP, served by MLflow as its users would serve it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys_core.serving.scorer import Scorer
from tasks.registry.store import CHAMPION, Registry, RegistryConfig
from tests.e2e.command_line import free_port

pytestmark = pytest.mark.slow

HISTORIES = [["i3", "i17", "i9"], [], ["unknown"]]
START_SECONDS = 90


@pytest.fixture(scope="module")
def address(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    workspace = tmp_path_factory.mktemp("workspace")
    registry = Registry(workspace, RegistryConfig())
    folder = workspace / "scratch" / "model"
    shutil.copytree(served_folder, folder)
    version = registry.register_student(
        "demo-student",
        key="k",
        run_id=registry.open_run("demo", "night", "k"),
        folder=folder,
        scratch=folder.parent,
        tags={},
        description="",
    )
    registry.set_alias("demo-student", CHAMPION, version)
    port = free_port()
    command = ["-m", "mlflow", "models", "serve", "-m", f"models:/demo-student@{CHAMPION}"]
    options = ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": registry.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = workspace / "serve.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, *command, *options],
            env=environment,
            cwd=workspace,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/ping", log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(f"mlflow models serve did not answer:\n{log.read_text()[-3000:]}")


def ask(address: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)["predictions"]


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{"history": history} for history in HISTORIES]},
        {"dataframe_split": {"columns": ["history"], "data": [[h] for h in HISTORIES]}},
        {"dataframe_records": [{"history": history} for history in HISTORIES]},
    ],
)
def test_every_form_of_request_gets_the_scorers_answer(
    address: str, served_folder: Path, body: dict[str, Any]
) -> None:
    rows = ask(address, {**body, "params": {"k": 4}})
    for row, expected in zip(rows, Scorer(served_folder).recommend(HISTORIES, k=4), strict=True):
        assert row["item_ids"] == expected.item_ids
        assert row["scores"] == pytest.approx(expected.scores, rel=1e-5)


def test_lists_and_parameters(address: str) -> None:
    columns = ["history", "exclude", "allow"]
    data = [[["i3"], ["i40"], ["i40", "i39", "i3"]], [[], ["i40"], None]]
    body = {"dataframe_split": {"columns": columns, "data": data}}
    rows = ask(address, {**body, "params": {"k": 2, "exclude_seen": True, "explain": True}})
    assert rows[0]["item_ids"] == ["i39"]
    assert [list(contributions) for contributions in rows[0]["contributions"]] == [["i3"]]
    assert rows[1]["item_ids"] == ["i39", "i38"]


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{"history": "i1"}]},
        {"inputs": [{"history": [1, 2]}]},
        {"inputs": [{"other": ["i1"]}]},
        {"inputs": [{"history": ["i1"]}], "params": {"k": "many"}},
        {"inputs": [{"history": ["i1"]}], "params": {"k": 0}},
        {"inputs": [{"history": ["i1"]}], "params": {"exclude_seen": False}},
    ],
)
def test_wrong_requests_are_the_askers_mistake(address: str, body: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(address, body)
    with refused.value as reply:
        assert reply.code == 400
        error = json.load(reply)
    assert error["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
    if body.get("params") == {"k": 0}:
        assert "k must be a whole number of at least 1, found '0' (int)." in error["message"]
