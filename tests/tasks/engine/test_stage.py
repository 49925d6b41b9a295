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
from tasks.engine.stage import Decision

pytestmark = pytest.mark.usefixtures("prefect_server")

SOURCE = """
from pydantic import Field
from recsys_core.artifacts import Artifact
from recsys_core.settings import Settings
from tasks.engine.stage import StageRun, Summary, stage

CALLS = []

class SampleConfig(Settings):
    factor: int = Field(default=2, description="Multiplies")

EXTRAS = {
    "polars": lambda config: config.factor > 8,
    "never-installed": lambda config: config.factor < 0,
}

@stage(output="first", version=1, libraries=("numpy",), optional_libraries=EXTRAS)
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

@stage(output="second", version=1)
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
    arguments = {"config": sample.SampleConfig(), "value": 3}
    decision = sample.first_stage.decide(night, arguments)
    assert (decision.stage, decision.runs, decision.reason) == (
        "first_stage",
        True,
        "never finished",
    )
    artifact = sample.first_stage(night, sample.SampleConfig(), value=3)
    assert artifact == decision.artifact
    decision = sample.first_stage.decide(night, arguments)
    assert (decision.runs, decision.reason) == (False, "finished")
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
    decision = sample.first_stage.decide(night, {"config": sample.SampleConfig(), "value": 3})
    assert decision.reason == "output damaged"
    again = sample.first_stage(night, sample.SampleConfig(), value=3)
    assert len(sample.CALLS) == 2
    assert again.file("kept.txt").read_text() == "kept"
    assert (again.folder / MANIFEST).read_bytes() == manifest


def _decide(night: Night, sample: Sample, factor: int = 2, value: int = 3) -> Decision:
    config = sample.SampleConfig(factor=factor)
    return sample.first_stage.decide(night, {"config": config, "value": value})


def _key_of_second(night: Night, sample: Sample, name: str = "x", **changed: int) -> str:
    first = _decide(night, sample, **changed).artifact
    return sample.second_stage.decide(night, {"first": first, "name": name}).artifact.key


def test_a_change_of_anything_declared_changes_the_key_of_all_that_follows(
    write_sample: Callable[..., Sample], night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = write_sample()
    base = _key_of_second(night, sample)
    assert _key_of_second(night, sample) == base
    keys = [
        _key_of_second(night, sample, factor=3),
        _key_of_second(night, sample, value=4),
        _key_of_second(night, sample, name="y"),
        _key_of_second(replace(night, device="cuda"), sample),
        _key_of_second(
            night, write_sample('output="first", version=1', 'output="first", version=2')
        ),
        _key_of_second(night, write_sample('("numpy",)', '("numpy", "torch")')),
    ]
    sample = write_sample()
    monkeypatch.setattr(stage_module, "version", lambda library: f"newer {library}")
    keys.append(_key_of_second(night, sample))
    assert len({base, *keys}) == 1 + len(keys)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Multiplies", "What values are multiplied by"),
        ("value must not be negative", "expected a value of at least 0"),
        ("CALLS = []", '"""Stages."""\n\nCALLS = (\n    []\n)  # of each stage'),
        ("config.factor * value)", "value * config.factor)"),
    ],
)
def test_code_is_part_of_no_key(
    write_sample: Callable[..., Sample], night: Night, old: str, new: str
) -> None:
    """Not even where it computes otherwise: the check of versions sees to that."""
    assert old in SOURCE
    before = _key_of_second(night, write_sample())
    assert _key_of_second(night, write_sample(old, new)) == before


def test_a_plan_runs_nothing_and_names_what_changed(
    write_sample: Callable[..., Sample], night: Night
) -> None:
    sample = write_sample()
    first = sample.first_stage(night, sample.SampleConfig(), value=3)

    def reason(sample: Sample, device: str = "cpu", **changed: int) -> str:
        return _decide(replace(night, device=device), sample, **changed).reason

    changed = "changed since the last output: "
    assert reason(sample) == "finished"
    assert reason(sample, factor=5) == f"{changed}config.factor (2 → 5)"
    assert reason(sample, value=5) == f"{changed}value (3 → 5)"
    assert reason(sample, device="cuda") == f"{changed}device (cpu → cuda)"
    newer = write_sample('output="first", version=1', 'output="first", version=2')
    assert reason(newer, factor=5) == f"{changed}config.factor (2 → 5), version (1 → 2)"
    assert reason(sample, factor=9).startswith(
        f"{changed}config.factor (2 → 9), libraries.polars ("
    )
    assert "libraries.never-installed" not in reason(sample, factor=-1)
    first.file("a.txt").unlink()
    assert reason(sample) == "output damaged"
    later = sample.second_stage.decide(night, {"first": first, "name": "x"})
    assert (later.reason, later.runs) == ("never finished", True)
    assert not later.artifact.folder.exists()
    assert sorted(path.name for path in first.folder.parent.iterdir()) == [first.key]


def test_an_input_is_known_by_its_key(sample: Sample, night: Night, tmp_path: Path) -> None:
    decide = sample.second_stage.decide
    keys = {
        decide(night, {"first": Artifact("first_stage", key, folder), "name": "x"}).artifact.key
        for key, folder in (("a", tmp_path), ("a", tmp_path / "elsewhere"), ("b", tmp_path))
    }
    assert len(keys) == 2
