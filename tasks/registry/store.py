"""Runs and registered models in MLflow.

Every write can be repeated after a kill: runs and versions are found by the key of the stage output
that they belong to, and values are logged under fixed timestamps.

MLflow is imported inside the functions: the import takes seconds, and most commands don't need it.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from recsys_core.serving.scorer import Scorer
from recsys_core.settings import Settings
from tasks.telemetry import switch_off_telemetry

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.pyfunc import PyFuncModel

CHAMPION = "champion"
CHALLENGER = "challenger"
STAGE_KEY = "recdistill.stage_key"

STUDENT_FILES, TEACHER_FILES = "student", "teacher"
"""A run's artifact path of a packaged student, and that of a teacher's files."""
_MAX_PARAMS = 100
"""MLflow refuses more in one call."""


class RegistryConfig(Settings):
    """The MLflow store of runs and registered models."""

    tracking_uri: str | None = Field(
        default=None,
        description=(
            "MLflow tracking URI, for example http://127.0.0.1:5000; empty: a SQLite database and "
            "an artifact folder in the workspace"
        ),
    )

    @field_validator("tracking_uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        if uri is not None and urlsplit(uri).password:
            msg = (
                "tracking_uri holds a password, which would be shown wherever settings are. Use "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or PGPASSWORD, instead."
            )
            raise ValueError(msg)
        return uri

    def resolved_uri(self, workspace: Path) -> str:
        """The tracking URI; by default that of a database in the workspace."""
        return self.tracking_uri or f"sqlite:///{workspace.absolute() / 'mlflow.db'}"


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        number: The version's number.
        aliases: Names that point to it, sorted.
        tags: Its tags.
    """

    number: int
    aliases: tuple[str, ...]
    tags: dict[str, str]


def student_name(name: str) -> str:
    """The name under which a night's students are registered."""
    return f"{name}-student"


def teacher_name(name: str) -> str:
    """The name under which a night's teachers are registered."""
    return f"{name}-teacher"


def champion_version(workspace: Path, config: RegistryConfig, name: str) -> int | None:
    """Version of the champion; None: there is none.

    Args:
        workspace: Folder of everything that nights write.
        config: Where the registry is.
        name: The night's name.
    """
    database = workspace / "mlflow.db"
    if config.tracking_uri is None and not database.exists():
        return None
    return Registry(workspace, config).version_of(student_name(name), CHAMPION)


def load_scorer(
    workspace: Path, config: RegistryConfig, name: str, version: int
) -> tuple[Scorer, Path]:
    """A registered version's scorer, loaded without MLflow, and its folder.

    Args:
        workspace: Folder of everything that nights write.
        config: Where the registry is.
        name: The night's name.
        version: The version's number.
    """
    registry = Registry(workspace, config)
    folder = registry.download(student_name(name), version) / "artifacts" / "model"
    return Scorer(folder), folder


class Registry:
    """The store that a configuration names.

    Args:
        workspace: Folder of everything that nights write.
        config: Where the registry is.
    """

    def __init__(self, workspace: Path, config: RegistryConfig) -> None:
        switch_off_telemetry()
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow.tracking import MlflowClient

        workspace.mkdir(parents=True, exist_ok=True)
        self.uri = config.resolved_uri(workspace)
        # An MLflow server decides itself where artifacts go.
        remote = self.uri.startswith(("http://", "https://"))
        self._artifacts = None if remote else (workspace.absolute() / "mlartifacts").as_uri()
        self.client: MlflowClient = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def open_run(self, experiment: str, run_name: str, key: str) -> str:
        """The run of a stage output: a new one, or the one that a killed attempt opened.

        Returns:
            The run's id.
        """
        known = self.client.get_experiment_by_name(experiment)
        experiment_id = (
            known.experiment_id
            if known
            else self.client.create_experiment(experiment, artifact_location=self._artifacts)
        )
        runs = self.client.search_runs([experiment_id], f"tags.`{STAGE_KEY}` = '{key}'")
        if runs:
            return runs[0].info.run_id
        tags = {STAGE_KEY: key}
        return self.client.create_run(experiment_id, tags=tags, run_name=run_name).info.run_id

    def log_night(
        self,
        run_id: str,
        *,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[tuple[int, float]]],
        artifacts: Sequence[Path],
    ) -> None:
        """Log a night; doing it again changes nothing.

        Args:
            run_id: From `open_run`.
            params: Settings by dotted name.
            metrics: Values by metric name.
            curves: (epoch, value) by metric name.
            artifacts: Files to store with the run.
        """
        from mlflow.entities import Metric, Param

        # MLflow stores one row per metric, time, step and value, so a repetition adds none.
        at = self._run(run_id).info.start_time
        points = [Metric(name, value, at, 0) for name, value in sorted(metrics.items())]
        for name, curve in sorted(curves.items()):
            points += [Metric(name, value, at, epoch) for epoch, value in curve]
        pairs = [Param(name, value) for name, value in sorted(params.items())]
        for start in range(0, len(pairs), _MAX_PARAMS):
            self.client.log_batch(run_id, params=pairs[start : start + _MAX_PARAMS])
        for start in range(0, len(points), _MAX_PARAMS):
            self.client.log_batch(run_id, metrics=points[start : start + _MAX_PARAMS])
        for path in artifacts:
            self.client.log_artifact(run_id, str(path))

    def finish_run(self, run_id: str) -> None:
        """Mark a run as finished."""
        self.client.set_terminated(run_id, "FINISHED")

    def register_student(
        self,
        name: str,
        *,
        key: str,
        run_id: str,
        folder: Path,
        scratch: Path,
        tags: Mapping[str, str],
        description: str,
    ) -> int:
        """Package a served model and register it as a version, once for each key.

        Args:
            name: The registered model's name.
            key: Key of the stage output. A version that has it already is returned.
            run_id: The run that stores the files.
            folder: The served model's files; the folder is called "model".
            scratch: Where the package is written.
            tags: Further tags of the version.
            description: Markdown.
        """
        from tasks.registry.package import save_package

        package = scratch / "package"
        shutil.rmtree(package, ignore_errors=True)
        if self._version_of_key(name, key) is None:
            save_package(package, folder)
        return self.register_files(
            name,
            key=key,
            run_id=run_id,
            folder=package,
            artifact_path=STUDENT_FILES,
            tags=tags,
            description=description,
        )

    def register_files(
        self,
        name: str,
        *,
        key: str,
        run_id: str,
        folder: Path,
        artifact_path: str,
        tags: Mapping[str, str],
        description: str,
    ) -> int:
        """Register a folder of files as a version, once for each key.

        Args:
            name: The registered model's name.
            key: Key of the stage output. A version that has it already is returned.
            run_id: The run that stores the files.
            folder: The files.
            artifact_path: Folder of the files among the run's artifacts.
            tags: Further tags of the version.
            description: Markdown.
        """
        from mlflow.exceptions import MlflowException

        if (known := self._version_of_key(name, key)) is not None:
            return known
        self.client.log_artifacts(run_id, str(folder), artifact_path)
        if not self.client.search_registered_models(f"name = '{name}'"):
            try:
                self.client.create_registered_model(name)
            except MlflowException as error:  # another night of the same name created it
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        version = self.client.create_model_version(
            name,
            source=f"{self._run(run_id).info.artifact_uri}/{artifact_path}",
            run_id=run_id,
            tags={**tags, STAGE_KEY: key},
            description=description,
        )
        return int(version.version)

    def _version_of_key(self, name: str, key: str) -> int | None:
        for version in self.client.search_model_versions(f"name = '{name}'"):
            if version.tags.get(STAGE_KEY) == key:
                return int(version.version)
        return None

    def versions(self, name: str) -> list[Version]:
        """All versions of a registered model, the oldest first."""
        if not self.client.search_registered_models(f"name = '{name}'"):
            return []
        aliases = self.client.get_registered_model(name).aliases
        versions = [
            Version(
                number=int(version.version),
                aliases=tuple(
                    sorted(alias for alias in aliases if aliases[alias] == version.version)
                ),
                tags=dict(version.tags),
            )
            for version in self.client.search_model_versions(f"name = '{name}'")
        ]
        return sorted(versions, key=lambda version: version.number)

    def version_of(self, name: str, alias: str) -> int | None:
        """The version that an alias points to; None: there is no such alias."""
        if not self.client.search_registered_models(f"name = '{name}'"):
            return None
        version = self.client.get_registered_model(name).aliases.get(alias)
        return None if version is None else int(version)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version."""
        self.client.set_registered_model_alias(name, alias, str(version))

    def tag_version(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self.client.set_model_version_tag(name, str(version), key, value)

    def download(self, name: str, version: int | str) -> Path:
        """A version's files on this machine, from wherever they were registered.

        Args:
            name: The registered model's name.
            version: A version's number or an alias.
        """
        from mlflow.artifacts import download_artifacts

        if isinstance(version, str):
            version = int(self.client.get_model_version_by_alias(name, version).version)
        # "models:/…" would be looked up in a store that is set for the whole process.
        uri = self.client.get_model_version_download_uri(name, str(version))
        return Path(download_artifacts(uri, tracking_uri=self.uri))

    def load_student(self, name: str, version: int | str) -> "PyFuncModel":
        """A registered version as an MLflow pyfunc, as other programs load it.

        Args:
            name: The registered model's name.
            version: A version's number or an alias.
        """
        from mlflow.pyfunc import load_model

        return load_model(str(self.download(name, version)))

    def _run(self, run_id: str) -> "Run":
        return self.client.get_run(run_id)
