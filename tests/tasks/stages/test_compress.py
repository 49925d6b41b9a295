"""The compress stage: what it writes and refuses, and that a kill changes none of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recsys_core.artifacts import Artifact, read_json
from recsys_core.compression.export import export_onnx
from recsys_core.compression.parts import bytes_by_part
from recsys_core.compression.quantization import quantize
from recsys_core.evaluation.popularity import cold_start_scores
from recsys_core.models.checkpoint import load_model
from recsys_core.models.recommender import Recommender
from recsys_core.serving.folder import SERVED_FILES
from recsys_core.serving.scorer import Scorer
from recsys_core.settings import Progress, silent
from recsys_core.training import negative_sampling
from recsys_core.training.loop import LoopConfig, TrainingConfig
from tasks.engine.stage import StageRun
from tasks.stages import compress as compress_stage
from tasks.stages.compress import CompressionConfig, compress
from tasks.stages.distill import DistillationConfig
from tasks.training.prepared import Prepared
from tests.teacher_check import made_up_check

CONFIG = CompressionConfig(
    ffn_keep_share=0.75,
    recovery=LoopConfig(epochs=2, batch_size=16, learning_rate=1e-2, validate_every=1),
    min_overlap_at_10=0.5,
)

DISTILLATION, TRAINING = DistillationConfig(), TrainingConfig()

Compress = Callable[..., dict[str, Any]]
"""Runs the stage's body in a folder."""


@pytest.fixture(scope="module")
def compress_in(
    obvious_world: Artifact,
    trained_teacher: Artifact,
    teacher_check: Artifact,
    soft_labels: Artifact,
) -> Compress:
    """Compress the teacher in a folder; the same folder again is a rerun."""

    def run_stage(
        folder: Path,
        config: CompressionConfig = CONFIG,
        progress: Progress = silent,
        check: Artifact = teacher_check,
        distillation: DistillationConfig = DISTILLATION,
        training: TrainingConfig = TRAINING,
    ) -> dict[str, Any]:
        run = replace(StageRun.bare(folder, folder / "out"), progress=progress)
        for path in (run.out, run.scratch):
            path.mkdir(exist_ok=True)
        return compress.body(
            run,
            config,
            distillation=distillation,
            training=training,
            recency_prior=True,
            max_bytes=None,
            prepared=obvious_world,
            student=trained_teacher,
            teacher_check=check,
            soft_labels=soft_labels,
        )

    return run_stage


@pytest.fixture(scope="module")
def compressed(
    compress_in: Compress, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Folder and summary of an undisturbed compression."""
    folder = tmp_path_factory.mktemp("compressed")
    return folder, compress_in(folder)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_it_writes_a_served_model_and_how_it_was_made(
    compressed: tuple[Path, dict[str, Any]], trained_teacher: Artifact
) -> None:
    folder, summary = compressed
    written = _bytes(folder)
    assert sorted(written) == sorted([*SERVED_FILES, "curve.json", "family.json", "parity.json"])
    figures = read_json(folder / "out" / "parity.json")
    n_bytes = sum(len(written[name]) for name in SERVED_FILES)
    parts = bytes_by_part(folder / "out")
    assert summary == {
        "ffn_dim": 12,
        "bytes": n_bytes,
        "bytes_by_part": parts,
        "recency_prior": None,
        **figures,
    }
    scorer = Scorer(folder / "out")
    network = load_model(trained_teacher.folder).config
    assert scorer.max_length == network.max_length == 8
    assert scorer.config["embedding_dim"] == network.embedding_dim
    assert scorer.config["item_index_sha256"] == "index"
    assert scorer.config["trained_through"] is None
    assert scorer.config["exclude_seen"] is True
    assert scorer.config["metadata"] == {
        "student": "teacher-key",
        "size": "main",
        "network": network.model_dump() | {"ffn_dim": 12},
        "precision": "int8",
        "recency_prior": None,
    }


def test_an_empty_history_gets_the_most_popular_items(
    compressed: tuple[Path, dict[str, Any]], obvious_world: Artifact
) -> None:
    items = Prepared(obvious_world).items
    ranks = dict(zip(items["item_id"], cold_start_scores(items), strict=True))
    (answer,) = Scorer(compressed[0] / "out").recommend([[]], k=16)
    assert answer.item_ids == sorted(ranks, key=ranks.__getitem__, reverse=True)
    assert answer.scores == sorted(ranks.values(), reverse=True)


def test_the_served_model_scores_as_the_network_does(
    compressed: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = compressed
    figures = read_json(folder / "out" / "parity.json")
    assert figures["n_histories"] == 60
    assert figures["exact_max_abs_difference"] < 1e-3
    assert figures["correlation"] > 0.99
    assert figures["overlap_at_10"] > 0.9


def test_recovery_trains_for_the_epochs_that_were_asked_for(
    compressed: tuple[Path, dict[str, Any]],
) -> None:
    curve = read_json(compressed[0] / "out" / "curve.json")
    assert [point["epoch"] for point in curve] == [1, 2]
    assert max(point["validation_ndcg_at_10"] for point in curve) > 0.9


def test_recovery_leaves_out_labels_that_do_not_count(
    compress_in: Compress, compressed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    check = Artifact("check_teacher", "worse", tmp_path / "check")
    made_up_check("cold_users").save(check.folder)
    compress_in(tmp_path, check=check)
    losses = [
        [epoch["loss"] for epoch in read_json(folder / "out" / "curve.json")]
        for folder in (tmp_path, compressed[0])
    ]
    assert losses[0][0] < losses[1][0]


def test_recovery_compares_what_the_students_training_compared(
    compress_in: Compress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss on the top of the catalogue, which a training on drawn candidates refuses."""
    monkeypatch.setattr(negative_sampling, "FULL_SOFTMAX_ITEMS", 1)
    closure = DistillationConfig(closure_weight=1.0)
    full, drawn = (TrainingConfig.model_validate({"loss": loss}) for loss in ("softmax", "auto"))
    compress_in(tmp_path, distillation=closure, training=full)
    (tmp_path / "drawn").mkdir()
    with pytest.raises(ValueError, match=r"closure_weight is 1, .* drawn candidates"):
        compress_in(tmp_path / "drawn", distillation=closure, training=drawn)


def test_recovery_keeps_the_vectors_of_cold_items(
    compressed: tuple[Path, dict[str, Any]], trained_teacher: Artifact
) -> None:
    """Their vectors are content only, and the recovery has no events that would hold them."""
    folder, _ = compressed
    before = load_model(trained_teacher.folder).state_dict()
    checkpoint = folder / "scratch" / "checkpoint"
    after = load_file(checkpoint / read_json(checkpoint / "training.json")["slot"])
    content = [name for name in before if name.startswith("content.")]
    assert content
    for weights in ("model", "average", "best"):
        for name in content:
            assert torch.equal(after[f"{weights}.{name}"], before[name])
        assert not torch.equal(after[f"{weights}.id_embedding"], before["id_embedding"])


def test_a_kill_during_recovery_changes_no_byte(
    compressed: tuple[Path, dict[str, Any]], compress_in: Compress, tmp_path: Path
) -> None:
    undisturbed, summary = compressed

    def kill(fraction: float, message: str) -> None:
        if fraction > 0.55:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_in(tmp_path, progress=kill)
    assert _bytes(tmp_path) == {}
    resumed: list[float] = []
    again = compress_in(tmp_path, progress=lambda fraction, _: resumed.append(fraction))
    assert min(resumed) > 0.5, "training resumes from the checkpoint of the first epoch"
    assert _bytes(tmp_path) == _bytes(undisturbed)
    assert again == summary


def test_without_pruning_there_is_no_recovery(compress_in: Compress, tmp_path: Path) -> None:
    def fail(fraction: float, message: str) -> None:
        pytest.fail(f"Something trains: {message}")

    whole = CONFIG.model_copy(update={"ffn_keep_share": 1.0})
    assert compress_in(tmp_path, whole, progress=fail)["ffn_dim"] == 16
    assert sorted(_bytes(tmp_path)) == sorted([*SERVED_FILES, "family.json", "parity.json"])
    assert Scorer(tmp_path / "out").config["metadata"]["network"]["ffn_dim"] == 16
    assert not (tmp_path / "scratch" / "checkpoint").exists()


def test_where_rounding_hurts_the_model_is_served_in_fp32(
    compress_in: Compress,
    trained_teacher: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The int8 graph is that of an untrained network."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        other = Recommender(16, load_model(trained_teacher.folder).config)

    def quantize_another(_: Path, shipped: Path) -> None:
        graph = tmp_path / "other.onnx"
        export_onnx(other.eval(), graph, active=range(1, 17))
        quantize(graph, shipped)

    monkeypatch.setattr(compress_stage, "quantize", quantize_another)
    summary = compress_in(tmp_path)
    assert summary["precision"] == "fp32"
    assert summary["rounded_ndcg_difference"]["high"] < -0.01
    assert summary["ndcg_at_10"] > 0.9
    assert summary["max_abs_difference"] == summary["exact_max_abs_difference"] < 1e-3
    served, exact = tmp_path / "out" / "model.onnx", tmp_path / "scratch" / "fp32" / "model.onnx"
    assert served.read_bytes() == exact.read_bytes()
    assert Scorer(served.parent).config["metadata"]["precision"] == "fp32"
    assert "so the model is served in fp32" in caplog.text
