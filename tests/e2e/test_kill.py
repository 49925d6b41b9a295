"""kill -9 during each stage of a night, then a rerun: the same bytes as if undisturbed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.config import NightlyConfig
from flows.pipeline import PIPELINE
from recsys_core.artifacts import read_manifest
from recsys_core.serving.scorer import Scorer
from tasks.registry.store import CHAMPION, Registry
from tests.tiny import RUN_DATE, as_toml, tiny_settings

pytestmark = pytest.mark.slow

STAGES = [step.stage.name for step in PIPELINE.steps]
MEASURED = {
    "validate": {"data_docs"},  # Great Expectations writes the time into its pages
    "evaluate": {"latency.json"},  # wall-clock times
    "register": {"registered.json"},  # the run's random id
    "promote": {"promotion.json"},  # the same
    "report": {"report.html"},  # shows both
}
TIMEOUT_SECONDS = 180
ATTEMPTS = 5


def test_a_night_killed_in_every_stage_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    for folder in (calm, stormy):
        folder.mkdir()
        (folder / "night.toml").write_text(as_toml(settings()), encoding="utf-8")
    finish(start(calm))

    for stage in STAGES:
        kill_during(stormy, stage)
    finish(start(stormy))

    for stage in STAGES:
        expected, found = (manifest(folder, stage) for folder in (calm, stormy))
        assert found["key"] == expected["key"], stage
        assert hashes(found, stage) == hashes(expected, stage), stage
    assert champion_answers(stormy) == champion_answers(calm)


def settings() -> dict[str, Any]:
    """The tiny night, relative to where it runs, with more to interrupt."""
    fields = tiny_settings(Path("workspace"))
    for network in ("teacher", "student"):
        fields[network]["training"] = {**fields[network]["training"], "epochs": 4}
    fields["prepare"]["n_buckets"] = 4
    return fields


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A night in a process group of its own."""
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", "nightly"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--config", "night.toml", "--run-date", RUN_DATE.isoformat()],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(night: subprocess.Popen[bytes]) -> None:
    assert night.wait(TIMEOUT_SECONDS) == 0


def kill_during(folder: Path, stage: str) -> None:
    """Kill the process group of a night while the stage is at work.

    On a busy machine a short stage may be over before the kill. Then its output is removed, and the
    next attempt kills again.
    """
    outputs = folder / "workspace" / "stages" / stage
    for _ in range(ATTEMPTS):
        _kill_once_begun(folder, SIGNS.get(stage, has_begun), outputs)
        if not list(outputs.glob("*/manifest.json")):
            return
        shutil.rmtree(outputs)
    pytest.fail(f"{stage} was over before the kill in each of {ATTEMPTS} attempts")


def _kill_once_begun(folder: Path, sign: Callable[[Path], bool], outputs: Path) -> None:
    night = start(folder)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while not sign(outputs):
            assert night.poll() is None, (folder / "log").read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() < deadline, f"{outputs.name} never began"
            time.sleep(0.001)
    finally:
        if night.poll() is None:
            os.killpg(night.pid, signal.SIGKILL)
            night.wait()


def has_begun(outputs: Path) -> bool:
    return any(outputs.glob("*"))


def has_a_checkpoint(outputs: Path) -> bool:
    return any(outputs.glob("*.scratch/**/checkpoint/training.json"))


def has_a_bucket(outputs: Path) -> bool:
    return any(outputs.glob("*/labels/*.parquet"))


SIGNS: dict[str, Callable[[Path], bool]] = {
    "train_teacher": has_a_checkpoint,
    "distill": has_a_checkpoint,
    "control": has_a_checkpoint,
    "write_soft_labels": has_a_bucket,
}


def manifest(folder: Path, stage: str) -> dict[str, Any]:
    (found,) = (folder / "workspace" / "stages" / stage).glob("*/manifest.json")
    return read_manifest(found.parent)


def hashes(found: dict[str, Any], stage: str) -> dict[str, str]:
    return {
        name: facts["sha256"]
        for name, facts in found["files"].items()
        if Path(name).parts[0] not in MEASURED.get(stage, set())
    }


def champion_answers(folder: Path) -> dict[str, Any]:
    """What the registered model says to a few histories, scores to the last bit."""
    config = NightlyConfig.model_validate(settings())
    registry = Registry(folder / "workspace", config.registry)
    model = registry.load_student("tiny-student", CHAMPION)
    (served,) = (folder / "workspace" / "stages" / "compress").glob("*/config.json")
    item_ids = Scorer(served.parent).item_ids
    requests = pd.DataFrame({"history": [item_ids[:3], item_ids[10:11], []]})
    return model.predict(requests, params={"k": 20}).to_dict()
