"""A wheel, installed in an environment of its own, runs a night and the services around nights."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.states import Scheduled

from flows.pipeline import PIPELINE
from tests.e2e.command_line import free_port, outside_environment, recdistill, wait_until
from tests.tiny import RUN_DATE, as_toml, tiny_settings

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "recsys_core")
RUN_SECONDS = 120


@dataclass(frozen=True)
class Installation:
    """The wheel in an environment of its own, and an empty folder to call it in."""

    environment: Path
    folder: Path

    def recdistill(self, *arguments: str) -> str:
        program = self.environment / "bin" / "recdistill"
        return recdistill(self.folder, *arguments, program=program)


@pytest.fixture(scope="module", autouse=True)
def no_other_sources() -> Iterator[None]:
    """What is called finds modules in its own environment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        yield


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that nothing of an earlier build gets into it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / package, source / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    pip("wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(out))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The wheel in a new environment, whose dependencies are those of the environment that tests.

    Processes that the test began end with it, also where it fails.
    """
    base = tmp_path_factory.mktemp("installed")
    environment, folder = base / "environment", base / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip("--python", str(environment), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = environment.glob("lib/python*/site-packages")
    # A path in a .pth file comes last; .pth files there, as of an editable install, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    installation = Installation(environment, folder)
    yield installation
    if (folder / "workspace" / "services").exists():
        installation.recdistill("down", "--config", "night.toml")


def pip(*arguments: str) -> None:
    """Run this environment's pip, without network."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True, env=outside_environment())


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    files = {
        str(path.relative_to(PROJECT))
        for package in PACKAGES
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {Path(name).suffix for name in files} == {".j2", ".py", ".yaml"}

    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert packed == files


def test_what_is_imported_is_the_wheel(installation: Installation) -> None:
    code = f"import {', '.join(PACKAGES)}; print({', '.join(f'{p}.__file__' for p in PACKAGES)})"
    done = subprocess.run(
        [installation.environment / "bin" / "python", "-c", code],
        cwd=installation.folder,
        env=outside_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for path in done.stdout.split():
        assert Path(path).is_relative_to(installation.environment)


def test_a_night_and_its_services_run_in_an_empty_folder(installation: Installation) -> None:
    settings = as_toml(tiny_settings(Path("workspace")))
    (installation.folder / "night.toml").write_text(settings, encoding="utf-8")

    printed = installation.recdistill(
        "nightly", "--config", "night.toml", "--run-date", f"{RUN_DATE}"
    )
    assert f"{len(PIPELINE.steps)} stages ran" in printed
    assert "promoted" in printed

    prefect, mlflow = free_port(), free_port()
    ports = ("--prefect-port", f"{prefect}", "--mlflow-port", f"{mlflow}")
    printed = installation.recdistill(
        "up", "--config", "night.toml", *ports, "--cron", "30 4 * * *"
    )
    assert f"Prefect server: started at http://127.0.0.1:{prefect}" in printed
    assert "04:30 UTC" in printed
    with SyncPrefectClient(f"http://127.0.0.1:{prefect}/api") as client:
        by_hand = client.read_deployment_by_name("nightly/on-demand")
        run = client.create_flow_run_from_deployment(
            by_hand.id, parameters={"run_date": f"{RUN_DATE}"}, state=Scheduled()
        )

        def ended() -> StateType | None:
            state = client.read_flow_run(run.id).state
            return state.type if state is not None and state.is_final() else None

        assert wait_until(ended, seconds=RUN_SECONDS, what="end of the run") == StateType.COMPLETED
    (summary,) = (installation.folder / "workspace" / "nights").glob("*/summary.json")
    assert '"ran": []' in summary.read_text(encoding="utf-8")

    stopped = installation.recdistill("down", "--config", "night.toml")
    assert stopped.strip() == "Stopped: worker, MLflow server, Prefect server."
