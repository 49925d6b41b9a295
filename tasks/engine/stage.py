"""The stage decorator: keys, skipping finished work, publishing, progress.

A stage is a function that writes files into `run.out` and returns a summary:

    @stage(output="prepared", version=1, libraries=("deltalake", "polars"))
    def prepare(run: StageRun, config: PrepareConfig, *, ingested: Artifact) -> Summary: ...

    prepared = prepare(night, config.prepare, ingested=ingested)

Its key is a hash of `version`, the settings, the inputs' keys, the versions of `libraries` and the
device class. Raise `version` if the code below a stage may write other files than before;
`python -m infra.stage_versions`, a part of `make lint`, reports a forgotten version.
"""

import errno
import inspect
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from logging import getLogger
from pathlib import Path
from typing import Any, Self

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from recsys_core.artifacts import (
    MANIFEST,
    Artifact,
    damaged_files,
    digest,
    is_finished,
    publish,
    read_json,
)
from recsys_core.settings import Progress, Settings, silent
from recsys_core.units import format_bytes
from tasks.engine.changes import changes
from tasks.engine.night import Night
from tasks.engine.progress import AnyLogger, StageProgress

Summary = dict[str, Any]
StageBody = Callable[..., Summary]


@dataclass(frozen=True)
class StageRun:
    """The surroundings of a running stage. They do not affect the content of its output.

    Attributes:
        workspace: Folder of everything that nights write.
        device: "cpu" or "cuda".
        settings: The night's whole configuration, for the record.
        key: The output's key.
        out: Folder of the output. After a kill it still holds the files of the killed run.
        scratch: Folder for checkpoints; deleted once the output is published.
        progress: Called with the finished fraction of a long computation.
        logger: The Prefect run logger.
    """

    workspace: Path
    device: str
    settings: Mapping[str, Any]
    key: str
    out: Path
    scratch: Path
    progress: Progress
    logger: AnyLogger

    @classmethod
    def bare(
        cls, workspace: Path, out: Path, *, scratch: Path | None = None, key: str = "key"
    ) -> Self:
        """Surroundings without a night, for tests and benchmarks of a stage's body.

        Args:
            workspace: Folder of everything that nights write.
            out: Folder of the output.
            scratch: Folder for checkpoints; None: `scratch` in the workspace.
            key: The output's key.
        """
        scratch = scratch or workspace / "scratch"
        return cls(workspace, "cpu", {}, key, out, scratch, silent, getLogger(__name__))

    @property
    def lake(self) -> Path:
        """Folder of the Delta tables."""
        return self.workspace / "lake"


@dataclass(frozen=True)
class Decision:
    """Whether a stage has to run, and why.

    Attributes:
        artifact: The output, finished or not.
        runs: False if the output is finished.
        reason: The reason, as text.
        parts: Parts of the key.
    """

    artifact: Artifact
    runs: bool
    reason: str
    parts: Mapping[str, Any]

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.artifact.stage


@dataclass(frozen=True, eq=False)
class Stage:
    """A function whose output is stored under a key; it runs only if the output is missing.

    Attributes:
        body: The function itself, for tests.
        output: Name of the output: the parameter of later stages that receives it.
        version: Version of the code; raised if equal settings and inputs may give other files.
        libraries: Distributions whose version decides the files.
        optional_libraries: Further libraries, each with a test whether the settings use it.
    """

    body: StageBody
    output: str
    version: int
    libraries: tuple[str, ...] = ()
    optional_libraries: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The function's name, and that of the folder of its outputs."""
        return self.body.__name__

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of the body except the run."""
        _, *rest = inspect.signature(self.body).parameters.items()
        return dict(rest)

    @property
    def artifacts(self) -> list[str]:
        """Parameters that take the output of another stage, which may be None if they say so."""
        parameters = self.parameters.items()
        kinds = (Artifact, Artifact | None)
        return [name for name, parameter in parameters if parameter.annotation in kinds]

    def __call__(self, night: Night, config: Settings | None = None, **inputs: Any) -> Artifact:
        """Run the stage unless its output is finished.

        Args:
            night: The facts of the night.
            config: The stage's settings, if it has any.
            inputs: Artifacts, which enter the key by their own key; settings and values as JSON.
        """
        arguments = inputs if config is None else {"config": config, **inputs}
        decision = self.decide(night, arguments)
        self.carry_out(decision, night, arguments)
        return decision.artifact

    def decide(self, night: Night, arguments: Mapping[str, Any]) -> Decision:
        """Decide whether the stage has to run, and why, without running it.

        Args:
            night: The facts of the night.
            arguments: Arguments of the body, by parameter.
        """
        inputs = {name: _identity(value) for name, value in arguments.items()}
        config = arguments.get("config")
        optional = [name for name, is_used in self.optional_libraries.items() if is_used(config)]
        parts = {
            "version": self.version,
            "config": inputs.pop("config", None),
            "inputs": inputs,
            "libraries": {name: _installed(name) for name in (*self.libraries, *optional)},
            "device": night.device,
        }
        key = digest(parts)
        artifact = Artifact(self.name, key, night.workspace / "stages" / self.name / key)
        finished = is_finished(artifact.folder)
        reason = "finished" if finished else _why(artifact.folder.parent, parts)
        return Decision(artifact, not finished, reason, parts)

    def carry_out(self, decision: Decision, night: Night, arguments: Mapping[str, Any]) -> None:
        """Run a Prefect task that runs the body, or only logs that the output is finished."""

        def run_or_skip() -> None:
            logger = get_run_logger()
            if decision.runs:
                _execute(partial(self.body, **arguments), night, decision, logger)
            else:
                shutil.rmtree(_scratch(decision.artifact), ignore_errors=True)
                logger.info("%s: finished earlier, skipped (%s)", self.name, decision.artifact.key)

        as_task = task(
            name=self.name,
            task_run_name=self.name if decision.runs else f"{self.name} (skipped)",
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        as_task(run_or_skip)()


def stage(
    *,
    output: str,
    version: int,
    libraries: tuple[str, ...] = (),
    optional_libraries: Mapping[str, Callable[[Any], bool]] | None = None,
) -> Callable[[StageBody], Stage]:
    """Turn a function into a stage; the arguments are the attributes of `Stage`."""

    def decorate(body: StageBody) -> Stage:
        return Stage(body, output, version, libraries, optional_libraries or {})

    return decorate


class DiskFullError(RuntimeError):
    """The disk has no room for the files of a stage."""


def _execute(work: StageBody, night: Night, decision: Decision, logger: AnyLogger) -> None:
    began = time.monotonic()
    artifact = decision.artifact
    scratch = _scratch(artifact)
    artifact.folder.mkdir(parents=True, exist_ok=True)
    _remove_damage(artifact.folder)
    scratch.mkdir(exist_ok=True)
    with StageProgress(artifact.stage, logger) as progress:
        run = StageRun(
            workspace=night.workspace,
            device=night.device,
            settings=night.config,
            key=artifact.key,
            out=artifact.folder,
            scratch=scratch,
            progress=progress,
            logger=logger,
        )
        try:
            publish(artifact, decision.parts, work(run))
        except Exception as error:
            if _says_disk_full(error):
                raise DiskFullError(_disk_full(artifact, night.workspace)) from error
            raise
    shutil.rmtree(scratch)
    logger.info("%s: done in %.1f s (%s)", artifact.stage, time.monotonic() - began, artifact.key)


def _says_disk_full(error: BaseException | None) -> bool:
    """Whether the error or one of its causes is the operating system's ENOSPC."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        if os.strerror(errno.ENOSPC) in str(error):  # Rust and C++ libraries pass on its text only
            return True
        error = error.__cause__ or error.__context__
    return False


def _disk_full(artifact: Artifact, workspace: Path) -> str:
    free = shutil.disk_usage(workspace).free
    return (
        f"The disk of {workspace.resolve()} is full ({format_bytes(free)} are free): "
        f"{artifact.stage} stopped and published nothing. Make room (`recdistill data clean "
        "--dry-run` says what could go) and run the night again: it resumes here."
    )


def _scratch(artifact: Artifact) -> Path:
    return artifact.folder.with_name(f"{artifact.key}.scratch")


def _remove_damage(folder: Path) -> None:
    """Delete the damaged files of an output that was complete, then its manifest."""
    if (folder / MANIFEST).exists():
        for name in damaged_files(folder):
            (folder / name).unlink(missing_ok=True)
        (folder / MANIFEST).unlink()


def _identity(value: Any) -> Any:
    """An argument as it enters the key: a JSON value."""
    if isinstance(value, Artifact):
        return value.key
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    return value.isoformat() if isinstance(value, date) else value


def _installed(library: str) -> str | None:
    """The library's version; None for a missing extra, for which the body raises an error."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _why(folder: Path, parts: Mapping[str, Any]) -> str:
    """Why a stage has to run: the differences to the key of its newest finished output."""
    manifests = sorted(folder.glob(f"*/{MANIFEST}"), key=os.path.getmtime)
    if not manifests:
        return "never finished"
    changed = changes(read_json(manifests[-1])["parts"], parts)
    return f"changed since the last output: {changed}" if changed else "output damaged"
