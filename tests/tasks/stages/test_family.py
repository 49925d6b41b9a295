"""Several students of one night: what the stages write, choose and evaluate, and after a kill."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.config import NightlyConfig
from flows.pipeline import PIPELINE
from recsys_core.artifacts import Artifact, read_json
from recsys_core.models.checkpoint import load_model
from recsys_core.serving.folder import SERVED_FILES
from recsys_core.serving.scorer import Scorer
from recsys_core.settings import Progress, silent
from recsys_core.training.loop import LoopConfig
from tasks.contracts.family import Family
from tasks.engine.stage import StageRun
from tasks.registry.store import RegistryConfig
from tasks.stages import compress as compress_stage
from tasks.stages.compress import CompressionConfig, compress
from tasks.stages.distill import DistillationConfig, distill
from tasks.stages.evaluate import EvaluationConfig, evaluate
from tasks.training.network import NetworkConfig
from tasks.training.student import StudentConfig, StudentSize

SIZES = {
    "Mean": StudentSize(encoder="pooling", ffn_dim=8),
    "Poor": StudentSize(encoder="pooling", ffn_dim=4, epochs=1),
}
TRAINED = ["curve.json", "model.json", "model.safetensors", "summary.json"]


class Students(NamedTuple):
    """What distill and compress made in a folder."""

    student: Artifact
    compressed: Artifact
    summaries: list[dict[str, Any]]


Make = Callable[..., Students]


@pytest.fixture(scope="module")
def make(
    obvious_world: Artifact,
    trained_teacher: Artifact,
    soft_labels: Artifact,
    tiny_network: NetworkConfig,
) -> Make:
    """Distil and compress the family in a folder; the same folder again is a rerun."""
    student = StudentConfig.model_validate(tiny_network.model_dump() | {"sizes": SIZES})
    recovery = LoopConfig(epochs=2, batch_size=16, learning_rate=1e-2, validate_every=1)
    compression = CompressionConfig(recovery=recovery, min_overlap_at_10=0.5, max_size_loss=0.05)
    distillation = DistillationConfig(initialise="random")

    def run(folder: Path, stage: str, progress: Progress) -> StageRun:
        bare = StageRun.bare(folder, folder / stage, scratch=folder / f"{stage}.scratch")
        bare.out.mkdir(exist_ok=True)
        return replace(bare, progress=progress)

    def make_in(
        folder: Path,
        distilling: Progress = silent,
        pressing: Progress = silent,
        max_bytes: float | None = None,
    ) -> Students:
        distilled = Artifact("distill", "student-key", folder / "distill")
        summary = distill.body(
            run(folder, "distill", distilling),
            distillation,
            student=student,
            prepared=obvious_world,
            teacher=trained_teacher,
            teacher_check=None,
            soft_labels=soft_labels,
        )
        pressed = compress.body(
            run(folder, "compress", pressing),
            compression,
            distillation=distillation,
            recency_prior=True,
            max_bytes=max_bytes,
            training=student.training,
            prepared=obvious_world,
            student=distilled,
            teacher_check=None,
            soft_labels=soft_labels,
        )
        compressed = Artifact("compress", "compressed-key", folder / "compress")
        return Students(distilled, compressed, [summary, pressed])

    return make_in


@pytest.fixture(scope="module")
def students(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Students:
    return make(tmp_path_factory.mktemp("family"))


def _files(artifact: Artifact) -> dict[str, bytes]:
    return {
        path.relative_to(artifact.folder).as_posix(): path.read_bytes()
        for path in artifact.folder.rglob("*")
        if path.is_file()
    }


def test_every_student_is_trained(students: Students) -> None:
    expected = [*TRAINED, *(f"sizes/{name}/{file}" for name in SIZES for file in TRAINED)]
    assert sorted(_files(students.student)) == sorted(expected)
    main, mean, poor = (
        load_model(students.student.folder / folder).config
        for folder in ("", "sizes/Mean", "sizes/Poor")
    )
    assert (main.encoder, mean.encoder, poor.ffn_dim) == ("attention", "pooling", 4)
    assert students.summaries[0]["sizes"].keys() == SIZES.keys()
    assert len(read_json(students.student.file("sizes/Poor/curve.json"))) == 1


def test_the_smallest_that_is_good_enough_ships(students: Students) -> None:
    family = Family.load(students.compressed)
    members = {member.name: member for member in family.members}
    assert list(members) == ["main", "Mean", "Poor"]
    assert members["Poor"].size_bytes < members["Mean"].size_bytes < members["main"].size_bytes
    assert [member.is_good_enough for member in family.members] == [True, True, False]
    assert family.shipped == "Mean"
    assert students.summaries[1]["shipped"] == "Mean"
    assert students.summaries[1]["bytes"] == members["Mean"].size_bytes
    served, recovered = [*SERVED_FILES, "parity.json"], ["", "sizes/main/"]
    expected = [f"{folder}{file}" for folder in (*recovered, "sizes/Poor/") for file in served]
    expected += [f"{folder}curve.json" for folder in recovered]  # Poor is too small to be pruned
    assert sorted(_files(students.compressed)) == sorted([*expected, "family.json"])
    for name, encoder in (("main", "attention"), ("Mean", "pooling")):
        folder = family.served_folder(students.compressed.folder, name)
        assert Scorer(folder).config["metadata"]["network"]["encoder"] == encoder


def test_students_that_the_gate_refuses_for_their_size_do_not_compete(
    students: Students, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed compression chooses from what it has kept, without ranking again."""

    def choose(name: str, max_bytes: float) -> Family:
        folder = tmp_path / name
        shutil.copytree(students.student.folder.parent, folder)
        shutil.rmtree(folder / "compress")
        return Family.load(make(folder, max_bytes=max_bytes).compressed)

    monkeypatch.delattr(compress_stage, "scorer_ranker")
    before = Family.load(students.compressed)
    main, mean, poor = before.members
    assert choose("same", main.size_bytes) == before
    only_poor = choose("poor", mean.size_bytes - 1)
    assert only_poor.shipped == "Poor"
    assert [member.fits for member in only_poor.members] == [False, False, True]
    none = choose("none", poor.size_bytes - 1)
    assert none.shipped == "Poor", "the gate refuses it and says why"
    assert not any(member.fits for member in none.members)


def test_all_students_are_evaluated(
    students: Students,
    obvious_world: Artifact,
    trained_teacher: Artifact,
    make_run: Callable[[str], StageRun],
) -> None:
    run = make_run("evaluate")
    evaluate.body(
        run,
        EvaluationConfig(n_resamples=100),
        registry=RegistryConfig(),
        name="test",
        champion=None,
        prepared=obvious_world,
        teacher=trained_teacher,
        student=students.student,
        control=trained_teacher,
        compressed=students.compressed,
    )
    models = read_json(run.out / "metrics.json")["models"]
    assert {"compressed", "size_main", "size_Poor"} <= models.keys()
    assert "size_Mean" not in models, "it is the compressed student"
    shipped = students.student.file("sizes/Mean/model.safetensors")
    assert models["student"]["size_bytes"] == shipped.stat().st_size
    ndcg = {name: model["slices"]["all"]["ndcg_at_10"]["mean"] for name, model in models.items()}
    assert ndcg["size_Poor"] < ndcg["compressed"]
    assert read_json(run.out / "latency.json").keys() >= {"size_main", "size_Poor"}


def test_a_rerun_after_a_kill_trains_no_student_twice(
    students: Students, make: Make, tmp_path: Path
) -> None:
    """Each stage is killed while it trains the second of the three students."""

    def kill(fraction: float, message: str) -> None:
        if fraction > 0.5:
            assert message.startswith("Mean, student 2 of 3, ")
            raise KeyboardInterrupt

    resumed: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, distilling=kill)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, distilling=lambda fraction, _: resumed.append(fraction), pressing=kill)
    assert min(resumed) > 0.33
    finished = [
        tmp_path / path for path in ("distill/summary.json", "compress.scratch/served/parity.json")
    ]
    written = [path.stat().st_mtime_ns for path in finished]
    resumed.clear()
    again = make(tmp_path, pressing=lambda fraction, _: resumed.append(fraction))
    assert min(resumed) > 0.33
    assert [path.stat().st_mtime_ns for path in finished] == written
    assert _files(again.student) == _files(students.student)
    assert _files(again.compressed) == _files(students.compressed)
    assert again.summaries == students.summaries


def test_the_control_has_the_size_that_ships(students: Students) -> None:
    default = NightlyConfig()
    student = StudentConfig.model_validate(default.student.model_dump() | {"sizes": SIZES})
    config = default.model_copy(update={"student": student})
    (adjust,) = (step.adjust for step in PIPELINE.steps if step.stage is compress)
    assert adjust is not None
    names = [step.stage.name for step in PIPELINE.steps]
    assert names.index("control") > names.index("compress")
    adjusted = adjust(config, students.compressed)
    assert adjusted.student.members() == {"main": config.student.members()["Mean"]}
