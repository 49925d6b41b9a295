"""Compress the student: prune channels, recover, export, quantize, check parity.

The output is the folder that is served: `model.onnx`, `item_ids.json`, `config.json`.
"""

import time
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import Field

from recsys_core.artifacts import Artifact, write_json
from recsys_core.compression.export import export_onnx
from recsys_core.compression.parity import check_parity, parity
from recsys_core.compression.pruning import ffn_importance, prune_ffn
from recsys_core.compression.quantization import quantize
from recsys_core.data.histories.read import read_training_histories
from recsys_core.data.soft_labels import SoftLabels
from recsys_core.evaluation.baselines import cold_start_scores
from recsys_core.models.checkpoint import load_model
from recsys_core.models.ranker import pad_histories
from recsys_core.models.recommender import Recommender
from recsys_core.serving.folder import served_bytes
from recsys_core.serving.scorer import FORMAT
from recsys_core.settings import Settings
from recsys_core.training.loop import TrainingConfig, fit
from recsys_core.training.negative_sampling import FullCatalogue
from tasks.engine.stage import StageRun, Summary, stage
from tasks.stages.distill import DistillationConfig, distilling_loss
from tasks.training.network import TRAINING_LIBRARIES, save_curve, training_set_of
from tasks.training.prepared import Prepared


class CompressionConfig(Settings):
    """How the student is made smaller, and how much its ranking may change."""

    ffn_keep_share: float = Field(
        default=0.75, gt=0, le=1, description="Share of the SwiGLU channels to keep"
    )
    recovery: TrainingConfig = Field(
        default=TrainingConfig(epochs=2, validate_every=1, learning_rate=2e-4),
        description="Training after pruning, with the distillation loss",
    )
    calibration_users: int = Field(
        default=256, ge=1, le=100_000, description="Histories for channel importance and parity"
    )
    min_overlap_at_10: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Smallest share of the network's top 10 that the artefact's top 10 must hold",
    )


@stage(
    output="compressed",
    version=3,
    libraries=(*TRAINING_LIBRARIES, "onnx", "onnxruntime", "onnxscript"),
)
def compress(
    run: StageRun,
    config: CompressionConfig,
    *,
    distillation: DistillationConfig,
    prepared: Artifact,
    student: Artifact,
    soft_labels: Artifact,
) -> Summary:
    """Write the served model, `parity.json` and the recovery's `curve.json`."""
    data = Prepared(prepared)
    model = load_model(student.folder)
    calibration = _calibration_histories(data, config.calibration_users)
    keep = max(1, round(config.ffn_keep_share * model.config.ffn_dim))
    if keep < model.config.ffn_dim:
        padded, _ = pad_histories(calibration, model.config.max_length)
        model = prune_ffn(model, keep, ffn_importance(model, torch.from_numpy(padded)))
        _recover(run, model, data, config.recovery, distillation, soft_labels)
    active = data.items.filter("active")
    exact, shipped = run.scratch / "fp32.onnx", run.out / "model.onnx"
    export_onnx(
        model.cpu(),
        exact,
        active=active["item_idx"].to_list(),
        popularity=cold_start_scores(active),
    )
    quantize(exact, shipped)
    write_json(run.out / "item_ids.json", active["item_id"].to_list())
    write_json(run.out / "config.json", _served_config(model, data, active, student))
    figures = parity(
        model,
        exact,
        run.out,
        calibration,
        active["item_idx"].to_list(),
        exclude_seen=data.exclude_seen,
    )
    figures.save(run.out)
    check_parity(figures, min_overlap=config.min_overlap_at_10)
    return {"ffn_dim": keep, "bytes": served_bytes(run.out), **figures.model_dump()}


def _recover(
    run: StageRun,
    model: Recommender,
    data: Prepared,
    config: TrainingConfig,
    distillation: DistillationConfig,
    soft_labels: Artifact,
) -> None:
    labels = SoftLabels(soft_labels.folder, item_index_sha256=data.split.item_index_sha256)
    training_set = training_set_of(data, model.max_length, config, labels=labels)
    if model.content is not None:  # so that the vectors of cold items, content only, stay
        model.content.requires_grad_(False)
    curve = fit(
        model.to(run.device),
        training_set,
        config,
        candidates=FullCatalogue(training_set.item_counts(len(data.items))),
        loss=distilling_loss(labels, distillation, run.device),
        validate=data.validator(config.validation_cases),
        checkpoint=run.scratch / "checkpoint",
        clock=time.monotonic,
        progress=run.progress,
    )
    save_curve(run.out, curve)


def _calibration_histories(data: Prepared, n_users: int) -> list[np.ndarray[Any, Any]]:
    """Training histories of the first users; users are in the order of a hash of their ids."""
    chosen: list[np.ndarray[Any, Any]] = []
    for bucket in data.buckets:
        histories = read_training_histories([bucket])
        users = np.flatnonzero(histories.lengths > 0)[: n_users - len(chosen)]
        bounds = zip(histories.starts[users], histories.starts[users + 1], strict=True)
        chosen += [histories.items[start:end] for start, end in bounds]
        if len(chosen) == n_users:
            break
    return chosen


def _served_config(
    model: Recommender, data: Prepared, active: pl.DataFrame, student: Artifact
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "max_length": model.config.max_length,
        "n_items": len(active),
        "embedding_dim": model.config.embedding_dim,
        "trained_through": data.split.trained_through,
        "item_index_sha256": data.split.item_index_sha256,
        "exclude_seen": data.exclude_seen,
        "metadata": {"student": student.key, "network": model.config.model_dump()},
    }
