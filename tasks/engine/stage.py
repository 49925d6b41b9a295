"""What all stages share: keys, skipping finished work, publishing, progress.

A stage is a function that writes files into `run.out` and returns a summary; the decorator makes a
Prefect task of it that returns an `Artifact`:

    @stage
    def prepare(run: StageRun, config: PrepareConfig, *, ingested: Artifact) -> Summary: ...

    prepared = prepare(night, config.prepare, ingested=ingested)

Everything after the configuration is a keyword: artifacts enter the key by their own key, settings
and JSON-serialisable values as they are.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from recsys_core.artifacts import (
    MANIFEST,
    Artifact,
    code_fingerprint,
    damaged_files,
    digest,
    is_finished,
    publish,
    read_json,
)
from recsys_core.settings import Progress, Settings
from recsys_core.units import format_bytes
from tasks.engine.night import Night, Plan
from tasks.engine.progress import AnyLogger, StageProgress

PACKAGES = ("recsys_core", "tasks")
PLUMBING = ("tasks.engine.stage", "tasks.engine.night", "tasks.engine.progress")
"""Runs stages but decides nothing of what they write: not part of any key."""

LIBRARIES = ("deltalake", "numpy", "onnx", "onnxruntime", "polars", "torch")

Summary = dict[str, Any]


@dataclass(frozen=True)
class StageRun:
    """What a running stage may use.

    Attributes:
        night: Run date, workspace, registered name.
        key: The output's key.
        out: Where the output goes. A rerun after a kill finds what the killed run left.
        scratch: For checkpoints; deleted once the output is published.
        progress: To be told how far a long computation is.
        logger: The Prefect run logger.
    """

    night: Night
    key: str
    out: Path
    scratch: Path
    progress: Progress
    logger: AnyLogger


StageFunction = Callable[..., Summary]


class DiskFull(RuntimeError):  # noqa: N818 - it names a state
    """There is no room for what a stage writes."""


def stage(function: StageFunction) -> Callable[..., Artifact]:
    """Make a stage of a function: a Prefect task that runs only where its output is missing.

    Its name is the function's. Unwrapped, for tests of the body alone: `.__wrapped__`.
    """
    name = function.__name__

    @wraps(function)
    def run_stage(night: Night, config: Settings | None = None, **inputs: Any) -> Artifact:
        parts = _key_parts(function, config, inputs, night.device)
        key = digest(parts)
        artifact = Artifact(name, key, night.workspace / "stages" / name / key)
        finished = is_finished(artifact.folder)
        reason = "finished" if finished else _why(artifact.folder.parent, parts)
        night.plans.append(Plan(name, key, not finished, reason))
        if night.planning:
            return artifact
        arguments = inputs if config is None else {"config": config, **inputs}
        _as_task(partial(function, **arguments), night, artifact, parts, finished=finished)
        return artifact

    return run_stage


def _as_task(
    work: StageFunction,
    night: Night,
    artifact: Artifact,
    parts: Mapping[str, Any],
    *,
    finished: bool,
) -> None:
    def body() -> None:
        logger = get_run_logger()
        if finished:
            shutil.rmtree(_scratch(artifact), ignore_errors=True)
            logger.info("%s: finished earlier, skipped (%s)", artifact.stage, artifact.key)
        else:
            _execute(work, night, artifact, parts, logger)

    as_task = task(
        name=artifact.stage,
        task_run_name=f"{artifact.stage} (skipped)" if finished else artifact.stage,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    as_task(body)()


def _execute(
    work: StageFunction,
    night: Night,
    artifact: Artifact,
    parts: Mapping[str, Any],
    logger: AnyLogger,
) -> None:
    began = time.monotonic()
    scratch = _scratch(artifact)
    artifact.folder.mkdir(parents=True, exist_ok=True)
    _remove_damage(artifact.folder)
    scratch.mkdir(exist_ok=True)
    with StageProgress(artifact.stage, logger) as progress:
        run = StageRun(night, artifact.key, artifact.folder, scratch, progress, logger)
        try:
            publish(artifact, parts, work(run))
        except Exception as error:
            if os.strerror(errno.ENOSPC) in str(error):
                raise DiskFull(_disk_full(artifact, night.workspace)) from error
            raise
    shutil.rmtree(scratch)
    logger.info("%s: done in %.1f s (%s)", artifact.stage, time.monotonic() - began, artifact.key)


def _disk_full(artifact: Artifact, workspace: Path) -> str:
    free = shutil.disk_usage(workspace).free
    return (
        f"The disk of {workspace.resolve()} is full ({format_bytes(free)} are free): "
        f"{artifact.stage} stopped and published nothing. Make room (`recdistill data clean "
        "--dry-run` says what could go) and run the night again: it goes on here."
    )


def _scratch(artifact: Artifact) -> Path:
    return artifact.folder.with_name(f"{artifact.key}.scratch")


def _remove_damage(folder: Path) -> None:
    """Of an output that was whole once, keep what still is; the manifest goes last."""
    if (folder / MANIFEST).exists():
        for name in damaged_files(folder):
            (folder / name).unlink(missing_ok=True)
        (folder / MANIFEST).unlink()


def _key_parts(
    function: StageFunction, config: Settings | None, inputs: Mapping[str, Any], device: str
) -> dict[str, Any]:
    return {
        "config": None if config is None else config.model_dump(mode="json"),
        "inputs": {name: _identity(value) for name, value in inputs.items()},
        "code": code_fingerprint(function.__module__, PACKAGES, ignore=PLUMBING),
        "libraries": {library: version(library) for library in LIBRARIES},
        "device": device,
    }


def _identity(value: Any) -> Any:
    if isinstance(value, Artifact):
        return value.key
    return value.model_dump(mode="json") if isinstance(value, Settings) else value


def _why(folder: Path, parts: Mapping[str, Any]) -> str:
    """Why a stage has to run: what differs from its newest finished output."""
    manifests = sorted(folder.glob(f"*/{MANIFEST}"), key=os.path.getmtime)
    if not manifests:
        return "never finished"
    last = read_json(manifests[-1])["parts"]
    changed = [part for part in parts if digest(last.get(part)) != digest(parts[part])]
    return f"changed since the last output: {', '.join(changed)}" if changed else "output damaged"
