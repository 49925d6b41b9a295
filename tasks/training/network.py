"""Shared by the training stages: build a network, train it, save it."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field

from recsys_core.data.soft_labels.store import SoftLabels
from recsys_core.models.checkpoint import SHAPE, WEIGHTS, save_model
from recsys_core.models.recommender import ModelConfig, Recommender
from recsys_core.settings import Settings
from recsys_core.training.batch import TrustedPositions
from recsys_core.training.batching import Recent, TrainingSet
from recsys_core.training.checkpoint import CurvePoint
from recsys_core.training.cold_items import find_cold_items, fit_cold_items
from recsys_core.training.gradients import Loss
from recsys_core.training.loop import LoopConfig, TrainingConfig, fit
from recsys_core.training.losses.selection import candidate_set_of, next_item_loss
from recsys_core.training.negative_sampling import CandidateSet
from tasks.contracts.network import Curve, Epoch, NetworkSummary
from tasks.engine.stage import StageRun
from tasks.training.prepared import Prepared
from tasks.training.recency import fit_recency_prior


class NetworkConfig(Settings):
    """A network and its training."""

    model: ModelConfig = Field(default=ModelConfig(), description="Size of the network")
    training: TrainingConfig = Field(default=TrainingConfig(), description="Its training")
    content_features: int = Field(
        default=256,
        ge=0,
        le=8192,
        description="Width of the hashed titles and categories; 0: do not use them",
    )
    recency_prior: bool = Field(
        default=True,
        description="Add recent popularity to scores where that ranks validation events better",
    )


TRAINING_LIBRARIES = ("numpy", "polars", "torch")
"""Their versions decide a trained network's weights."""

FUSED_LOSS_LIBRARY: Mapping[str, Callable[[NetworkConfig], bool]] = {
    "liger-kernel": lambda config: config.training.fused_loss
}
"""The library of the fused loss, if that is configured."""


def build_network(data: Prepared, config: NetworkConfig) -> Recommender:
    """A network over the prepared catalogue, with initial weights from the training seed.

    Items without a training event have no id embedding: their vector is their content.
    """
    torch.manual_seed(config.training.seed)
    model = Recommender(len(data.items), config.model, data.content(config.content_features))
    model.zero_id_embeddings(data.items.filter(pl.col("train_count") == 0)["item_idx"].to_numpy())
    return model


def train_without_teacher(
    run: StageRun,
    config: NetworkConfig,
    data: Prepared,
    *,
    model: Recommender | None = None,
    recent: Recent | None = None,
) -> NetworkSummary:
    """Train a network on the events that came next.

    Args:
        run: Folders, device and progress.
        config: The network.
        data: Holds the training events.
        model: Training starts from its weights; None: from those of `build_network`.
        recent: Selects the users of a warm start; None: all users.
    """
    model = model or build_network(data, config)
    training_set = training_set_of(
        data, model.max_length, config.training, recent=recent, with_context=model.reads_context
    )
    candidates = candidate_set_of(training_set.item_counts(len(data.items)), config.training)
    loss = next_item_loss(config.training, candidates)
    cold_items = find_cold_items(training_set, len(data.items))
    if recent is not None:  # an item whose events were deleted keeps the id learned from them
        cold_items = cold_items[~model.has_id_embedding(cold_items)]
    return train_and_save(
        run,
        model,
        data,
        config,
        training_set,
        candidates=candidates,
        loss=loss,
        cold_items=cold_items,
    )


def training_set_of(
    data: Prepared,
    max_length: int,
    config: LoopConfig,
    *,
    labels: SoftLabels | None = None,
    trusted: TrustedPositions | None = None,
    recent: Recent | None = None,
    with_context: bool = False,
) -> TrainingSet:
    """The training events in windows of at most `max_length` events."""
    return TrainingSet(
        data.buckets,
        max_length=max_length,
        batch_size=config.batch_size,
        labels=labels,
        trusted=trusted,
        recent=recent,
        with_context=with_context,
        exclude_seen=data.exclude_seen,
    )


def train_and_save(
    run: StageRun,
    model: Recommender,
    data: Prepared,
    network: NetworkConfig,
    training_set: TrainingSet,
    *,
    candidates: CandidateSet,
    loss: Loss,
    cold_items: NDArray[np.int32],
) -> NetworkSummary:
    """Train, then fit the content of cold items and the recency prior.

    Writes `model.safetensors`, `model.json`, `curve.json` and, last, `summary.json`; checkpoints
    are in the stage's scratch folder.
    """
    config = network.training
    model = model.to(run.device)
    validate = data.validator(config.validation_cases)
    curve = fit(
        model,
        training_set,
        config,
        candidates=candidates,
        loss=loss,
        validate=validate,
        checkpoint=run.scratch / "checkpoint",
        clock=time.monotonic,
        progress=run.progress,
    )
    has_changed = fit_cold_items(
        model,
        cold_items,
        training_set,
        config,
        candidates=candidates,
        loss=loss,
        progress=run.progress,
    )
    prior = fit_recency_prior(run, model, data, validate) if network.recency_prior else None
    save_model(run.out, model)
    save_curve(run.out, curve)
    validated = {
        point.validation_ndcg_at_10: point.epoch
        for point in reversed(curve)
        if point.validation_ndcg_at_10 is not None
    }
    best = max(validated)
    summary = NetworkSummary(
        parameters=n_parameters(model),
        epochs=len(curve),
        best_epoch=validated[best],
        validation_ndcg_at_10=validate(model) if has_changed or prior else best,
        recency_prior=prior,
    )
    summary.save(run.out)
    return summary


def finished_network(folder: Path) -> NetworkSummary | None:
    """The summary of a network that is complete in a folder, or None.

    A stage deletes damaged files before it runs again. If any is gone, the network has to be made
    again, so the summary is deleted too: it is written last, and must not vouch for a part of it.
    """
    files = (WEIGHTS, SHAPE, Curve.file_name, NetworkSummary.file_name)
    if all((folder / name).exists() for name in files):
        return NetworkSummary.load(folder)
    (folder / NetworkSummary.file_name).unlink(missing_ok=True)
    return None


def save_curve(folder: Path, points: Sequence[CurvePoint]) -> None:
    """Write `curve.json`."""
    Curve(epochs=[Epoch(**point._asdict()) for point in points]).save(folder)


def n_parameters(model: Recommender) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())
