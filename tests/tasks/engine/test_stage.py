"""What all stages share: done once, whole or not at all, done again when anything changed."""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from recsys_core.artifacts import MANIFEST, Artifact, is_finished, read_manifest
from tasks.engine import stage as stage_module
from tasks.engine.night import Night

pytestmark = pytest.mark.usefixtures("prefect_server")

SOURCE = """
from pydantic import Field
from recsys_core.artifacts import Artifact
from recsys_core.settings import Settings
from tasks.engine.stage import StageRun, Summary, stage

CALLS = []

class SampleConfig(Settings):
    factor: int = Field(default=2, description="Multiplies")

@stage
def first_stage(run: StageRun, config: SampleConfig, *, value: int) -> Summary:
    CALLS.append(run.key)
    (run.scratch / "checkpoint").write_text("half done")
    if value < 0:
        (run.out / "part.txt").write_text("partial")
        raise ValueError("value must not be negative")
    (run.out / "a.txt").write_text(str(config.factor * value))
    kept = run.out / "kept.txt"
    if not kept.exists():
        kept.write_text("kept")
    return {"result": config.factor * value}

@stage
def second_stage(run: StageRun, *, first: Artifact, name: str) -> Summary:
    CALLS.append(run.key)
    (run.out / "b.txt").write_text(first.file("a.txt").read_text() + name)
    return {}
"""

Sample = Any


@pytest.fixture
def write_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Sample]]:
    """Write the sample stages, with changes, and import them afresh."""
    package = tmp_path / "code" / "sample_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        for name in [name for name in sys.modules if name.startswith("sample_package")]:
            del sys.modules[name]

    def write(old: str = "", new: str = "") -> ModuleType:
        forget()
        source = SOURCE.replace(old, new) if old else SOURCE
        (package / "stages.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module("sample_package.stages")

    yield write
    forget()


@pytest.fixture
def sample(write_sample: Callable[..., Sample]) -> Sample:
    return write_sample()


def test_a_stage_runs_once(sample: Sample, night: Night) -> None:
    artifact = sample.first_stage(night, sample.SampleConfig(), value=3)
    assert artifact.file("a.txt").read_text() == "6"
    assert artifact.summary == {"result": 6}
    assert artifact.folder == night.workspace / "stages" / "first_stage" / artifact.key
    assert read_manifest(artifact.folder)["parts"]["inputs"] == {"value": 3}
    assert [path.name for path in artifact.folder.parent.iterdir()] == [artifact.key]
    before = (artifact.folder / MANIFEST).stat().st_mtime_ns

    again = sample.first_stage(night, sample.SampleConfig(), value=3)
    assert again == artifact
    assert sample.CALLS == [artifact.key]
    assert (artifact.folder / MANIFEST).stat().st_mtime_ns == before
    assert [(plan.stage, plan.runs, plan.reason) for plan in night.plans] == [
        ("first_stage", True, "never finished"),
        ("first_stage", False, "finished"),
    ]


def test_a_failing_stage_leaves_no_manifest_and_keeps_its_scratch(
    sample: Sample, night: Night
) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        sample.first_stage(night, sample.SampleConfig(), value=-1)
    folder = night.workspace / "stages" / "first_stage" / sample.CALLS[0]
    assert (folder / "part.txt").exists()
    assert not is_finished(folder)
    assert (folder.with_name(f"{folder.name}.scratch") / "checkpoint").exists()


def test_a_kill_between_work_and_publication_keeps_the_checkpoint(
    sample: Sample, night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage_module, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        sample.first_stage(night, sample.SampleConfig(), value=1)
    monkeypatch.undo()
    folder = night.workspace / "stages" / "first_stage" / sample.CALLS[0]
    scratch = folder.with_name(f"{folder.name}.scratch")
    assert (scratch / "checkpoint").exists()
    assert not is_finished(folder)

    artifact = sample.first_stage(night, sample.SampleConfig(), value=1)
    assert artifact.folder == folder
    assert is_finished(folder)
    assert not scratch.exists()


def test_scratch_left_by_a_kill_after_publication_is_removed(sample: Sample, night: Night) -> None:
    artifact = sample.first_stage(night, sample.SampleConfig(), value=1)
    scratch = artifact.folder.with_name(f"{artifact.key}.scratch")
    scratch.mkdir()
    sample.first_stage(night, sample.SampleConfig(), value=1)
    assert not scratch.exists()
    assert len(sample.CALLS) == 1


def test_what_is_damaged_is_made_again(sample: Sample, night: Night) -> None:
    artifact = sample.first_stage(night, sample.SampleConfig(), value=3)
    manifest = (artifact.folder / MANIFEST).read_bytes()
    artifact.file("kept.txt").write_text("ke")
    again = sample.first_stage(night, sample.SampleConfig(), value=3)
    assert night.plans[-1].reason == "output damaged"
    assert len(sample.CALLS) == 2
    assert again.file("kept.txt").read_text() == "kept"
    assert (again.folder / MANIFEST).read_bytes() == manifest


def test_a_change_of_anything_changes_the_key(
    write_sample: Callable[..., Sample], night: Night
) -> None:
    night.planning = True

    def key(sample: Sample, factor: int = 2, value: int = 3, name: str = "x") -> tuple[str, str]:
        config = sample.SampleConfig(factor=factor)
        first = sample.first_stage(night, config, value=value)
        return first.key, sample.second_stage(night, first=first, name=name).key

    sample = write_sample()
    base = key(sample)
    assert key(sample) == base
    assert key(sample, name="y")[0] == base[0]
    others = [key(sample, factor=3), key(sample, value=4), key(sample, name="y")]
    night.device = "cuda"
    others.append(key(sample))
    night.device = "cpu"
    others.append(key(write_sample("config.factor * value)", "value * config.factor)")))
    assert len({base[1], *(second for _, second in others)}) == 6
    assert key(write_sample("CALLS = []", '"""Stages."""\n\nCALLS = (\n    []\n)')) == base
    assert key(write_sample("CALLS = []", "CALLS = []  # of each stage")) == base


def test_a_plan_runs_nothing_and_says_why(
    write_sample: Callable[..., Sample], night: Night
) -> None:
    sample = write_sample()
    first = sample.first_stage(night, sample.SampleConfig(), value=3)
    planned = replace(night, planning=True, plans=[])

    def reason(sample: Sample, factor: int = 2, value: int = 3, device: str = "cpu") -> str:
        planned.device = device
        sample.first_stage(planned, sample.SampleConfig(factor=factor), value=value)
        return planned.plans[-1].reason

    assert reason(sample) == "finished"
    assert reason(sample, factor=5) == "changed since the last output: config"
    assert reason(sample, value=5) == "changed since the last output: inputs"
    assert reason(sample, device="cuda") == "changed since the last output: device"
    changed = write_sample("config.factor * value)", "value * config.factor)")
    assert reason(changed, factor=5) == "changed since the last output: config, code"
    first.file("a.txt").unlink()
    assert reason(write_sample()) == "output damaged"
    later = sample.second_stage(planned, first=first, name="x")
    assert (planned.plans[-1].reason, planned.plans[-1].runs) == ("never finished", True)
    assert not later.folder.exists()
    assert sorted(path.name for path in first.folder.parent.iterdir()) == [first.key]


def test_an_input_is_known_by_its_key(sample: Sample, night: Night, tmp_path: Path) -> None:
    night.planning = True
    keys = {
        sample.second_stage(night, first=Artifact("first_stage", key, folder), name="x").key
        for key, folder in (("a", tmp_path), ("a", tmp_path / "elsewhere"), ("b", tmp_path))
    }
    assert len(keys) == 2
